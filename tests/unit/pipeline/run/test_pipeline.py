"""The pipeline over small stand-in stages: order, skipping, resuming, refusing; every rule of state.json."""

from __future__ import annotations

import fcntl
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reckg.config.run_config import Config, parse_config, read_config
from reckg.errors import ArtifactError, ConfigError, DataError
from reckg.pipeline.run.pipeline import config_toml, run_pipeline
from reckg.pipeline.run.stage_table import DATASET, STAGES, Stage, changes, key_of, key_parts
from reckg.pipeline.run.state import LOCK_FILE, RunState


class World:
    """A dataset folder, a run folder, and three stages: clean -> train -> index; calls are recorded."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "dataset"
        self.run = folder / "run"
        self.data.mkdir()
        (self.data / "interactions.csv").write_text("user_id,item_id\nann,book\n")
        self.calls: list[str] = []
        self.lines: list[str] = []
        self.fail_in = ""
        self.stages = (
            Stage("clean", "cleans", ("data",), (DATASET,), ("prepared",), function=self._stage("clean", "prepared")),
            Stage(
                "train", "trains", ("train",), ("prepared",), ("model",), True, function=self._stage("train", "model")
            ),
            Stage("index", "indexes", ("index",), ("model",), ("index",), function=self._stage("index", "index")),
        )

    def _stage(self, name: str, folder: str) -> Callable[[Config, Path, Path], dict[str, Any]]:
        def stage(config: Config, data: Path, run: Path) -> dict[str, Any]:
            self.calls.append(name)
            (run / folder).mkdir(exist_ok=True)
            earlier = sorted(p.name for p in (run / folder).iterdir())
            (run / folder / "partial").write_text("half")
            if self.fail_in == name:
                raise KeyboardInterrupt
            (run / folder / "partial").unlink()
            epochs = config.train.epochs if name == "train" else 0
            (run / folder / "result").write_text(f"{name} {epochs} {(data / 'interactions.csv').read_text()}")
            why = "a reason that is long enough to get a line of its own"
            return {"found": len(earlier), "notes": [f"{name} is small"], "whole": True, "loss": 0.12345, "why": why}

        return stage

    def go(self, config: Config | None = None, **options: Any) -> RunState:
        self.calls.clear()
        self.lines.clear()
        return run_pipeline(
            config or Config(), self.data, self.run, stages=self.stages, say=self.lines.append, **options
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def epochs(count: int) -> Config:
    return parse_config({"train": {"epochs": count}}, "test")


def test_runs_in_order_then_skips_what_is_up_to_date(world: World) -> None:
    state = world.go()
    assert world.calls == ["clean", "train", "index"]
    assert {name: record.status for name, record in state.stages.items()} == dict.fromkeys(
        ("clean", "train", "index"), "done"
    )
    assert list(state.stages["train"].outputs) == ["model/result"]
    assert state.stages["train"].peak_memory_mb > 1
    assert world.lines[:2] == ["[1/3] clean: cleans", "    - clean is small"]
    assert world.lines[2].startswith("    - a reason that is long enough")
    assert re.fullmatch(r" {4}\d+\.\d s, peak memory [\d,]+ MB, found 0, whole yes, loss 0\.1235", world.lines[3])
    world.go()
    assert world.calls == []
    assert [line.split(" (")[0] for line in world.lines] == [
        "[1/3] clean: up to date, skipped",
        "[2/3] train: up to date, skipped",
        "[3/3] index: up to date, skipped",
    ]


def test_a_setting_that_a_stage_does_not_use_runs_nothing_again(world: World) -> None:
    world.go()
    world.go(parse_config({"evaluate": {"block_users": 7}, "run": {"threads": 2}}, "test"))
    assert world.calls == []


def test_finished_results_are_replaced_only_when_asked(world: World) -> None:
    world.go()
    with pytest.raises(
        ConfigError, match=r"train \(train.epochs was 60, is 5\); index \(is built from train\).*--overwrite"
    ):
        world.go(epochs(5))
    assert world.calls == []
    assert "train 60" in (world.run / "model/result").read_text()
    assert read_config(world.run / "config.toml").train.epochs == 60
    world.go(epochs(5), overwrite=True)
    assert world.calls == ["train", "index"]
    assert "train 5" in (world.run / "model/result").read_text()
    assert read_config(world.run / "config.toml").train.epochs == 5


def test_permission_to_replace_outlives_a_kill(world: World) -> None:
    world.go()
    world.fail_in = "train"
    with pytest.raises(KeyboardInterrupt):
        world.go(epochs(5), overwrite=True)
    world.fail_in = ""
    world.go(epochs(5))
    assert world.calls == ["train", "index"]


def test_changed_data_is_found_by_content(world: World) -> None:
    world.go()
    path = world.data / "interactions.csv"
    path.write_text(path.read_text())  # a new time stamp, the same content
    world.go()
    assert world.calls == []
    path.write_text("user_id,item_id\nbob,book\n")
    with pytest.raises(ConfigError, match=r"clean \(dataset/interactions.csv changed\)"):
        world.go()
    world.go(overwrite=True)
    assert world.calls == ["clean", "train", "index"]


def test_a_stage_whose_outcome_is_the_same_leaves_the_later_ones_alone(world: World) -> None:
    world.go()
    world.go(parse_config({"data": {"k_core": 2}}, "test"), overwrite=True)
    assert world.calls == ["clean"]


def test_an_interrupted_stage_runs_again_and_training_keeps_its_checkpoint(world: World) -> None:
    for name, kept in (("clean", 0), ("train", 1)):
        world.fail_in = name
        with pytest.raises(KeyboardInterrupt):
            world.go()
        assert RunState.read(world.run).stages[name].status == "started"
        world.fail_in = "index" if name == "train" else "train"
        with pytest.raises(KeyboardInterrupt):
            world.go()
        assert world.calls[0] == name
        assert RunState.read(world.run).stages[name].counts["found"] == kept
        if name == "clean":
            world.run.joinpath("model/partial").unlink()
    world.fail_in = ""
    world.go()
    assert world.calls == ["index"]


def test_an_interrupted_training_with_other_settings_starts_anew(world: World) -> None:
    world.fail_in = "train"
    with pytest.raises(KeyboardInterrupt):
        world.go()
    world.fail_in = ""
    state = world.go(epochs(3))
    assert state.stages["train"].counts["found"] == 0
    assert "anew: train.epochs was 60, is 3 since it was interrupted" in "\n".join(world.lines)


def test_a_missing_output_is_made_again_with_all_that_is_built_from_it(world: World) -> None:
    world.go()
    (world.run / "index/result").unlink()
    world.go()
    assert world.calls == ["index"]
    (world.run / "model/result").unlink()
    with pytest.raises(ConfigError, match=r"index \(is built from train\)"):
        world.go()


def test_an_altered_output_is_not_up_to_date(world: World) -> None:
    world.go()
    (world.run / "index/result").write_text("altered by hand")
    with pytest.raises(ConfigError, match="index/result was altered"):
        world.go()


def test_single_stage_needs_the_earlier_ones(world: World) -> None:
    with pytest.raises(ConfigError, match=r"stage clean comes before train and is not up to date \(has not run\)"):
        world.go(only="train")
    assert world.calls == []
    world.go(only="clean")
    world.go(only="train")
    assert world.calls == ["train"]
    with pytest.raises(ConfigError, match=r"train\.epochs was 60, is 5"):
        world.go(epochs(5), only="index")


def test_a_folder_of_something_else_is_refused(world: World) -> None:
    world.run.mkdir()
    (world.run / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is not a reckg run \(it holds 'thesis.tex'"):
        world.go()
    assert sorted(p.name for p in world.run.iterdir()) == [LOCK_FILE, "thesis.tex"]


def test_two_processes_in_one_folder(world: World) -> None:
    world.go()
    with open(world.run / LOCK_FILE, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another reckg process"):
            world.go()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "data": "", "stages": {"a": 1}}'])
def test_a_damaged_state_is_named(world: World, content: str) -> None:
    world.go()
    (world.run / "state.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"state\.json is damaged"):
        world.go()


def test_a_newer_state_is_refused(world: World) -> None:
    world.go()
    values = json.loads((world.run / "state.json").read_text())
    (world.run / "state.json").write_text(json.dumps(values | {"format": 99}))
    with pytest.raises(ArtifactError, match="has format 99"):
        world.go()


def test_no_dataset(world: World) -> None:
    with pytest.raises(DataError, match="is no dataset folder"):
        run_pipeline(Config(), world.data / "nothing", world.run, stages=world.stages)


def test_changed_code_is_a_change(world: World) -> None:
    parts = key_parts(world.stages[0], Config(), world.data, RunState(world.run))
    other = {**parts, "code": "other"}
    assert key_of(parts) != key_of(other)
    assert changes(parts, other) == ["reckg's code changed"]


def test_the_config_survives_its_toml(tmp_path: Path) -> None:
    values = {"text": {"encoder": 'a "quoted"\\path\n'}, "evaluate": {"k": [1, 2]}, "data": {"min_weight": 0.5}}
    config = parse_config(values, "test")
    (tmp_path / "config.toml").write_text(config_toml(config), encoding="utf-8")
    assert read_config(tmp_path / "config.toml") == config


def test_every_stage_reads_only_what_an_earlier_one_writes() -> None:
    written = {"dataset", "encoder"}
    for stage in STAGES:
        assert set(stage.inputs) <= written, stage.name
        assert not set(stage.outputs) & written, stage.name
        written |= set(stage.outputs)
        for name in stage.settings:
            section, _, key = name.partition(".")
            known = Config.model_fields[section].annotation
            assert known is not None and (not key or key in known.model_fields), name


def test_every_stage_has_its_function() -> None:
    for stage in STAGES:
        assert list(inspect.signature(stage.load()).parameters) == ["config", "data", "run"]


def test_a_local_encoder_is_part_of_the_key(world: World) -> None:
    folder = world.data.parent / "encoder"
    folder.mkdir()
    (folder / "weights").write_text("1")
    config = parse_config({"text": {"encoder": str(folder)}}, "test")
    stage = replace(world.stages[1], inputs=("encoder",))
    before = key_parts(stage, config, world.data, RunState(world.run))
    assert list(before["inputs"]) == ["encoder/weights"]
    (folder / "weights").write_text("two")
    assert changes(before, key_parts(stage, config, world.data, RunState(world.run))) == ["encoder/weights changed"]

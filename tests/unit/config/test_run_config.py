"""The configuration: defaults, every problem at once, suggestions, and the generated reference page."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from jobs.config_reference import configuration_page, serving_page
from reckg.config.data_config import EventConfig
from reckg.config.run_config import Config, parse_config, read_config
from reckg.errors import ConfigError
from reckg.pipeline.training.objective import schedule_of
from serving.settings import variables

ROOT = Path(__file__).resolve().parents[3]


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("")
    assert read_config(tmp_path / "run.toml") == Config()


def test_every_problem_is_reported_at_once_with_a_suggestion() -> None:
    values = {"train": {"learnign_rate": 0.1, "epochs": 0}, "index": {"kind": "tree"}, "colour": {}}
    with pytest.raises(ConfigError) as caught:
        parse_config(values, "train.toml")
    message = str(caught.value)
    assert message.startswith("4 problems in train.toml: ")
    assert "unknown key 'train.learnign_rate' (did you mean 'learning_rate'?)" in message
    assert "train.epochs: Input should be greater than or equal to 1, got 0" in message
    assert "index.kind: Input should be 'auto', 'flat', 'ivf' or 'hnsw', got 'tree'" in message
    assert "unknown key 'colour' (known: run, data, task, events, split," in message


def test_the_events_are_tables_of_any_name() -> None:
    events = parse_config({"events": {"buy": {"target": True}, "view": {"weight": 0.1}}}, "test").events
    assert events["buy"].target and events["view"].weight == 0.1
    with pytest.raises(ConfigError, match=r"unknown key 'events.buy.wieght' \(did you mean 'weight'\?\)"):
        parse_config({"events": {"buy": {"wieght": 1}}}, "test")
    with pytest.raises(ConfigError, match="a negative event is no target and has no weight"):
        parse_config({"events": {"hide": {"negative": True, "weight": 2}}}, "test")


def test_new_items_are_the_question_of_a_cold_items_split() -> None:
    with pytest.raises(ConfigError, match=r"task\.target: must be auto or new"):
        parse_config({"split": {"kind": "cold-items"}, "task": {"target": "any"}}, "test")


def test_one_problem_is_singular() -> None:
    with pytest.raises(ConfigError, match=r"^1 problem in x\.toml: run\.seed"):
        parse_config({"run": {"seed": -1}}, "x.toml")


def test_new_items_are_in_no_history() -> None:
    asked = {"split": {"kind": "cold-items"}, "evaluate": {"history": "train+valid"}}
    with pytest.raises(ConfigError, match=r"^1 problem in x\.toml: evaluate\.history: must be auto or train"):
        parse_config(asked, "x.toml")
    assert parse_config({"split": {"kind": "cold-items"}}, "x.toml").split.cold_share == 0.2


def test_a_section_that_is_no_table() -> None:
    with pytest.raises(ConfigError, match=r"1 problem in x\.toml: train: .*got 3"):
        parse_config({"train": 3}, "x.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[train\n", "is not valid TOML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[train]\nepochs = 1\nepochs = 2\n", "is not valid TOML"),
    ],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "run.toml")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbf[train]\r\nepochs = 7\r\n")
    assert read_config(tmp_path / "run.toml").train.epochs == 7


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        read_config(tmp_path / "none.toml")


def test_shipped_configs_are_valid() -> None:
    paths = sorted((ROOT / "jobs/configs").glob("*.toml"))
    assert {path.name for path in paths} >= {"bookshop.toml", "ml-100k.toml", "amazon-beauty.toml"}
    for path in paths:
        read_config(path)


def test_the_reference_page_is_current() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == configuration_page(), "run: python -m jobs.config_reference"


def test_the_settings_of_a_server_are_current() -> None:
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    assert page == serving_page(page), "run: python -m jobs.config_reference"
    for variable, place in variables().items():
        assert f"| `{place[-1]}` |" in page, variable


def test_the_reference_page_names_every_key() -> None:
    page = configuration_page()
    for section, field in Config.model_fields.items():
        assert f"## [{section}{'.NAME' if section == 'events' else ''}]" in page
        assert field.annotation is not None
        of = EventConfig if section == "events" else field.annotation
        for key in of.model_fields:
            assert f"| `{key}` |" in page
    example = page.split("```toml")[1].split("```")[0]
    assert parse_config(tomllib.loads(example), "example").index.kind == "hnsw"


def test_every_training_setting_reaches_the_schedule() -> None:
    values = {"targets": 3, "learning_rate": 0.5, "warmup_steps": 6, "epochs": 7, "average_decay": 0.25, "patience": 9}
    schedule = vars(schedule_of(parse_config({"train": values}, "test"), 11))
    assert schedule | values == schedule and schedule["batch_size"] == 11

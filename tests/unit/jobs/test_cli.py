"""The command line: help with examples, one-line errors with exit code 2, and arguments that reach their job."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobs.cli import FORMATS, STAGE_COMMANDS, build_parser, main
from jobs.commands.describe import describe
from reckg.errors import ArtifactError, DataError
from reckg.pipeline.run.stage_table import STAGES
from serving.settings import ServerSettings

COMMANDS = ("import", "run", *STAGE_COMMANDS, "ablate", "recommend", "publish", "serve", "token", "demo", "describe")


def subparsers() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._actions
    return dict(next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices)


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, function: str, result: Any = None) -> list[Any]:
    """Puts a recording function in place of a job; returns the list of its calls."""
    calls: list[Any] = []

    def record(*positional: Any, **named: Any) -> Any:
        calls.append((positional, named))
        if isinstance(result, BaseException):
            raise result
        return result

    replacement = ModuleType(module)
    setattr(replacement, function, record)
    monkeypatch.setitem(sys.modules, module, replacement)
    return calls


def test_every_command_is_there() -> None:
    assert tuple(subparsers()) == COMMANDS
    assert tuple(STAGE_COMMANDS) == tuple(stage.command for stage in STAGES)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    examples = capsys.readouterr().out.split("example:\n")[1].splitlines()
    assert examples
    for example in examples:
        words = shlex.split(example)
        assert words[:2] == ["reckg", command]
        assert build_parser().parse_args(words[1:]).command is not None


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"reckg (\d+\.\d+\.\d+|\(not installed\))\n", capsys.readouterr().out)


def test_an_error_is_one_line_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text("[train]\nepoch = 3\n")
    code = main(["run", str(tmp_path / "run.toml"), "--data", str(tmp_path), "--out", str(tmp_path / "run")])
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err == "reckg: error: 1 problem in run.toml: unknown key 'train.epoch' (did you mean 'epochs'?)\n"
    assert not (tmp_path / "run").exists()


def test_a_file_system_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text("")
    (tmp_path / "file").write_text("")
    code = main(["run", str(tmp_path / "run.toml"), "--data", str(tmp_path), "--out", str(tmp_path / "file" / "run")])
    assert code == 2
    assert re.fullmatch(r"reckg: error: .*file/run.*: Not a directory\n", capsys.readouterr().err)


def test_an_interrupted_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, "jobs.commands.demo", "demo", KeyboardInterrupt())
    assert main(["demo"]) == 130
    assert "goes on" in capsys.readouterr().err


def test_a_message_of_several_lines_becomes_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, "jobs.commands.demo", "demo", DataError("first\nsecond"))
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "reckg: error: first second\n"


def test_a_fault_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "jobs.commands.demo", "demo", ZeroDivisionError("a fault"))
    with pytest.raises(ZeroDivisionError):
        main(["demo"])


@pytest.mark.parametrize("name", FORMATS)
def test_import_passes_its_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, "jobs.commands.import_data", "import_data")
    line = f"import {name} src --out ds --name films --min-weight 3.5 --k-core 5 --duplicates last --overwrite"
    assert main(line.split()) == 0
    options = {"name": "films", "min_weight": 3.5, "k_core": 5, "duplicates": "last", "overwrite": True}
    assert calls == [((name, Path("src"), Path("ds")), options)]


def test_evaluate_passes_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        "reckg.pipeline.run.pipeline.run_pipeline", lambda *args, **more: calls.append((args[1:], more))
    )
    monkeypatch.setattr("jobs.commands.describe.summary", lambda *args: "")
    monkeypatch.setattr("jobs.commands.evaluate_log.evaluate_log", lambda *args, **more: calls.append((args[1:], more)))
    monkeypatch.setattr("jobs.commands.evaluate_log.log_summary", lambda *args: "")
    (tmp_path / "run.toml").write_text("")
    line = ["evaluate", str(tmp_path / "run.toml"), "--data", "ds", "--out", "out"]
    assert main(line) == 0
    stage = ((Path("ds"), Path("out")), {"only": "evaluate", "overwrite": False})
    assert calls == [stage]
    assert main([*line, "--log", "served"]) == 0
    options: dict[str, Any] = {"events": None, "window_s": 86_400, "match": "place", "clip": None}
    assert calls[1:] == [stage, ((Path("out"), Path("served")), options)]
    given = ["--log-events", "clicks.csv", "--log-window", "60", "--log-match", "list", "--log-clip", "50"]
    assert main([*line, "--log", "served", *given]) == 0
    options = {"events": Path("clicks.csv"), "window_s": 60, "match": "list", "clip": 50.0}
    assert calls[-1] == ((Path("out"), Path("served")), options)


def test_ablate_passes_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {
        "slices": {"all users": {}},
        "variants": {"true": {"test": {"all users": {"ndcg@10": {"mean": 0.25}}}, "training": [{"seconds": 2.0}]}},
        "verdict": ["The graph helps."],
        "skipped": {"text-off": "no text"},
        "items_without_vector": {"true": 0},
        "comparisons": [],
        "bootstrap_samples": 1000,
    }
    calls: list[Any] = []
    monkeypatch.setattr("jobs.ablation.ablate.ablate", lambda *args, **more: calls.append((args, more)) or report)
    (tmp_path / "run.toml").write_text("[train]\nepochs = 3\n")
    line = ["ablate", str(tmp_path / "run.toml"), "--data", "ds", "--out", "out", "--seeds", "4,5", "--only", "graph"]
    assert main(line) == 0
    (((config, *paths), more),) = calls
    assert config.train.epochs == 3 and paths == [Path("ds"), Path("out")]
    assert more == {"seeds": (4, 5), "only": "graph", "overwrite": False}
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["test", "NDCG@10", "all", "users"] and printed[2].split() == ["true", "0.2500"]
    assert printed[4:] == [
        "verdict: The graph helps.",
        "Left out: text-off: no text.",
        "report: out/ablation.md",
        "seconds of training: 2",
    ]
    assert main([*line[:-4], "--seeds", "one"]) == 2
    assert "--seeds takes whole numbers" in capsys.readouterr().err


def test_recommend_passes_its_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = stand_in(monkeypatch, "jobs.commands.recommend", "recommend_all", {"users": 3, "unknown_users": 0})
    given = ["--users", "ids.txt", "--new-items", "items.csv", "--k", "7"]
    assert main(["recommend", "bundle", "--out", "recs.parquet", *given]) == 0
    options = {"users": Path("ids.txt"), "new_items": Path("items.csv"), "k": 7, "rerank": True, "overwrite": False}
    assert calls == [((Path("bundle"), Path("recs.parquet")), options)]
    assert capsys.readouterr().out == "users 3, unknown users 0\n"
    assert main(["recommend", "bundle", "--out", "recs.parquet", "--no-rerank"]) == 0
    assert calls[1][1]["rerank"] is False


def test_serve_passes_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[ServerSettings] = []
    monkeypatch.setattr("serving.supervisor.supervisor.serve", calls.append)
    (tmp_path / "server.toml").write_text("port = 1\nworkers = 3\n[limits]\nmax_items = 7\n")
    monkeypatch.setenv("RECKG_WORKERS", "2")
    config = ["--config", str(tmp_path / "server.toml")]
    assert main(["serve", "bundle", "--port", "0", "--grace", "2", "--threads", "5", *config]) == 0
    assert main(["serve", "bundle", "--host", "0.0.0.0", "--insecure"]) == 0
    assert calls[0].bundle == Path("bundle") and calls[0].host == "127.0.0.1"
    assert (calls[0].port, calls[0].grace_s, calls[0].threads, calls[0].workers) == (0, 2.0, 5, 2)
    assert calls[0].limits.max_items == 7
    assert calls[1].insecure
    assert main(["serve", "bundle", "--host", "0.0.0.0"]) == 2
    assert "'0.0.0.0' is reached from beyond this machine" in capsys.readouterr().err
    assert main(["serve"]) == 2
    assert "bundle: Field required" in capsys.readouterr().err
    assert len(calls) == 2


def test_publish_says_what_it_did(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = stand_in(monkeypatch, "jobs.commands.publish", "publish", {"version": "v3", "removed": ["v1", "v2"]})
    assert main(["publish", "build/run", "build/store", "--keep", "1"]) == 0
    assert calls == [((Path("build/run"), Path("build/store"), 1), {})]
    assert capsys.readouterr().out == "build/store: the latest version is v3\nremoved: v1, v2\n"


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    stand_in(monkeypatch, "jobs.commands.demo", "demo")
    assert main(["demo"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == expected


@pytest.mark.parametrize("value", ["0", "-1", "ten"])
def test_k_must_be_positive(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["recommend", "bundle", "--out", "recs.parquet", "--k", value])
    assert stop.value.code == 2
    assert "--k" in capsys.readouterr().err


def run_folder(folder: Path) -> Path:
    """A run folder as the pipeline leaves it, with a small report."""
    metric = {"mean": 0.25, "low": 0.2, "high": 0.3}
    better = {"mean": 0.35, "low": 0.3, "high": 0.4}
    systems = {
        "ease": {"label": "EASE", "test": {"ndcg@10": metric, "recall@20": metric, "coverage@10": metric}},
        "reckg": {"label": "reckg", "test": {"ndcg@10": better, "recall@20": better, "coverage@10": metric}},
    }
    record = {"key": "k", "parts": {}, "outputs": {}, "peak_memory_mb": 900.0, "counts": {}}
    stages = {
        "build_graph": record | {"status": "done", "seconds": 1.5, "finished": "2026-01-01T00:00:00+00:00"},
        "train": record | {"status": "started", "seconds": 0.0, "finished": ""},
    }
    (folder / "report").mkdir(parents=True)
    (folder / "report/report.json").write_text(json.dumps({"systems": systems, "verdict": "reckg beats EASE."}))
    state = {"format": 1, "data": "/data", "stages": stages, "known_files": {}}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_describe_a_run(tmp_path: Path) -> None:
    text = describe(run_folder(tmp_path / "run"))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "build-graph done 2026-01-01T00:00:00+00:00 in 1.5 s" in lines
    assert "train was interrupted, or is at work now" in lines
    assert "embed has not run" in lines
    assert lines.index("reckg 0.3500 [0.3000, 0.4000] 0.3500 [0.3000, 0.4000]") + 1 == lines.index(
        "EASE 0.2500 [0.2000, 0.3000] 0.2500 [0.2000, 0.3000]"
    )
    assert "verdict: reckg beats EASE." in lines
    assert "NDCG@10" in text and "Recall@20" in text


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"systems": {}}', '{"systems": {"ease": {}}, "verdict": ""}'])
def test_describe_a_damaged_report(tmp_path: Path, content: str) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "report/report.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"report\.json"):
        describe(folder)


def test_describe_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no dataset folder, no run folder and no bundle"):
        describe(tmp_path)
    with pytest.raises(DataError):
        describe(tmp_path / "nothing")


def test_describe_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\nann,b1,1700000000\nann,b2,1700000100\n")
    (tmp_path / "items.csv").write_text("item_id,title,genre\nb1,Dune,sf\nb2,Emma,novel\n")
    text = describe(tmp_path)
    assert "interactions: 2 rows" in text
    assert "items: 2 rows; columns item_id, title, genre" in text
    assert "text title" in text
    assert "note: " in text  # there is no dataset.toml, which the reader states

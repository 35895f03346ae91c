"""Whole runs: the log, the best epoch, and a killed run that goes on as if it had not been killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reckg.errors import ArtifactError
from reckg.model.embeddings import Embeddings
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.training import batches as sampling
from reckg.model.training import checkpoint
from reckg.model.training import train as module
from reckg.model.training.train import (
    Progress,
    collect_trained_state,
    load_trained_state,
    train,
)
from tests import toy
from tests.small_model import CPU, histories, joint_model, objective, schedule, text_encoder, toy_graph


class Killed(Exception):
    """Stands for the end of the process."""


def fixed_score(found: Embeddings) -> float:
    """A score that depends on the embeddings alone: how near the users are to what they took."""
    return float((found.users[toy.USER_IDX] * found.items[toy.ITEM_IDX]).sum(1).mean())


SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "encoder": None,
    "policy": "frozen",
    "ordered": False,
    "loss": "softmax",
    "attention": "transr",
    "fanout": 0,
}


def run(
    folder: Path,
    *,
    key: str = "k",
    validate: Callable[[Embeddings], float] = fixed_score,
    progress: Any = None,
    **changed: Any,
) -> tuple[JointModel, Progress]:
    """Trains from the seed on, or from the checkpoint in the folder, with every random part switched on.

    Args:
        changed: values in place of SETTINGS, and arguments of the schedule.
    """
    given = SETTINGS | changed
    planned = {name: value for name, value in changed.items() if name not in SETTINGS}
    graph = toy_graph()
    torch.manual_seed(3)
    text = None
    if given["encoder"] is not None:
        text = text_encoder(given["encoder"], folder.parent / "cache", given["policy"])
    model = joint_model(graph, text, seed=3, attention=given["attention"], dropout=0.2, id_dropout=0.3)
    tensors = GraphTensors(graph, CPU)
    known = histories(tensors, ordered=given["ordered"], half_life=1.0)
    drawn = torch.Generator().manual_seed(7)
    made = objective(
        tensors,
        histories=known,
        loss=given["loss"],
        kg_loss="transr",
        text_weight=0.1 if text else 0.0,
        generator=drawn,
        sampler=NeighbourSampler(tensors, given["fanout"], drawn) if given["fanout"] else None,
    )
    plan = schedule(epochs=given["epochs"], batch_size=3, **planned)
    return model, train(model, tensors, made, plan, folder=folder, validate=validate, key=key, progress=progress)


def state(model: JointModel) -> dict[str, torch.Tensor]:
    extra = {} if model.text is None else {"vectors": model.text.vectors}
    return {name: tensor.detach().clone() for name, tensor in (collect_trained_state(model) | extra).items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = ("train_seconds", "examples_per_second")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def killed_in_epoch(epoch: int, score: Callable[[Embeddings], float] = fixed_score) -> Callable[[Embeddings], float]:
    """A validation at which the process dies, the epoch-th time."""
    calls = 0

    def validate(found: Embeddings) -> float:
        nonlocal calls
        calls += 1
        if calls == epoch:
            raise Killed
        return score(found)

    return validate


def assert_resumes_exactly(folder: Path, killed_in: int, checks: int = 1, **settings: Any) -> None:
    """Four epochs in one go equal a run that is killed in an epoch and started again."""
    whole, whole_progress = run(folder / "whole", checkpoint_every=checks, **settings)
    with pytest.raises(Killed):
        run(folder / "killed", validate=killed_in_epoch(killed_in), checkpoint_every=checks, **settings)
    torch.manual_seed(99)  # the state of the new process is another one
    resumed, resumed_progress = run(folder / "killed", checkpoint_every=checks, **settings)
    assert_same(state(whole), state(resumed))
    best = (checkpoint.load_tensors(folder / name / "model.safetensors")[0] for name in ("whole", "killed"))
    assert_same(*best)
    assert whole_progress.epoch == resumed_progress.epoch == 4 and whole_progress.step == resumed_progress.step
    for name in ("best_score", "best_epoch", "since_best"):
        assert getattr(whole_progress, name) == getattr(resumed_progress, name)
    assert without_times(log(folder / "whole")) == without_times(log(folder / "killed"))
    assert [row["epoch"] for row in log(folder / "killed")] == [1, 2, 3, 4]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax", "bpr"])
def test_a_run_killed_after_two_epochs_resumes_exactly(tmp_path: Path, loss: str, ordered: bool) -> None:
    assert_resumes_exactly(tmp_path, 3, loss=loss, ordered=ordered)


@pytest.mark.parametrize(("loss", "fanout"), [("softmax", 0), ("sampled-softmax", 1), ("bpr", 1)])
def test_a_run_with_groups_of_targets_resumes_exactly(
    tmp_path: Path, loss: str, fanout: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "GROUPS", 1)
    assert_resumes_exactly(tmp_path, 3, loss=loss, fanout=fanout, targets=3)


def test_a_run_on_sampled_neighbourhoods_resumes_exactly(tmp_path: Path) -> None:
    assert_resumes_exactly(tmp_path, 3, loss="sampled-softmax", fanout=1, ordered=True)


@pytest.mark.parametrize("policy", ["frozen", "top-k", "lora", "full"])
def test_with_text_too(encoder: Path, tmp_path: Path, policy: str) -> None:
    assert_resumes_exactly(tmp_path, 3, encoder=encoder, policy=policy)


@pytest.mark.parametrize("ordered", [False, True])
def test_between_refreshes_of_the_attention_too(tmp_path: Path, ordered: bool) -> None:
    assert_resumes_exactly(tmp_path, 3, attention_every=3, ordered=ordered)


@pytest.mark.parametrize("ordered", [False, True])
def test_with_learned_relation_weights_too(tmp_path: Path, ordered: bool) -> None:
    assert_resumes_exactly(tmp_path, 3, attention="relation", ordered=ordered)


def test_what_is_validated_has_the_relation_weights_that_are_kept(tmp_path: Path) -> None:
    """Not those of the last step: the averages, as of all parameters."""
    scores: list[float] = []

    def validate(found: Embeddings) -> float:
        scores.append(fixed_score(found))
        return scores[-1]

    model, progress = run(tmp_path, attention="relation", validate=validate, average_decay=0.5)
    kept, _ = checkpoint.load_tensors(tmp_path / "model.safetensors")
    load_trained_state(model, kept)
    assert kept["relation_logit"].abs().max() > 0.01
    graph = toy_graph()
    assert fixed_score(model.embeddings(GraphTensors(graph, CPU))) == scores[progress.best_epoch - 1]


def test_between_refreshes_of_the_text_too(encoder: Path, tmp_path: Path) -> None:
    assert_resumes_exactly(tmp_path, 4, encoder=encoder, policy="top-k", refresh_every=2)


def test_an_epoch_that_was_logged_but_not_saved_is_in_the_log_once(tmp_path: Path) -> None:
    """Checkpoints every two epochs, killed in the fourth: the third is done again."""
    assert_resumes_exactly(tmp_path, 4, checks=2)


def test_the_earlier_rows_of_the_log_are_on_disk_all_the_time(tmp_path: Path) -> None:
    """A run that is killed in its first epoch after a resume must not take the log of the epochs before along."""
    with pytest.raises(Killed):
        run(tmp_path / "run", validate=killed_in_epoch(3))
    seen: list[list[int]] = []

    def validate(found: Embeddings) -> float:
        seen.append([row["epoch"] for row in log(tmp_path / "run")])
        return fixed_score(found)

    run(tmp_path / "run", validate=validate)
    assert seen == [[1, 2], [1, 2, 3]]


def test_a_kill_between_the_log_and_the_checkpoint_leaves_each_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = module._save, 0

    def killed(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        save(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "_save", killed)
        run(tmp_path / "killed")
    run(tmp_path / "killed")
    assert [row["epoch"] for row in log(tmp_path / "killed")] == [1, 2, 3, 4]


def test_two_epochs_and_then_four_equal_four(tmp_path: Path) -> None:
    """More epochs than before, in the folder of a run that ended."""
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "parts", epochs=2)
    parts, progress = run(tmp_path / "parts")
    assert progress.epoch == 4
    assert_same(state(whole), state(parts))
    assert without_times(log(tmp_path / "whole")) == without_times(log(tmp_path / "parts"))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "run")
    second, progress = run(tmp_path / "run", validate=killed_in_epoch(1))
    assert progress.epoch == 4
    assert_same(state(first), state(second))


def test_a_checkpoint_of_another_key_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=2, loss="bpr", key="other")
    fresh, _ = run(tmp_path / "fresh", epochs=1)
    again, progress = run(tmp_path / "run", epochs=1)
    assert progress.epoch == 1
    assert_same(state(fresh), state(again))
    assert [row["epoch"] for row in log(tmp_path / "run")] == [1]
    assert "softmax" in log(tmp_path / "run")[0]["loss"]


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="train again"):
        run(tmp_path / "run")


def test_a_half_written_checkpoint_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = checkpoint.save_file

    def torn(tensors: Any, path: Path, metadata: Any) -> None:
        write(tensors, path, metadata=metadata)
        if "checkpoint" in path.name and json.loads(metadata["json"])["progress"]["epoch"] == 3:
            path.write_bytes(path.read_bytes()[:50])
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save_file", torn)
        run(tmp_path / "run")
    _, metadata = checkpoint.load_tensors(tmp_path / "run" / "checkpoint.safetensors")
    assert metadata["progress"]["epoch"] == 2
    resumed, _ = run(tmp_path / "run")
    whole, _ = run(tmp_path / "whole")
    assert_same(state(whole), state(resumed))


def test_training_stops_when_validation_does_not_improve_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.1, 0.9])
    kept: list[dict[str, torch.Tensor]] = []
    graph = toy_graph()
    model, tensors = joint_model(graph), GraphTensors(graph, CPU)

    def validate(found: Embeddings) -> float:
        kept.append(state(model))
        return next(scores)

    plan = schedule(epochs=20, patience=3)
    progress = train(model, tensors, objective(tensors), plan, folder=tmp_path, validate=validate, key="k")
    assert (progress.epoch, progress.best_epoch, progress.best_score, progress.since_best) == (5, 2, 0.3, 3)
    best, _ = checkpoint.load_tensors(tmp_path / "model.safetensors")
    assert_same(best, kept[1])
    assert not torch.equal(kept[1]["embedding"], kept[4]["embedding"])
    assert [row["valid_ndcg@10"] for row in log(tmp_path)] == [0.1, 0.3, 0.2, 0.3, 0.1]


def test_validation_runs_every_so_many_epochs_and_at_the_last(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=5, validate_every=2)
    assert ["valid_ndcg@10" in row for row in log(tmp_path / "run")] == [False, True, False, True, True]


def test_the_log_has_each_loss_part_averaged_over_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    step = module.train_step

    def recording(
        model: Any, tensors: Any, made: Any, optimizer: Any, batch: Any, clip_norm: float
    ) -> dict[str, float]:
        parts = step(model, tensors, made, optimizer, batch, clip_norm)
        seen.append((len(batch.user), parts))
        return parts

    monkeypatch.setattr(module, "train_step", recording)
    run(tmp_path / "run", epochs=1)
    (row,) = log(tmp_path / "run")
    assert [n for n, _ in seen] == [3, 3, 2] and row["loss"].keys() == {"softmax", "kg_transr"}
    for name, value in row["loss"].items():
        assert value == pytest.approx(sum(n * parts[name] for n, parts in seen) / 8)
    assert row["train_seconds"] > 0
    assert row["examples_per_second"] == pytest.approx(8 / row["train_seconds"])


def test_the_bar_shows_loss_parts_and_speed(tmp_path: Path) -> None:
    shown: list[dict[str, Any]] = []
    closed: list[Any] = []

    class Bar:
        def __init__(self, total: int, **_: Any) -> None:
            self.total, self.n, self.open = total, 0, True

        def set_postfix(self, values: dict[str, Any], **_: Any) -> None:
            shown.append(values)

        def update(self, n: int) -> None:
            self.n += n

        def close(self) -> None:
            assert self.n == self.total == 8  # examples: the bar's own rate is the speed
            closed.append(self)

    with_bar, _ = run(tmp_path / "bar", epochs=1, progress=Bar)
    assert len(shown) == 3 and len(closed) == 1
    assert all(float(row["softmax"]) > 0 and float(row["kg_transr"]) > 0 for row in shown)
    without, _ = run(tmp_path / "none", epochs=1)
    assert_same(state(with_bar), state(without))


@pytest.mark.parametrize("policy", ["frozen", "top-k", "lora"])
def test_the_best_model_comes_back_from_its_file(encoder: Path, tmp_path: Path, policy: str) -> None:
    """What was validated is what a fresh model of the same configuration gives after loading."""
    seen: list[Embeddings] = []

    def validate(found: Embeddings) -> float:
        seen.append(found)
        return float(len(seen))

    settings: dict[str, Any] = {"encoder": encoder, "policy": policy, "attention": "uniform"}
    trained, _ = run(tmp_path / "run", epochs=2, validate=validate, **settings)
    fresh, _ = run(tmp_path / "fresh", epochs=0, **settings)
    assert fresh.text is not None and trained.text is not None
    best, _ = checkpoint.load_tensors(tmp_path / "run" / "model.safetensors")
    load_trained_state(fresh, best)
    found = fresh.embeddings(GraphTensors(toy_graph(), CPU))
    np.testing.assert_allclose(found.items, seen[-1].items, atol=1e-5)
    np.testing.assert_allclose(found.users, seen[-1].users, atol=1e-5)
    untrained = {name for name in best if name.startswith("text.")} - {
        f"text.{name}" for name in [*trained.text.list_trained_parameters(), "vectors"]
    }
    assert not untrained  # the file holds what training changed, not the encoder's frozen weights


def test_a_folder_that_does_not_exist_is_made_and_a_missing_file_is_named(tmp_path: Path) -> None:
    run(tmp_path / "deep" / "run", epochs=1)
    assert sorted(path.name for path in (tmp_path / "deep" / "run").iterdir()) == [
        "checkpoint.safetensors",
        "log.jsonl",
        "model.safetensors",
    ]
    shutil.rmtree(tmp_path / "deep")
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        checkpoint.load_tensors(tmp_path / "deep" / "run" / "model.safetensors")

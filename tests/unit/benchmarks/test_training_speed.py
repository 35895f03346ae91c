"""The training benchmark: its arithmetic, that taking turns changes no result, and that it runs to its JSON line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import reckg.pipeline.stages.train
from reckg.model.sparse.dgl_compat import dgl
from reckg.pipeline.run.folder import read_embeddings, read_prepared
from reckg.pipeline.stages.embed import embed
from tests.benchmarks import training_speed
from tests.benchmarks.kgat_loop import RECBOLE
from tests.benchmarks.training_speed import Epoch, Rival, Work, changed, compare, rival, to_quality, train_reckg
from tests.benchmarks.training_speed import validation as validation_of


def epochs(*scores: float, seconds: float = 1.0) -> list[Epoch]:
    return [Epoch(seconds, 2 * seconds, score) for score in scores]


def test_the_ratio_is_within_rounds_and_stops_with_the_shorter_side() -> None:
    ours = [Epoch(1, 10, 0), Epoch(2, 10, 0), Epoch(4, 10, 0)]
    theirs = [Epoch(3, 30, 0), Epoch(4, 20, 0), Epoch(20, 50, 0), Epoch(1000, 1, 0)]
    assert compare("speedup", ours, theirs) == {"speedup": 3, "speedup_cpu": 3}


def test_time_to_quality_counts_up_to_their_best_epoch_and_our_first_as_good() -> None:
    figures = to_quality(epochs(0.1, 0.25, 0.3, seconds=0.5), epochs(0.05, 0.2, 0.1, 0.2))
    assert figures["kgat_ndcg@10"] == 0.2 and figures["kgat_epochs_to_quality"] == 2
    assert (figures["kgat_seconds_to_quality"], figures["kgat_cpu_seconds_to_quality"]) == (2, 4)
    assert figures["reckg_epochs_to_quality"] == 2 and figures["reckg_seconds_to_quality"] == 1
    assert figures["time_to_quality_speedup"] == figures["time_to_quality_speedup_cpu"] == 2


def test_a_quality_that_is_never_reached_is_no_speedup() -> None:
    figures = to_quality(epochs(0.1, 0.2), epochs(0.1, 0.3))
    assert figures["time_to_quality_speedup"] == figures["time_to_quality_speedup_cpu"] == 0
    assert figures["reckg_ndcg@10"] == 0.2 and "reckg_epochs_to_quality" not in figures


@pytest.mark.parametrize(
    ("limit", "scores", "trained"),
    [
        (3, [0.1] * 9, 3),
        (99, [0.1, 0.3, *[0.2] * 20], 12),  # ten epochs without a better one
        (99, [0.1, 0.3, *[0.2] * 9, 0.4, *[0.3] * 20], 22),  # the twelfth is better,
    ],
)
def test_the_rival_stops_by_its_validation_or_its_limit(limit: int, scores: list[float], trained: int) -> None:
    class Loop:
        model = type("Model", (), {"vectors": lambda self: (0, 0)})()

        def epoch(self) -> dict[str, float]:
            return {"bpr": 0.5}

    left = iter(scores)
    stopping = Rival("it", Loop(), lambda users, items: next(left), limit)  # type: ignore[arg-type]
    for _ in range(len(scores)):
        stopping.step()
    assert stopping.finished and len(stopping.epochs) == len(stopping.parts) == trained


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    changes = {"run": {"threads": 1}, "text": {"encoder": "none"}, "train": {"epochs": 3, "batch_size": 256}}
    return training_speed.prepare(tmp_path_factory.mktemp("work"), small=True, changes=changes)


def test_turns_change_no_result_and_validation_is_the_same(work: Work) -> None:
    """What reckg learns beside the rival is what the stage learns alone, to the bit."""
    reckg.pipeline.stages.train.train(work.config, work.data, work.run)
    embed(work.config, work.data, work.run)
    scores = json.loads((work.run / "model/train.json").read_text())
    score = scores["valid_ndcg@10"]
    assert validation_of(read_prepared(work.run))(*read_embeddings(work.run, "train")) == pytest.approx(score, abs=1e-5)
    alone = (work.run / "model/model.safetensors").read_bytes()

    kgat = rival(work, "recbole", RECBOLE, limit=9)
    beside = train_reckg(work, kgat.step)
    assert (work.run / "model/model.safetensors").read_bytes() == alone
    assert max(epoch.score for epoch in beside) == pytest.approx(scores["valid_ndcg@10_graph_alone"], abs=1e-5)
    assert len(beside) == len(kgat.epochs) == 3
    assert all(epoch.seconds > 0 and epoch.cpu_seconds > 0 for epoch in [*beside, *kgat.epochs])


def test_a_setting_that_reckg_does_not_know_is_an_error(work: Work) -> None:
    from reckg.errors import ConfigError

    assert changed(work.config, training_speed.LIKE_KGAT).model.aggregator == "bi-interaction"
    with pytest.raises(ConfigError, match="aggregater"):
        changed(work.config, {"model": {"aggregater": "sum"}})


def test_the_small_benchmark_ends_with_its_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = training_speed.main(["--small", "--threads", "1", "--out", str(tmp_path / "figures.json")])
    line = capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / "figures.json").read_text() == line + "\n" == json.dumps(result) + "\n"
    figures, settings = result["figures"], result["settings"]
    for name in ("epoch_speedup", "epoch_speedup_cpu", "epoch_speedup_authors", "epoch_speedup_like_kgat"):
        assert figures[name] > 0, name
    assert figures["epoch_speedup_quartile_1"] <= figures["epoch_speedup"] <= figures["epoch_speedup_quartile_3"]
    assert {"time_to_quality_speedup", "kgat_ndcg@10", "reckg_ndcg@10", "reckg_epoch_seconds"} < figures.keys()
    assert settings["data"] == "bookshop" and settings["kgat_threads"] == result["machine"]["torch_threads"] == 1
    assert result["benchmark"] == "training_speed"


def test_the_rival_has_its_threads_in_its_turn_and_gives_ours_back() -> None:
    seen: list[tuple[int, int]] = []

    class Loop:
        model = SimpleNamespace(vectors=lambda: (np.zeros((1, 2)), np.zeros((1, 2))))

        def epoch(self) -> dict[str, float]:
            seen.append((torch.get_num_threads(), dgl.utils.get_num_threads()))
            return {}

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    kgat = Rival("any", Loop(), lambda users, items: 0.5, 1)  # type: ignore[arg-type]
    torch.set_num_threads(1)
    kgat.step()
    assert (seen, torch.get_num_threads(), dgl.utils.get_num_threads()) == ([(2, 2)], 1, 1)
    torch.set_num_threads(before)

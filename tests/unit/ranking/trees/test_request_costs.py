"""The costs of a request: measured for every source, and the rank stage that keeps within a budget by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reckg.config.run_config import parse_config
from reckg.pipeline.ranking import latency
from reckg.ranking.sources.candidates import available_sources
from reckg.ranking.sources.depths import RequestCosts
from reckg.ranking.trees.request_costs import measure_costs
from tests.unit.ranking.trees.test_labels import label_set

DEAR = RequestCosts(1.0, {"vectors": 1.0, "text": 50.0}, 0.01)


def test_every_source_is_measured_and_figures_are_rounded() -> None:
    labels = label_set(3, np.arange(29))
    costs = measure_costs(labels, 30, trees=5, leaves=4, seed=0)
    assert set(costs.sources) == set(available_sources(labels.tables))
    told = [costs.shared, costs.candidate, *costs.sources.values()]
    assert all(value == float(f"{value:.2g}") and value >= 0 for value in told)
    assert costs.shared > 0 and min(costs.sources.values()) > 0


def test_without_label_users_nothing_is_measured() -> None:
    labels = replace(label_set(), users=np.zeros(0, dtype=np.int64), relevant=(np.zeros(1, int), np.zeros(0, int)))
    costs = measure_costs(labels, 30, trees=5, leaves=4, seed=0)
    assert costs.shared == costs.candidate == 0 and not any(costs.sources.values())


def test_the_stage_leaves_out_what_is_too_dear_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = label_set(3, np.arange(29))
    every = DEAR.sources | {name: 0.1 for name in available_sources(labels.tables) if name not in DEAR.sources}
    monkeypatch.setattr(latency, "measure_costs", lambda *_: replace(DEAR, sources=every))

    def chosen(latency_ms: float):  # type: ignore[no-untyped-def]
        rank = {"candidates": 40, "latency_ms": latency_ms}
        return latency.choose_candidates(parse_config({"rank": rank}, "test"), labels)

    free, told = chosen(0)
    assert "text" in free.depths and told == {"budget_ms": None} and not capsys.readouterr().err
    choice, told = chosen(20)
    assert "text" not in choice.depths and told["fits"] and told["expected_ms"] < 20
    assert told["cuts"] == list(choice.cuts) and "without text" in [cut["cut"] for cut in choice.cuts]
    assert told["costs_ms"] == {"shared": 1.0, "sources": every, "candidate": 0.01}
    said = capsys.readouterr().err
    assert "rank.latency_ms 20: " in said and "without text" in said and "does not fit" not in said
    choice, told = chosen(0.5)
    assert not told["fits"] and "does not fit even so: set rank.latency_ms or index.kind" in capsys.readouterr().err
    assert set(choice.depths) == {"vectors"}

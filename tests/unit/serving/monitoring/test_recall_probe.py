"""Whether the index still finds the best items."""

from __future__ import annotations

from dataclasses import replace

from reckg.retrieval.index import build_index
from serving.monitoring.recall_probe import RecallProbe, probe
from tests.small_bundle import small_bundle, unit_vectors
from tests.waiting import wait_until


def test_an_exact_index_finds_all() -> None:
    bundle = small_bundle()
    assert [probe(bundle, user) for user in range(5)] == [1.0] * 5


def test_an_index_of_other_vectors_is_found_out() -> None:
    bundle = small_bundle(n_items=400)
    other = build_index(unit_vectors(400, 8, seed=99), kind="ivf", ivf_lists=20, nprobe=1)
    assert probe(replace(bundle, index=other), 0) < 0.9


def test_the_mean_is_told_and_starts_anew_with_a_bundle() -> None:
    reported: list[float] = []
    serving = [small_bundle()]
    watcher = RecallProbe(lambda: serving[0], 0.001, reported.append)
    wait_until(lambda: len(reported) > 3)
    assert set(reported) == {1.0}
    other = build_index(unit_vectors(60, 8, seed=99), kind="ivf", ivf_lists=20, nprobe=1)
    serving[0] = replace(serving[0], index=other, version="test-2")
    wait_until(lambda: reported[-1] < 0.9)
    watcher.close()

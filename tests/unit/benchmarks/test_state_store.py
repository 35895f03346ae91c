"""The benchmark of the state stores runs at a small size."""

from __future__ import annotations

from tests.benchmarks import state_store


def test_the_small_size_runs_and_every_store_has_every_figure() -> None:
    figures = state_store.main(["--small"])["figures"]
    for store in ("sqlite", "one_connection", "redis"):
        for name in ("busy_read_us", "read_0_us", "read_10_us", "read_200_us", "record_1_ms", "record_1000_ms"):
            assert figures[f"{name}_{store}"] > 0
    assert figures["bytes_per_event_sqlite"] > 50 < figures["bytes_per_event_redis"]

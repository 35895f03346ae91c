"""Batch recommendations of a million users over a hundred thousand items to one Parquet file: users a second, memory.

The bundle is made of arrays (large_bundle.py), its ranker has 100 trees. Making the bundle and each run are processes
of their own. users_per_s (in the order of retrieval) and users_per_s_reranked are of
--users and --reranked evenly spaced users, without the loading of the bundle, whose seconds stand beside them.
peak_rss_gb is the most memory that one of the two runs had.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

import jobs.commands.recommend
from reckg.bundle.bundle import Bundle
from tests.benchmarks.large_bundle import CANDIDATES, DIM, write_bundle
from tests.benchmarks.measure import Result, beside, finish, in_a_process, parser, peak_gb

K, TREES = 10, 100


def run(bundle: Path, out: Path, asked: Path, rerank: bool) -> None:
    """Leaves seconds of loading, seconds of the rest, CPU seconds and GiB beside ``out``."""
    loading = 0.0
    load = jobs.commands.recommend.open_bundle

    def timed(path: Path) -> Bundle:
        nonlocal loading
        began = time.perf_counter()
        loaded = load(path)
        loading = time.perf_counter() - began
        return loaded

    jobs.commands.recommend.open_bundle = timed
    try:
        counts = jobs.commands.recommend.recommend_all(bundle, out, k=K, users=asked, rerank=rerank, overwrite=True)
    finally:
        jobs.commands.recommend.open_bundle = load
    measured = [loading, counts["seconds"] - loading, time.process_time(), peak_gb(), counts["rows"]]
    np.save(out.with_suffix(".npy"), np.array(measured))


def main(arguments: list[str] | None = None) -> Result:
    words = parser("Batch recommendations with and without reranking.")
    words.add_argument("--users", type=int, default=1_000_000, help="users in the order of retrieval")
    words.add_argument("--reranked", type=int, default=20_000, help="users that are reranked")
    words.add_argument("--items", type=int, default=100_000, help="of the catalogue")
    words.add_argument("--folder", type=Path, help="keeps the bundle there, and uses what is there")
    given = words.parse_args(arguments)
    if given.beside:
        return beside("batch", given, arguments)
    n_users, n_items = (2000, 500) if given.small else (1_000_000, given.items)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "bundle").is_dir():
            in_a_process(write_bundle, folder / "bundle", users=n_users, items=n_items, trees=TREES, seed=given.seed)
        for name, wanted in (("", given.users), ("_reranked", given.reranked)):
            number, asked = min(wanted, n_users), folder / f"users{name}.parquet"
            every = pl.read_parquet(folder / "bundle" / "users.parquet")
            every[np.linspace(0, n_users - 1, number).astype(np.int64)].write_parquet(asked)
            out = folder / f"recommendations{name}.parquet"
            in_a_process(run, folder / "bundle", out, asked, bool(name))
            loading, seconds, cpu, peak, rows = np.load(out.with_suffix(".npy")).tolist()
            assert rows == number * K == pl.scan_parquet(out).select(pl.len()).collect().item()
            figures |= {f"users_per_s{name}": number / seconds, f"users{name}": number, f"seconds{name}": seconds}
            figures |= {f"loading_s{name}": loading, f"cpu_seconds{name}": cpu, f"peak_rss_gb{name}": peak}
            figures[f"file_gb{name}"] = out.stat().st_size / 2**30
    figures["peak_rss_gb"] = max(figures["peak_rss_gb"], figures["peak_rss_gb_reranked"])
    for name, value in figures.items():
        print(f"  {name:24} {value:12.4g}")
    settings = {"users": n_users, "items": n_items, "dim": DIM, "k": K, "candidates": CANDIDATES, "trees": TREES}
    packages = ["faiss-cpu", "lightgbm", "numpy", "polars"]
    return finish(
        "batch", figures, {**settings, "small": given.small}, packages=packages, seed=given.seed, out=given.out
    )


if __name__ == "__main__":
    main()

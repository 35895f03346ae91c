"""The cost of each kind of index: build time, memory, and recall@200 against the latency of a query.

Items and queries are normal vectors whose variance falls from dimension to dimension as 1 / rank, as a spectrum does,
brought to unit length. Each kind is built with reckg's defaults, its effort raised until it reaches the recall target,
and then one query is searched at a time, on one thread, as a server does. ``--filters`` times searches with a filter
instead, over the allowed items exactly and through FAISS's selector, for several shares of allowed items: from that
comes SELECTIVE of reckg.retrieval.index.
<kind>_ms, _recall, _mb, _build_s: the median milliseconds of a query, recall, FAISS's file, seconds of the build;
_batch_ms: milliseconds a query if ``--batch`` queries are searched at once, on the threads of the build.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from reckg.errors import ArtifactError
from reckg.retrieval import index as index_module
from reckg.retrieval.choose_index import default_pq_bytes, meet_target
from reckg.retrieval.faiss_index import CLASSES, import_faiss
from reckg.retrieval.index import ItemIndex, build_index
from tests.benchmarks.measure import Result, beside, finish, interleaved, medians, parser

SHARES = (0.01, 0.03, 0.1, 0.2, 0.5)


def vectors(n: int, dim: int, seed: int) -> np.ndarray:
    """(n, dim) float32 unit vectors with a falling spectrum."""
    found = np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)
    found /= np.sqrt(np.arange(1, dim + 1, dtype=np.float32))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def milliseconds(index: ItemIndex, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> float:
    """Returns the median time of a query."""
    index.search(queries[:1], k, allowed=allowed)
    seconds = []
    for query in queries:
        began = time.perf_counter()
        index.search(query[None], k, allowed=allowed)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)) * 1000


def batch_milliseconds(index: ItemIndex, queries: np.ndarray, k: int, rounds: int = 3) -> float:
    """The median time of a query in one search of all."""
    seconds = interleaved({"batch": lambda: index.search(queries, k)}, rounds)
    return medians(seconds)["batch"] * 1000 / len(queries)


def measured(args: argparse.Namespace, items: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """The figures of every kind that is asked for."""
    figures: dict[str, float] = {}
    for kind, compression in CLASSES:
        name = kind if compression == "none" else f"{kind}_{compression}"
        if (args.kinds and name not in args.kinds) or (args.device == "gpu" and kind == "hnsw"):
            continue
        import_faiss().omp_set_num_threads(args.threads)
        began = time.perf_counter()
        pq_bytes = default_pq_bytes(args.dim)
        index = build_index(items, kind=kind, compression=compression, pq_bytes=pq_bytes, device=args.device)
        built = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as folder:
            index.save(Path(folder))
            size = (Path(folder) / "index.faiss").stat().st_size / 1e6
        try:
            index = meet_target(index, queries, args.k, args.target, {})
        except ArtifactError as error:
            print(f"{name}: {error}", flush=True)
            continue
        many = vectors(args.batch, args.dim, args.seed + 2)
        in_batch = {"batch_ms": batch_milliseconds(index, many, args.k)} if args.batch and not args.filters else {}
        import_faiss().omp_set_num_threads(1)
        found = {"recall": index.recall["recall"], "mb": size, "build_s": built, **in_batch}
        if args.filters:
            found |= filtered(index, queries[:50], args.k, args.seed)
        else:
            found["ms"] = milliseconds(index, queries[:200], args.k)
        print(f"{name:9} {found} {index.settings}", flush=True)
        figures |= {f"{name}_{key}": value for key, value in found.items()}
    return figures


def filtered(index: ItemIndex, queries: np.ndarray, k: int, seed: int) -> dict[str, float]:
    """Milliseconds of a query by the share of allowed items, exactly and through the selector."""
    found = {}
    for share in SHARES:
        allowed = np.random.default_rng(seed).random(index.n_items) < share
        ways = {"exact": 1.0, "selector": 0.0}

        def search(limit: float, allowed: np.ndarray = allowed) -> None:
            index_module.SELECTIVE = limit
            for query in queries[:20]:
                index.search(query[None], k, allowed=allowed)

        seconds = interleaved({way: (lambda limit=limit: search(limit)) for way, limit in ways.items()}, 3)
        found |= {f"{share}_{way}_ms": value * 1000 / 20 for way, value in medians(seconds).items()}
    return found


def main(words: list[str] | None = None) -> Result:
    options = parser(__doc__ or "")
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--dim", type=int, default=64)
    options.add_argument("--k", type=int, default=200)
    options.add_argument("--target", type=float, default=0.95)
    options.add_argument("--queries", type=int, default=500)
    options.add_argument("--threads", type=int, default=2, help="of the build")
    options.add_argument("--kinds", nargs="*", help="as flat, ivf_pq; none: all")
    options.add_argument("--batch", type=int, default=0, help="queries searched at once; 0: none")
    options.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    options.add_argument("--filters", action="store_true")
    args = options.parse_args(words)
    if args.beside:
        return beside("retrieval", args, words)
    if args.small:
        args.items, args.queries, args.k, args.dim = 2_000, 20, 10, 16
    items, queries = vectors(args.items, args.dim, args.seed), vectors(args.queries, args.dim, args.seed + 1)
    figures = measured(args, items, queries)
    faiss = "faiss-gpu" if args.device == "gpu" else "faiss-cpu"
    names = ("items", "dim", "k", "target", "queries", "threads", "kinds", "filters", "batch", "device")
    settings = {name: getattr(args, name) for name in names}
    return finish("retrieval", figures, settings, packages=("numpy", faiss), seed=args.seed, out=args.out)


if __name__ == "__main__":
    main()

"""The best 100 of 100,000 items for each of 100,000 users at 64 dimensions: exact search, implicit and FAISS.

The whole ranking is run by reckg alone, before a rival is imported: peak_rss_gb is the most memory (GiB) the process
had by then. product_share: the matrix products' share of the threads' processor time in that run; a share of
wall clock would count other work of the machine. The rivals rank ``--rival-users`` of the users,
and so does reckg, in interleaved rounds with the same threads: speedup_vs_implicit (`implicit.cpu.topk.topk`) and
speedup_vs_faiss (`faiss.IndexFlatIP.search`) are the medians of the ratios of their times within a round. The lists
must agree: only where two scores are closer than the product's rounding may the order differ.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from reckg.retrieval.exact import exact_search
from reckg.retrieval.scored_items import ScoredItems
from tests.benchmarks.measure import Result, beside, finish, interleaved, medians, parser, speedup

AGREEMENT = 0.999


def vectors(n: int, dim: int, seed: int) -> np.ndarray:
    """(n, dim) float32 normal vectors whose lengths differ as those of popular and rare items do."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim), dtype=np.float32) * rng.uniform(0.5, 1.5, (n, 1)).astype(np.float32)


def product_share(users: np.ndarray, items: np.ndarray, k: int) -> tuple[ScoredItems, float, float]:
    """The lists of all users, the share of processor time in the products, and the seconds by the clock."""
    product, spent = np.matmul, []

    def timed(*args: np.ndarray, **kwargs: np.ndarray) -> np.ndarray:
        began = time.thread_time()
        out = product(*args, **kwargs)
        spent.append(time.thread_time() - began)
        return out

    np.matmul = timed  # type: ignore[assignment]
    try:
        began, used = time.perf_counter(), time.process_time()
        found = exact_search(users, items, k)
        used, seconds = time.process_time() - used, time.perf_counter() - began
    finally:
        np.matmul = product
    return found, sum(spent) / used, seconds


def peak_gib() -> float:
    """The most memory this process has had; getrusage would start from the size of the process that forked it."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def agreement(ours: ScoredItems, theirs: np.ndarray) -> float:
    """The share of places of (n, k) lists with the same item."""
    return float((ours.item_idx == theirs).mean())


def main(words: list[str] | None = None) -> Result:
    options = parser(__doc__ or "")
    options.add_argument("--users", type=int, default=100_000)
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--dim", type=int, default=64)
    options.add_argument("--k", type=int, default=100)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--rival-users", type=int, default=8_192)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args(words)
    if args.beside:
        return beside("full_ranking", args, words)
    if args.small:
        args.users, args.items, args.rival_users, args.rounds = 2_000, 5_000, 500, 1
    with threadpool_limits(args.threads):
        return measured(args)


def measured(args: argparse.Namespace) -> Result:
    users, items = vectors(args.users, args.dim, args.seed), vectors(args.items, args.dim, args.seed + 1)
    exact_search(users[:1024], items, args.k)  # warm-up
    found, share, seconds = product_share(users, items, args.k)
    peak = peak_gib()
    print(f"all {args.users:_} users: {seconds:.1f} s, {peak:.2f} GiB, {share:.0%} in the products", flush=True)

    import faiss
    import implicit.cpu.topk

    faiss.omp_set_num_threads(args.threads)
    flat = faiss.IndexFlatIP(args.dim)
    flat.add(items)
    some = users[: args.rival_users]
    contenders = {
        "reckg": lambda: exact_search(some, items, args.k).item_idx,
        "implicit": lambda: implicit.cpu.topk.topk(items, some, args.k, num_threads=args.threads)[0],
        "faiss": lambda: flat.search(some, args.k)[1],
    }
    own = ScoredItems(found.item_idx[: len(some)], found.score[: len(some)])
    agree = {name: agreement(own, search()) for name, search in contenders.items()}
    if min(agree.values()) < AGREEMENT or agree["reckg"] < 1:
        raise SystemExit(f"the lists differ: the share of equal places is {agree}")
    times = interleaved(contenders, args.rounds)
    figures = {
        "peak_rss_gb": peak,
        "product_share": share,
        "speedup_vs_implicit": speedup(times, "reckg", "implicit"),
        "speedup_vs_faiss": speedup(times, "reckg", "faiss"),
        "seconds": seconds,
        "users_per_s": args.users / seconds,
        "agreement_implicit": agree["implicit"],
        "agreement_faiss": agree["faiss"],
        **{f"{name}_s": value for name, value in medians(times).items()},
    }
    print(f"{'':10} {'seconds':>8} for {len(some):_} users")
    for name, value in medians(times).items():
        print(f"{name:10} {value:8.2f}")
    print(
        f"speed-up: {figures['speedup_vs_implicit']:.2f} times implicit, {figures['speedup_vs_faiss']:.2f} times "
        f"faiss; equal places {agree['implicit']:.5f} and {agree['faiss']:.5f}"
    )
    names = ("users", "items", "dim", "k", "threads", "rival_users", "rounds")
    return finish(
        "full_ranking",
        figures,
        {name: getattr(args, name) for name in names},
        packages=("numpy", "faiss-cpu", "implicit"),
        seed=args.seed,
        out=args.out,
    )


if __name__ == "__main__":
    main()

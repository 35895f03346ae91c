"""Choice of an index by size and memory, and of its search effort by a recall target."""

from __future__ import annotations

from typing import Literal

import numpy as np

from reckg.errors import ArtifactError, ConfigError
from reckg.retrieval.exact import search_checked
from reckg.retrieval.faiss_index import CLASSES, Compression, Kind
from reckg.retrieval.index import SPARE, ItemIndex

EXACT_ITEMS = 20_000  # up to this number exact search takes a fifth of a millisecond
FLAT_ITEMS = 100_000  # up to this number exact search takes a millisecond or two
NEARLY_EXACT = 0.999  # recall of an ivf index that replaces exact search
NEARLY_EXACT_SHARE = 0.25  # share of ivf's lists; with more lists to visit it is no faster than exact search
MOST_EFFORT = 16_384
RESCORES = (1, 2, 4, 8, 16)


def choose_index(
    n_items: int,
    dim: int,
    *,
    kind: Literal["auto", "flat", "ivf", "hnsw"] = "auto",
    compression: Literal["auto", "none", "sq8", "pq"] = "auto",
    memory_gb: float = 0.0,
    hnsw_m: int = 32,
    pq_bytes: int = 16,
) -> tuple[Kind, Compression]:
    """Chooses the first kind that fits the memory: flat for small catalogues, then ivf, then compressed ivf.

    hnsw is chosen only if requested: it takes more memory and about ten times as long to build, and for 100,000 items
    and the recall of hundreds of candidates it answers no faster (docs/measurements/retrieval.md).

    Args:
        n_items, dim: shape of the item vectors.
        kind, compression: as configured; auto: chosen here.
        memory_gb: GiB that FAISS's index may take. 0: any. The exact vectors lie beside it in a mapped file.
        hnsw_m: links per item of hnsw.
        pq_bytes: bytes per vector of pq.
    Raises:
        ConfigError: no kind fits, or flat is combined with a compression.
    """
    order = [pair for pair in CLASSES if pair[0] == kind or (kind == "auto" and pair[0] == "ivf")]
    if kind == "auto" and n_items <= FLAT_ITEMS:
        order = [("flat", "none"), *order]
    fits_kind = [pair for pair in order if compression in ("auto", pair[1])]
    if not fits_kind:
        raise ConfigError("index.kind 'flat' is exact and takes no compression; set index.kind = 'ivf' or 'hnsw'.")
    for chosen_kind, chosen_compression in fits_kind:
        size = index_bytes(n_items, dim, chosen_kind, chosen_compression, hnsw_m=hnsw_m, pq_bytes=pq_bytes)
        if not memory_gb or size <= memory_gb * 2**30:
            return chosen_kind, chosen_compression
    least = min(index_bytes(n_items, dim, *pair, hnsw_m=hnsw_m, pq_bytes=pq_bytes) for pair in fits_kind)
    raise ConfigError(
        f"index.memory_gb = {memory_gb:g} is too little for {n_items:_} items of {dim} dimensions: index.kind = "
        f"{kind!r} with index.compression = {compression!r} takes {least / 2**30:.3g} GiB at least. Raise it, or allow "
        "another kind or compression."
    )


def may_be_nearly_exact(n_items: int, dim: int, *, memory_gb: float = 0.0) -> bool:
    """Tests whether the catalogue is large enough for ivf in place of exact search, and ivf fits the memory."""
    return n_items > EXACT_ITEMS and (not memory_gb or index_bytes(n_items, dim, "ivf", "none") <= memory_gb * 2**30)


def index_bytes(n_items: int, dim: int, kind: str, compression: str, *, hnsw_m: int = 32, pq_bytes: int = 16) -> int:
    """Estimates the bytes of FAISS's index: codes, item numbers of ivf, links of hnsw; not the small trained parts."""
    code = {"none": 4 * dim, "sq8": dim, "pq": pq_bytes}[compression]
    links = 4 * (2 * hnsw_m + 1) + 12  # the upper levels have about one link per item
    return n_items * (code + {"flat": 0, "ivf": 8, "hnsw": links}[kind])


def default_pq_bytes(dim: int) -> int:
    """Returns half a byte per dimension, or the next smaller number of bytes that divides the dimension."""
    return next(size for size in range(max(1, dim // 2), 0, -1) if dim % size == 0)


def sample_queries(users: np.ndarray, items: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draws query vectors: random user vectors that are not zero, or item vectors if every user vector is zero.

    Args:
        users: (n_users, d) float32.
        items: (n_items, d) float32.
        n: vectors at most.
    Returns:
        (<= n, d) float32.
    """
    known = np.flatnonzero(users.any(axis=1))
    source, rows = (users, known) if len(known) else (items, np.arange(len(items)))
    rng = np.random.default_rng(seed)
    return np.ascontiguousarray(source[np.sort(rng.choice(rows, size=min(n, len(rows)), replace=False))])


def meet_target(index: ItemIndex, queries: np.ndarray, k: int, target: float, fixed: dict[str, int]) -> ItemIndex:
    """Finds the least effort whose recall@k against exact search reaches the target.

    Recall is the share of the k best items that the index finds, averaged over the queries. An item with the score of
    the k-th best counts as found. ``recall`` of the result holds the measurement.

    Args:
        queries: (n, d) float32.
        k: length of the compared lists.
        target: recall to reach, 0 to 1.
        fixed: values of ef_search, nprobe or rescore that must not change.
    Returns:
        The index with other settings.
    Raises:
        ArtifactError: the target is not reached.
    """
    k = min(k, index.n_items)
    best = search_checked(queries, index.vectors(), k, None).score[:, -1:]

    def measure(settings: dict[str, int]) -> ItemIndex:
        """Returns the index with other settings and their recall."""
        tried = index.with_settings(settings)
        recall = float((tried.search(queries, k).score >= best).mean())
        return tried.with_settings({}, {"recall": recall, "k": k, "target": target, "queries": len(queries)})

    found = index
    name = {"ivf": "nprobe", "hnsw": "ef_search"}.get(index.kind)
    efforts = [fixed[name]] if name in fixed else _list_efforts(index, k)
    rescores = [fixed["rescore"]] if "rescore" in fixed else list(RESCORES if index.compression != "none" else [1])
    for effort in efforts:
        settings = {} if name is None else {name: effort}
        rescored: dict[str, int] = {} if index.compression == "none" else {"rescore": rescores[-1]}
        found = measure(settings | rescored)
        if reaches(found, target):
            for rescore in rescores[:-1]:
                cheaper = measure(settings | {"rescore": rescore})
                if reaches(cheaper, target):
                    return cheaper
            return found
    raise ArtifactError(_describe_shortfall(found, fixed))


def reaches(index: ItemIndex, target: float) -> bool:
    """Tests whether the index's measured recall is at least the target."""
    return index.recall is not None and index.recall["recall"] >= target


def _list_efforts(index: ItemIndex, k: int) -> list[int]:
    """Lists efforts to try, each twice the previous."""
    if index.kind == "flat":
        return [0]
    most = index.settings["ivf_lists"] if index.kind == "ivf" else min(MOST_EFFORT, index.n_items)
    least = 4 if index.kind == "ivf" else k + SPARE
    steps = [2**power for power in range(32) if least <= 2**power < most]
    return [*steps, most]


def _describe_shortfall(index: ItemIndex, fixed: dict[str, int]) -> str:
    """Formats the message for a target that was not reached."""
    recall = index.recall
    if recall is None:
        raise ValueError("the recall of the index was not measured")
    raised = "".join(f"raise index.{key} (now {value}) or leave it to be chosen, " for key, value in fixed.items())
    chosen = f"{index.kind}" + ("" if index.compression == "none" else f" with {index.compression}")
    return (
        f"the index ({chosen}) finds {recall['recall']:.4f} of the {recall['k']} best items of {recall['queries']} "
        f"queries, under index.recall_target = {recall['target']:g}: {raised}take another index.kind ('flat' is exact) "
        "or less compression, or lower the target."
    )

"""Which index a catalogue gets, and how hard it searches: chosen from size and memory, raised to a recall target."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from reckg.errors import ArtifactError, ConfigError
from reckg.retrieval.exact import search_checked
from reckg.retrieval.faiss_index import CLASSES, Compression, Kind
from reckg.retrieval.index import SPARE, ItemIndex

EXACT_ITEMS = 20_000  # up to so many, exact search takes a fifth of a millisecond
FLAT_ITEMS = 100_000  # and up to so many a millisecond or two
NEARLY_EXACT = 0.999  # the recall of an ivf index that takes the place of exact search
NEARLY_EXACT_SHARE = 0.25  # of its lists; where more have to be looked at it is no faster than exact search
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
    """The first kind that fits the memory: flat for small catalogues, then ivf, then compressed ivf.

    hnsw is for those who ask for it: it takes more memory and about ten times as long to build, and with 100,000
    items and the recall of hundreds of candidates it answers no faster (docs/measurements/retrieval.md).

    Args:
        memory_gb: GiB that FAISS's index may take; 0: any. The exact vectors are beside it in a mapped file.
    Raises:
        ConfigError: none fits, or flat is to be compressed.
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
            return chosen_kind, chosen_compression  # type: ignore[return-value]
    least = min(index_bytes(n_items, dim, *pair, hnsw_m=hnsw_m, pq_bytes=pq_bytes) for pair in fits_kind)
    raise ConfigError(
        f"index.memory_gb = {memory_gb:g} is too little for {n_items:_} items of {dim} dimensions: index.kind = "
        f"{kind!r} with index.compression = {compression!r} takes {least / 2**30:.3g} GiB at least. Raise it, or allow "
        "another kind or compression."
    )


def may_be_nearly_exact(n_items: int, dim: int, *, memory_gb: float = 0.0) -> bool:
    """Whether ivf is worth a try in place of exact search: the catalogue is large enough, and ivf fits the memory."""
    return n_items > EXACT_ITEMS and (not memory_gb or index_bytes(n_items, dim, "ivf", "none") <= memory_gb * 2**30)


def index_bytes(n_items: int, dim: int, kind: str, compression: str, *, hnsw_m: int = 32, pq_bytes: int = 16) -> int:
    """About the bytes of FAISS's index: codes, item numbers of ivf, links of hnsw; less the small trained parts."""
    code = {"none": 4 * dim, "sq8": dim, "pq": pq_bytes}[compression]
    links = 4 * (2 * hnsw_m + 1) + 12  # the upper levels have about one link an item
    return n_items * (code + {"flat": 0, "ivf": 8, "hnsw": links}[kind])


def default_pq_bytes(dim: int) -> int:
    """Half a byte a dimension, or the next fewer bytes that divide the dimension."""
    return next(size for size in range(max(1, dim // 2), 0, -1) if dim % size == 0)


def sample_queries(users: np.ndarray, items: np.ndarray, n: int, seed: int) -> np.ndarray:
    """(<= n, d) random user vectors that are not zero; item vectors where there is no such user."""
    known = np.flatnonzero(users.any(axis=1))
    source, rows = (users, known) if len(known) else (items, np.arange(len(items)))
    rng = np.random.default_rng(seed)
    return np.ascontiguousarray(source[np.sort(rng.choice(rows, size=min(n, len(rows)), replace=False))])


def meet_target(index: ItemIndex, queries: np.ndarray, k: int, target: float, fixed: dict[str, int]) -> ItemIndex:
    """The index with the least effort whose recall@k against exact search reaches the target, both measured.

    Recall is the share of the k best items of a query, here the mean over (n, d) queries; an item that scores as the
    k-th best counts as one of them. ``recall`` of what comes back says what was measured.

    Args:
        fixed: settings that are not to be changed: ef_search, nprobe, rescore.
    Raises:
        ArtifactError: the target is not reached.
    """
    k = min(k, index.n_items)
    best = search_checked(queries, index.vectors(), k, None).score[:, -1:]

    def measured(settings: dict[str, int]) -> ItemIndex:
        tried = index.with_settings(settings)
        recall = float((tried.search(queries, k).score >= best).mean())
        return tried.with_settings({}, {"recall": recall, "k": k, "target": target, "queries": len(queries)})

    found = index
    name = {"ivf": "nprobe", "hnsw": "ef_search"}.get(index.kind)
    efforts = [fixed[name]] if name in fixed else _efforts(index, k)
    rescores = [fixed["rescore"]] if "rescore" in fixed else list(RESCORES if index.compression != "none" else [1])
    for effort in efforts:
        settings = {} if name is None else {name: effort}
        rescored: dict[str, int] = {} if index.compression == "none" else {"rescore": rescores[-1]}
        found = measured(settings | rescored)
        if reached(found, target):
            for rescore in rescores[:-1]:
                cheaper = measured(settings | {"rescore": rescore})
                if reached(cheaper, target):
                    return cheaper
            return found
    raise ArtifactError(_too_low(found, fixed))


def reached(index: ItemIndex, target: float) -> bool:
    """Whether the index's measured recall is at least the target."""
    return index.recall is not None and index.recall["recall"] >= target


def _efforts(index: ItemIndex, k: int) -> list[int]:
    """Efforts to try, each twice the one before."""
    if index.kind == "flat":
        return [0]
    most = index.settings["ivf_lists"] if index.kind == "ivf" else min(MOST_EFFORT, index.n_items)
    least = 4 if index.kind == "ivf" else k + SPARE
    steps = [2**power for power in range(32) if least <= 2**power < most]
    return [*steps, most]


def _too_low(index: ItemIndex, fixed: dict[str, int]) -> str:
    said: dict[str, Any] = index.recall or {}
    raised = "".join(f"raise index.{key} (now {value}) or leave it to be chosen, " for key, value in fixed.items())
    with_what = f"{index.kind}" + ("" if index.compression == "none" else f" with {index.compression}")
    return (
        f"the index ({with_what}) finds {said['recall']:.4f} of the {said['k']} best items of {said['queries']} "
        f"queries, under index.recall_target = {said['target']:g}: {raised}take another index.kind ('flat' is exact) "
        "or less compression, or lower the target."
    )

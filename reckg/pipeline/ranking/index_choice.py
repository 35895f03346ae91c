"""The index that a configuration asks for, or that fits the vectors."""

from __future__ import annotations

import contextlib
from functools import partial

import numpy as np

from reckg.config.run_config import Config
from reckg.errors import ArtifactError
from reckg.retrieval.choose_index import (
    NEARLY_EXACT,
    NEARLY_EXACT_SHARE,
    choose_index,
    default_pq_bytes,
    may_be_nearly_exact,
    meet_target,
    sample_queries,
)
from reckg.retrieval.index import ItemIndex, build_index


def index_of(users: np.ndarray, items: np.ndarray, config: Config) -> ItemIndex:
    """Builds the configured index, or the one that fits the vectors, with the recall that the configuration wants.

    Args:
        users: (n_users, d) vectors that recall is measured with.
        items: (n_items, d) vectors to index.
    Raises:
        ArtifactError: the index does not reach index.recall_target.
    """
    settings = config.index
    pq_bytes = settings.pq_bytes or default_pq_bytes(items.shape[1])
    kind, compression = choose_index(
        *items.shape,
        kind=settings.kind,
        compression=settings.compression,
        memory_gb=settings.memory_gb,
        hnsw_m=settings.hnsw_m,
        pq_bytes=pq_bytes,
    )
    build = partial(
        build_index,
        items,
        hnsw_m=settings.hnsw_m,
        ef_construction=settings.ef_construction,
        ivf_lists=settings.ivf_lists,
        pq_bytes=pq_bytes,
        seed=config.run.seed,
        device=settings.device,
    )
    fixed = {name: value for name in ("ef_search", "nprobe", "rescore") if (value := getattr(settings, name))}
    queries = sample_queries(users, items, settings.recall_queries, config.run.seed)
    meet = partial(meet_target, queries=queries, k=config.rank.candidates, fixed=fixed)
    left_to_auto = settings.kind == settings.compression == "auto" and kind == "flat"
    if left_to_auto and may_be_nearly_exact(*items.shape, memory_gb=settings.memory_gb):
        with contextlib.suppress(ArtifactError):  # the target is out of reach
            nearly = meet(build(kind="ivf"), target=max(settings.recall_target, NEARLY_EXACT))
            if nearly.settings["nprobe"] <= NEARLY_EXACT_SHARE * nearly.settings["ivf_lists"]:
                return nearly
    return meet(build(kind=kind, compression=compression), target=settings.recall_target)

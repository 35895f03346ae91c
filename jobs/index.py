"""Stage index: the items' serving vectors to a FAISS index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jobs.run_folder import read_embeddings
from reckg.config import Config
from reckg.retrieval.index import ItemIndex, build_index


def index(config: Config, data: Path, run: Path) -> dict[str, Any]:
    """Writes index/."""
    _, items = read_embeddings(run, "serving")
    built = index_of(items, config)
    built.save(run / "index")
    return {"kind": config.index.kind, "items": len(items)}


def index_of(items: np.ndarray, config: Config) -> ItemIndex:
    """An index over (n_items, d) vectors as configured."""
    settings = config.index
    return build_index(
        items,
        kind=settings.kind,
        hnsw_m=settings.hnsw_m,
        ef_construction=settings.ef_construction,
        ef_search=settings.ef_search,
    )

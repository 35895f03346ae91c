"""The vectors that a model gives the nodes of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors, float32: users (n_users, d), items (n_items, d), entities (n_entities, d)."""

    users: np.ndarray
    items: np.ndarray
    entities: np.ndarray

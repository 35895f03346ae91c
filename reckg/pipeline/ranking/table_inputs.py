"""Feature tables of a run, for a state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp

from reckg.config.run_config import Config
from reckg.data.history import latest_time
from reckg.errors import ArtifactError
from reckg.pipeline.run.folder import Prepared, graph_dim, n_threads, read_embeddings, read_text_vectors
from reckg.ranking.tables.build import TableInputs, build_feature_tables
from reckg.ranking.tables.feature_tables import FeatureTables
from reckg.ranking.tables.item_item import Order


def feature_tables(
    config: Config, run: Path, prepared: Prepared, state: str, vectors: np.ndarray | None = None
) -> FeatureTables:
    """Builds the feature tables of the interactions that are known in a state.

    Args:
        run: run folder with graph/ and embeddings/.
        state: train, test or serving.
        vectors: (n_items, d) in place of the run's embeddings.
    """
    known = prepared.known(state, config)
    timed = prepared.info["time"] == "utc" and "timestamp" in known.columns
    columns = prepared.info["item_columns"]["number"]
    numbers = prepared.items.select(pl.col(name).cast(pl.Float32) for name in columns).to_numpy()
    order: Order = "none" if prepared.info["time"] == "none" else "ahead" if prepared.in_order else "between"
    items, users = entities_of(run, prepared)
    item_vectors = read_embeddings(run, state)[1] if vectors is None else vectors
    return build_feature_tables(
        prepared.history(state, config),
        TableInputs(
            n_users=len(prepared.users),
            n_items=len(prepared.items),
            item_entities=items,
            user_entities=users,
            numbers=numbers.reshape(len(prepared.items), len(columns)).astype(np.float32),
            now=latest_time(known["timestamp"].to_numpy()) if timed else None,
            neighbours=config.rank.neighbours,
            order=order,
            item_vectors=item_vectors,
            graph_dim=min(graph_dim(config), item_vectors.shape[1]),
            text=read_text_vectors(run),
            seed=config.run.seed,
            threads=n_threads(config),
            target=prepared.target,
        ),
    )


def entities_of(run: Path, prepared: Prepared) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Reads the links of items and users to entities.

    Returns:
        (n_items, E) and (n_users, E) matrices, 1 if the graph joins the two.
    Raises:
        ArtifactError: the graph cannot be read.
    """
    path = run / "graph" / "triples.parquet"
    try:
        triples = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Run 'reckg build-graph' again.") from error
    head, tail = triples["head"].to_numpy(), triples["tail"].to_numpy()
    first_item, first_entity = len(prepared.users), len(prepared.users) + len(prepared.items)
    n_entities = max(int(max(head.max(initial=0), tail.max(initial=0))) + 1 - first_entity, 0)
    ends = np.concatenate([head, tail]), np.concatenate([tail, head])

    def joined(first: int, stop: int) -> sp.csr_matrix:
        own = (ends[0] >= first) & (ends[0] < stop) & (ends[1] >= first_entity)
        place = ends[0][own] - first, ends[1][own] - first_entity
        matrix = sp.csr_matrix((np.ones(len(place[0]), np.float32), place), shape=(stop - first, n_entities))
        matrix.data[:] = 1.0
        return matrix

    return joined(first_item, first_entity), joined(0, first_item)

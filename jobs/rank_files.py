"""What ranking needs of a run's folder: the feature tables of a state, and the candidates of users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp

from jobs.run_folder import Prepared, read_embeddings
from reckg.config import Config
from reckg.errors import ArtifactError
from reckg.ranking.tables import FeatureTables, build_feature_tables


def feature_tables(config: Config, run: Path, prepared: Prepared, state: str) -> FeatureTables:
    """The tables of what is known in a state."""
    known = prepared.known(state, config)
    timed = prepared.info["time"] == "utc" and "timestamp" in known.columns
    columns = prepared.info["item_columns"]["number"]
    numbers = prepared.items.select(pl.col(name).cast(pl.Float32) for name in columns).to_numpy()
    return build_feature_tables(
        prepared.history(state, config),
        n_users=len(prepared.users),
        n_items=len(prepared.items),
        item_entities=item_entities(run, prepared),
        numbers=numbers.reshape(len(prepared.items), len(columns)).astype(np.float32),
        now=int(known["timestamp"].to_numpy().max()) if timed else None,
        neighbours=config.rank.neighbours,
        ordered=prepared.info["time"] != "none",
        item_vectors=read_embeddings(run, state)[1],
    )


def item_entities(run: Path, prepared: Prepared) -> sp.csr_matrix:
    """(n_items, n_entities) 1 where the graph joins an item and an entity."""
    path = run / "graph" / "triples.parquet"
    try:
        triples = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Run 'reckg build-graph' again.") from error
    head, tail = triples["head"].to_numpy(), triples["tail"].to_numpy()
    first_item, first_entity = len(prepared.users), len(prepared.users) + len(prepared.items)
    n_entities = max(int(max(head.max(initial=0), tail.max(initial=0))) + 1 - first_entity, 0)
    pairs = [(head, tail), (tail, head)]
    rows, columns = [], []
    for item, entity in pairs:
        joined = (item >= first_item) & (item < first_entity) & (entity >= first_entity)
        rows.append(item[joined] - first_item)
        columns.append(entity[joined] - first_entity)
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(len(prepared.items), n_entities))
    matrix.data[:] = 1.0
    return matrix

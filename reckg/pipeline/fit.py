"""Training from Python: tables in, a recommender out, by the stages of `reckg run`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reckg.config.run_config import Config, parse_config, read_config
from reckg.pipeline.fitted import FittedRecommender
from reckg.pipeline.given_tables import write_tables
from reckg.pipeline.run.pipeline import run_pipeline

if TYPE_CHECKING:
    from reckg.pipeline.given_tables import TableLike


def fit(
    interactions: TableLike,
    items: TableLike | None = None,
    users: TableLike | None = None,
    triples: TableLike | None = None,
    links: TableLike | None = None,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    *,
    folder: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> FittedRecommender:
    """Trains a recommender, judges it on held-out interactions, and opens it.

    The stages, and so the figures, are those of ``reckg run``. Finished stages of an earlier call are used again.

    Args:
        interactions: ``user_id``, ``item_id`` and, if known, ``timestamp``, ``weight``, ``event``, ``split``. A table
            is a Polars or pandas frame, or the path of a Parquet, CSV, TSV or JSON Lines file.
        items: ``item_id`` and columns of texts, categories, numbers and lists.
        users: ``user_id`` and columns, as of the items.
        triples: facts of a knowledge graph: ``head``, ``relation``, ``tail``.
        links: the entity that an item is in the triples: ``item_id``, ``entity``.
        config: a Config, its values by section, or the path of a TOML file; None: the defaults.
        folder: for the tables and the run; None: a temporary one, removed with the recommender.
        settings: values of a dataset.toml, for instance ``{"items": {"text": ["title"], "list": ["genres"]}}``. Kinds
            of columns that are not given are inferred.
    Returns:
        The recommender, with ``evaluate`` and ``save``.
    Raises:
        DataError: a table breaks the data contract. The message names the argument, the column, the number of bad
            values and the first bad row.
        ConfigError: the configuration is refused, or ``folder`` holds finished results of other tables or settings.

    >>> fast = {"text": {"encoder": "none"}, "train": {"epochs": 1}, "evaluate": {"tuning_settings": 1}}
    >>> recommender = reckg.fit("data/interactions.parquet", "data/items.parquet", config=fast)
    - items (items.parquet): ...
    [1/8] build-graph: ...
    >>> recommender.evaluate().to_polars().columns[:3]
    ['system', 'label', 'recall@5']
    >>> recommender.save("saved")
    >>> len(reckg.load("saved").recommend("u0000001", k=3).items)
    3
    """
    run_config = _read(config)
    place = Path(tempfile.mkdtemp(prefix="reckg-")) if folder is None else Path(folder)
    try:
        tables = {"interactions": interactions, "items": items, "users": users, "triples": triples, "links": links}
        place.mkdir(parents=True, exist_ok=True)
        for note in write_tables(tables, settings or {}, place / "dataset"):
            print(f"    - {note}")
        run_pipeline(run_config, place / "dataset", place / "run")
        fitted = FittedRecommender(place)
    except BaseException:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
        raise
    if folder is None:
        weakref.finalize(fitted, shutil.rmtree, place, ignore_errors=True)
    return fitted


def _read(config: Config | Mapping[str, Any] | str | Path | None) -> Config:
    if config is None:
        return Config()
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return parse_config(dict(config), "config")
    return read_config(Path(config))

"""Figures beside accuracy: coverage, novelty, diversity, calibration and exposure of every system's lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from reckg.config.run_config import Config
from reckg.errors import ConfigError
from reckg.evaluation.beyond_accuracy import (
    Catalog,
    gini_interval,
    item_exposure,
    shannon_entropy,
    user_figures,
    value_exposure,
)
from reckg.evaluation.comparison import BeyondFigures
from reckg.evaluation.protocol import ItemGroups, SystemResult
from reckg.evaluation.report.contents import BeyondSection, ProviderRow
from reckg.evaluation.report.protocol_words import exposure_section
from reckg.metrics.significance import known_intervals
from reckg.pipeline.ranking.table_inputs import entities_of
from reckg.pipeline.run.test_data import RunData

PROVIDERS = 10  # shown by name, those with the most items


def beyond_sections(
    config: Config,
    run: Path,
    test: RunData,
    results: Mapping[str, SystemResult],
    groups: ItemGroups,
    train_users: np.ndarray,
    k: int,
    item_vectors: np.ndarray,
) -> tuple[dict[str, BeyondFigures], BeyondSection]:
    """Measures the lists of every system beside accuracy.

    Args:
        groups: the items by popularity.
        train_users: (n_items,) users of an item.
        k: cut-off of coverage.
        item_vectors: (n_items, d), for likeness if the graph has no attributes.
    Returns:
        Figures by system, and the report's section ``beyond``.
    """
    entities = entities_of(run, test.prepared)[0]
    likeness = "the cosine of their attributes in the knowledge graph"
    if not entities.nnz:
        likeness = "the cosine of their embeddings, for lack of attributes"
    column = calibration_column(config, test)
    values = None if column is None else value_shares(test.prepared.items[column])
    tail = np.isin(groups.group, [place for place, name in enumerate(groups.names) if name in ("tail", "cold")])
    catalog = Catalog(train_users, test.n_users, entities if entities.nnz else item_vectors, values, tail)
    samples, seed, held = config.evaluate.bootstrap_samples, config.run.seed, test.held
    figures: dict[str, BeyondFigures] = {}
    for name, result in results.items():
        expected = results["popularity"].lists
        per_user = user_figures(result.lists, held.users, held.relevant, test.history, catalog, expected)
        entropy = shannon_entropy(item_exposure(result.lists, test.n_items))
        figures[name] = {
            "coverage": result.coverage[f"coverage@{k}"],
            "gini": gini_interval(result.lists, test.n_items),
            **known_intervals(per_user, samples, seed),
            "entropy": entropy,
        }
    section: BeyondSection = {"k": k, "likeness": likeness, "column": column and f"the values of {column!r}"}
    if config.evaluate.provider_column:
        section["provider_column"] = config.evaluate.provider_column
        section["exposure"] = _exposure(config, test, results)
    return figures, section


def _exposure(config: Config, test: RunData, results: Mapping[str, SystemResult]) -> list[ProviderRow]:
    column = test.prepared.items[config.evaluate.provider_column]
    text = column.cast(pl.String)
    names = text.drop_nulls().value_counts(name="items").sort(["items", column.name], descending=[True, False])
    shown = names[column.name].head(PROVIDERS).to_list()
    labels = shown + (["all others"] if len(names) > len(shown) else [])
    place = {name: number for number, name in enumerate(shown)}
    code = np.array([-1 if value is None else place.get(value, len(shown)) for value in text.to_list()])
    shares = {name: value_exposure(result.lists, code, len(labels)) for name, result in results.items()}
    wanted = code[test.held.relevant[1]]
    catalog, taken = (np.bincount(c[c >= 0], minlength=len(labels)) / max(len(c), 1) for c in (code, wanted))
    samples, seed = config.evaluate.bootstrap_samples, config.run.seed
    return exposure_section(shares, labels, catalog, taken, samples, seed)


def check_columns(config: Config, test: RunData) -> None:
    """Checks the configured columns of the items.

    Args:
        test: with the items.
    Raises:
        ConfigError: a column does not exist, or does not fit.
    """
    columns = [column for column in test.prepared.items.columns if column != "item_id"]
    for setting in ("provider_column", "calibration_column"):
        name = getattr(config.evaluate, setting)
        if name and name not in columns:
            raise ConfigError(
                f"evaluate.{setting}: the catalog has no column {name!r}; it has {', '.join(columns) or 'none'}."
            )
    name = config.evaluate.provider_column
    if name and test.prepared.items[name].dtype == pl.List:
        raise ConfigError(
            f"evaluate.provider_column: {name!r} holds lists; a provider is one value of an item. Name another."
        )


def calibration_column(config: Config, test: RunData) -> str | None:
    """Returns the configured column, else the first list column of the items, else their first categorical one.

    A column without any value is passed over.
    """
    kinds = test.prepared.info.get("item_columns", {})
    usual = [
        name
        for name in (*kinds.get("list", []), *kinds.get("categorical", []))
        if has_values(test.prepared.items[name])
    ]
    return config.evaluate.calibration_column or next(iter(usual), None)


def has_values(column: pl.Series) -> bool:
    """Tells whether any row of a column of texts or lists has a value."""
    values = column.explode() if column.dtype == pl.List else column
    return values.drop_nulls().len() > 0


def value_shares(column: pl.Series) -> sparse.csr_matrix:
    """Spreads 1 evenly over the values of every row.

    Args:
        column: (n,) texts or lists.
    Returns:
        (n, v) shares of the v values; a row without values is empty.
    """
    rows = column.to_frame("value").with_row_index("row")
    rows = rows.explode("value") if column.dtype == pl.List else rows
    rows = rows.drop_nulls().unique().with_columns(pl.col("value").cast(pl.String))
    values = rows.select("value").unique().sort("value").with_row_index("code")
    coded = rows.join(values, on="value").sort("row", "code")
    row, code = coded["row"].to_numpy(), coded["code"].to_numpy()
    share = 1 / np.bincount(row, minlength=len(column))[row]
    return sparse.csr_matrix((share, (row, code)), shape=(len(column), len(values)))

"""Answers to requests: items with scores, and the reasons why they may be worse than usual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import polars as pl

from reckg.recommend.answer_table import Row, html_table, text_table
from reckg.recommend.deadline import Stage
from reckg.recommend.evidence import FeatureValue, SourceScore

if TYPE_CHECKING:
    import pandas as pd

FallbackPolicy = Literal["popular"]
DegradedReason = Literal["cold_user", "no_rerank", "unknown_recent_items", "unknown_attributes"]


@dataclass(frozen=True)
class RecommendedItem:
    """One item of an answer.

    Args:
        item_id: raw item id.
        title: text of the catalog's first text column; empty if it has none.
        score: higher is better.
        features: by name, the ranker's view of the item, if requested; empty if the ranker did not see it.
        sources: candidate sources that found the item, if requested.

    >>> import reckg
    >>> item = reckg.load("run/bundle").recommend("u03", with_features=True, with_sources=True).items[0]
    >>> item.features["popularity"].value is not None, len(item.sources) > 0
    (True, True)
    """

    item_id: str
    title: str
    score: float
    features: Mapping[str, FeatureValue] = field(default_factory=dict)
    sources: tuple[SourceScore, ...] = ()


@dataclass(frozen=True)
class Recommendations:
    """Items in order, best first. Shows itself as a table at the prompt and in a notebook.

    Args:
        items: best item first.
        bundle_version: version of the bundle that answered.
        fallback: policy that answered in place of the model. None: the model answered.
        degraded: reasons why the answer may be worse than usual. ``cold_user``: the user has no known interaction.
            ``no_rerank``: the bundle has a ranker, and it was not applied. ``unknown_recent_items`` and
            ``unknown_attributes``: parts of the request are unknown to the bundle.
        unknown_recent_items: recent items of the request that the bundle does not know.
        unknown_attributes: attributes that it does not know, as ``column`` or ``column=value``.
        unknown_context_items: context items that it does not know.
        stages: stages of the answer, in the order in which they were run.

    >>> import reckg
    >>> answer = reckg.load("run/bundle").recommend("nobody", k=3)
    >>> answer.fallback, answer.degraded, len(answer.items)
    ('popular', ('cold_user',), 3)
    """

    items: list[RecommendedItem]
    bundle_version: str
    fallback: FallbackPolicy | None = None
    degraded: tuple[DegradedReason, ...] = ()
    unknown_recent_items: tuple[str, ...] = ()
    unknown_attributes: tuple[str, ...] = ()
    unknown_context_items: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()

    def to_polars(self) -> pl.DataFrame:
        """Converts the answer to a Polars frame.

        Returns:
            rank (from 1), item_id, title, score; one row per item.

        >>> import reckg
        >>> reckg.load("run/bundle").recommend("u03", k=3).to_polars().columns
        ['rank', 'item_id', 'title', 'score']
        """
        rows = [(rank, *row) for rank, row in enumerate(self._rows(), start=1)]
        schema = {"rank": pl.Int32, "item_id": pl.String, "title": pl.String, "score": pl.Float32}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def to_pandas(self) -> pd.DataFrame:
        """Converts the answer to a pandas frame.

        Returns:
            rank (from 1), item_id, title, score; one row per item.
        Raises:
            ImportError: pandas is not installed.

        >>> import reckg
        >>> reckg.load("run/bundle").recommend("u03", k=3).to_pandas().shape
        (3, 4)
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                f"to_pandas() needs pandas, which cannot be imported ({error}). Install it with 'pip install pandas', "
                "or use to_polars()."
            ) from error
        return pd.DataFrame(self.to_polars().to_dict(as_series=False))

    def __repr__(self) -> str:
        """Formats the answer as a table of at most 80 columns."""
        return text_table(self._rows(), list(self._notes()))

    def _repr_html_(self) -> str:
        """Formats the answer as an HTML table for a notebook."""
        return html_table(self._rows(), list(self._notes()))

    def _rows(self) -> list[Row]:
        """Lists id, title and score of every item."""
        return [(item.item_id, item.title, item.score) for item in self.items]

    def _notes(self) -> Iterator[str]:
        """Yields the lines below a table: fallback, reasons, unknown parts of the request, and the bundle."""
        if self.fallback is not None:
            yield f"fallback: {self.fallback}"
        if self.degraded:
            yield f"degraded: {', '.join(self.degraded)}"
        for name in ("recent_items", "attributes", "context_items"):
            unknown = getattr(self, f"unknown_{name}")
            if unknown:
                yield f"unknown {name}: {', '.join(unknown)}"
        yield f"bundle {self.bundle_version}"


@dataclass(frozen=True)
class RankedItems:
    """The caller's candidates in order. Shows itself as a table at the prompt and in a notebook.

    Args:
        order: the candidates that the bundle knows, best first.
        unknown_items: the other candidates.

    >>> import reckg
    >>> ranked = reckg.load("run/bundle").rank_items("u03", ["i01", "i02", "no such item"])
    >>> len(ranked.order.items), ranked.unknown_items
    (2, ('no such item',))
    """

    order: Recommendations
    unknown_items: tuple[str, ...] = ()

    def to_polars(self) -> pl.DataFrame:
        """Converts the order to a Polars frame, as Recommendations.to_polars.

        >>> import reckg
        >>> reckg.load("run/bundle").rank_items("u03", ["i01", "i02"]).to_polars()["rank"].to_list()
        [1, 2]
        """
        return self.order.to_polars()

    def to_pandas(self) -> pd.DataFrame:
        """Converts the order to a pandas frame, as Recommendations.to_pandas.

        Raises:
            ImportError: pandas is not installed.

        >>> import reckg
        >>> reckg.load("run/bundle").rank_items("u03", ["i01", "i02"]).to_pandas().shape
        (2, 4)
        """
        return self.order.to_pandas()

    def __repr__(self) -> str:
        """Formats the order as a table of at most 80 columns."""
        return text_table(self.order._rows(), list(self._notes()))

    def _repr_html_(self) -> str:
        """Formats the order as an HTML table for a notebook."""
        return html_table(self.order._rows(), list(self._notes()))

    def _notes(self) -> Iterator[str]:
        """Yields the lines below a table."""
        if self.unknown_items:
            yield f"unknown items: {', '.join(self.unknown_items)}"
        yield from self.order._notes()

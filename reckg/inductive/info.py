"""Settings and names of an embedder of new items and users, as its inductive.json holds them."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Bins(TypedDict):
    """Bins of a number column; see reckg.graph.number_bins."""

    points: list[float]
    exact: bool


class TextInfo(TypedDict):
    """How the model reads texts. encoder_sha256: hash of the text encoder's files; older bundles lack it."""

    max_tokens: int
    attributes: bool
    encoder_sha256: NotRequired[str]


class InductiveInfo(TypedDict):
    """Settings and names.

    relations: without ``interact``. half_life: 0 where histories have no order. item_columns, user_columns: names by
    kind. numbers: bins by relation. text: None where the model reads no texts.
    """

    n_users: int
    n_items: int
    relations: list[str]
    aggregator: str
    combine: str
    interaction_share: float
    half_life: float
    item_columns: dict[str, list[str]]
    user_columns: dict[str, list[str]]
    numbers: dict[str, Bins]
    text: TextInfo | None

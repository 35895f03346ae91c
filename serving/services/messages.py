"""Conversion between messages and the library's types, with checks of every field.

An InvalidRequestError names the field, its range and its value. It may hold the caller's own ids, and goes to the
caller, never to a log.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from reckg.ranking.diversity import Diversity, Strategy
from reckg.ranking.features.missing_values import Cause
from reckg.recommend.answers import RecommendedItem
from reckg.recommend.deadline import Stage
from reckg.retrieval.filters import Filters
from reckg.v1 import item_pb2
from reckg.v1 import recommender_pb2 as pb
from serving.errors import InvalidRequestError

DEFAULT_ITEM_COUNT = 10
MAX_RECENT_ITEMS = 500
MAX_CONTEXT_ITEMS = 100
MAX_CANDIDATES = 500
MAX_BATCH_USERS = 10_000
MAX_ID = 256
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}")
_PLACEMENT = re.compile(r"[a-z0-9._-]{1,64}")

FALLBACKS = {None: pb.FALLBACK_NONE, "popular": pb.FALLBACK_POPULAR}
DEGRADED_REASONS = {
    "cold_user": pb.DEGRADED_REASON_COLD_USER,
    "no_rerank": pb.DEGRADED_REASON_NO_RERANK,
    "unknown_recent_items": pb.DEGRADED_REASON_UNKNOWN_RECENT_ITEMS,
    "unknown_attributes": pb.DEGRADED_REASON_UNKNOWN_ATTRIBUTES,
    "no_events": pb.DEGRADED_REASON_NO_EVENTS,
    "stale_catalog": pb.DEGRADED_REASON_STALE_CATALOG,
}
STAGES: dict[Stage, int] = {name: pb.Stage.Value(f"STAGE_{name.upper()}") for name in get_args(Stage)}
CAUSES: dict[Cause, pb.MissingCause] = {
    "": pb.MISSING_CAUSE_UNSPECIFIED,
    "absent": pb.MISSING_CAUSE_ABSENT,
    "unknown user": pb.MISSING_CAUSE_UNKNOWN_USER,
    "too old": pb.MISSING_CAUSE_TOO_OLD,
}
STRATEGIES: dict[int, Strategy] = {
    pb.DIVERSITY_STRATEGY_NONE: "none",
    pb.DIVERSITY_STRATEGY_MMR: "mmr",
    pb.DIVERSITY_STRATEGY_CALIBRATED: "calibrated",
    pb.DIVERSITY_STRATEGY_PROVIDER: "provider",
}


def require(field: str, value: str) -> str:
    """Returns a text that must not be empty.

    Args:
        field: name of the field, for the message.
        value: the text.

    Raises:
        InvalidRequestError: the text is empty.
    """
    if not value:
        raise InvalidRequestError(f"{field} must not be empty")
    return value


def read_exclude_seen(request: pb.RecommendRequest) -> bool | None:
    """Returns whether items that the user took before are left out; None: as the bundle was built.

    Raises:
        InvalidRequestError: both fields are set.
    """
    if request.include_seen and request.exclude_seen:
        raise InvalidRequestError("include_seen and exclude_seen contradict each other: set one of them")
    return True if request.exclude_seen else False if request.include_seen else None


def read_item_count(count: int, most: int) -> int:
    """Returns the number of wanted items.

    Args:
        count: field ``max_item_count``; 0: the default.
        most: largest allowed number.

    Raises:
        InvalidRequestError: the number is out of range.
    """
    if not 0 <= count <= most:
        raise InvalidRequestError(f"max_item_count must be 0..{most}, got {count}")
    return count or min(DEFAULT_ITEM_COUNT, most)


def check_count(field: str, values: Sequence[Any], most: int) -> Sequence[Any]:
    """Returns values that must be at most ``most``. Raises InvalidRequestError."""
    if len(values) > most:
        raise InvalidRequestError(f"{field} must be at most {most}, got {len(values)}")
    return values


def check_ids(field: str, ids: Sequence[str], most: int) -> list[str]:
    """Returns raw ids that must be distinct.

    Args:
        field: name of the field, for messages.
        ids: 1 to ``most`` ids of 1 to 256 characters.
        most: largest allowed number.

    Raises:
        InvalidRequestError: the ids are too few, too many, too long or repeat.
    """
    if not ids:
        raise InvalidRequestError(f"{field} must not be empty")
    check_count(field, ids, most)
    for place, raw in enumerate(ids):
        check_id(f"{field}[{place}]", raw)
    if len(set(ids)) < len(ids):
        place = next(place for place, raw in enumerate(ids) if raw in ids[:place])
        raise InvalidRequestError(f"{field} must not repeat, got {field}[{place}] twice: {ids[place]!r}")
    return list(ids)


def check_id(field: str, raw: str) -> str:
    """Returns a raw id that must have 1 to 256 characters. Raises InvalidRequestError."""
    if not 1 <= len(raw) <= MAX_ID:
        raise InvalidRequestError(f"{field} must have 1..{MAX_ID} characters, got {len(raw)}")
    return raw


def read_request_id(raw: str) -> str:
    """Returns the caller's request id, or a random one for "". Raises InvalidRequestError."""
    if raw and not _REQUEST_ID.fullmatch(raw):
        raise InvalidRequestError(f"request_id must be up to 128 printable ASCII characters, got {raw[:140]!r}")
    return raw or uuid.uuid4().hex


def read_recent_items(item_ids: Sequence[str]) -> list[str]:
    """Returns the field ``recent_item_ids``. Raises InvalidRequestError."""
    return list(check_count("recent_item_ids", item_ids, MAX_RECENT_ITEMS))


def read_context_items(context: pb.Context) -> list[str]:
    """Validates the request's context and returns its distinct item ids.

    Args:
        context: field ``context``.

    Raises:
        InvalidRequestError: the placement has a wrong character, or the items are too many.
    """
    if context.placement and not _PLACEMENT.fullmatch(context.placement):
        raise InvalidRequestError(
            f"context.placement must be up to 64 of the characters a-z, 0-9, '.', '_' and '-', "
            f"got {context.placement[:70]!r}"
        )
    return list(dict.fromkeys(check_count("context.item_ids", context.item_ids, MAX_CONTEXT_ITEMS)))


def read_attributes(messages: Iterable[pb.UserAttribute]) -> dict[str, list[str | float]]:
    """Reads a user's attributes.

    Args:
        messages: field ``attributes``.

    Returns:
        Column to values.

    Raises:
        InvalidRequestError: a name is missing or repeats, or a number is not finite.
    """
    attributes: dict[str, list[str | float]] = {}
    for attribute in messages:
        if require("attributes.name", attribute.name) in attributes:
            raise InvalidRequestError(f"attributes.name must not repeat, got {attribute.name!r} twice")
        for number in attribute.numbers:
            check_finite(f"attributes[{attribute.name!r}].numbers", number)
        attributes[attribute.name] = [*attribute.values, *attribute.numbers]
    return attributes


def check_finite(field: str, number: float) -> float:
    """Returns a number that must be finite. Raises InvalidRequestError."""
    if not math.isfinite(number):
        raise InvalidRequestError(f"{field} must be finite, got {number}")
    return number


def read_filters(request: Any) -> Filters | None:
    """Reads the filters of a request.

    Args:
        request: message with a field ``filter``.

    Returns:
        The filters, or None if the field is not set.

    Raises:
        InvalidRequestError: a predicate is incomplete.
    """
    if not request.HasField("filter"):
        return None
    message: pb.ItemFilter = request.filter
    allow = list(message.allowed_items.item_ids) if message.HasField("allowed_items") else None
    where = [_condition(place, predicate) for place, predicate in enumerate(message.predicates)]
    return Filters(allow, list(message.denied_item_ids), where)


def _condition(place: int, predicate: pb.AttributePredicate) -> tuple[str, Any]:
    """Returns a column and the condition on its value, as Filters takes them."""
    field = f"filter.predicates[{place}]"
    column = require(f"{field}.column", predicate.column)
    fields_set = [bool(predicate.values), bool(predicate.numbers), predicate.HasField("range")]
    if sum(fields_set) != 1:
        raise InvalidRequestError(f"{field} must have exactly one of values, numbers and range, got {sum(fields_set)}")
    if predicate.values:
        return column, list(predicate.values)
    if predicate.numbers:
        return column, [check_finite(f"{field}.numbers", number) for number in predicate.numbers]
    signs = {"at_least": ">=", "at_most": "<=", "above": ">", "below": "<"}
    bounds = {
        sign: check_finite(f"{field}.range.{name}", getattr(predicate.range, name))
        for name, sign in signs.items()
        if predicate.range.HasField(name)
    }
    return column, bounds


def read_diversity(request: Any) -> Diversity | None:
    """Reads the diversity of a request.

    Args:
        request: message with a field ``diversity``.

    Returns:
        The diversity, or None if the field is not set.

    Raises:
        InvalidRequestError: a field of the strategy is missing or out of range.
    """
    if not request.HasField("diversity"):
        return None
    message: pb.Diversity = request.diversity
    strategy = STRATEGIES.get(message.strategy)
    if strategy is None:
        raise InvalidRequestError(
            f"diversity.strategy must be one of {', '.join(_strategy_names())}, got {message.strategy}"
        )
    if not 0 <= check_finite("diversity.weight", message.weight) <= 1:
        raise InvalidRequestError(f"diversity.weight must be 0..1, got {message.weight}")
    if strategy == "calibrated":
        require("diversity.column", message.column)
    if strategy == "provider":
        require("diversity.provider_column", message.provider_column)
        if message.max_per_provider < 1:
            raise InvalidRequestError(f"diversity.max_per_provider must be at least 1, got {message.max_per_provider}")
    return Diversity(
        strategy,
        message.weight,
        message.column if strategy == "calibrated" else "",
        message.provider_column if strategy == "provider" else "",
        max(message.max_per_provider, 1),
    )


def _strategy_names() -> list[str]:
    return [pb.DiversityStrategy.Name(number) for number in STRATEGIES]


def write_scored_items(items: Iterable[RecommendedItem]) -> list[pb.ScoredItem]:
    """Makes messages of an answer's items, with feature values and source scores.

    Args:
        items: best first.
    """
    return [
        pb.ScoredItem(
            item_id=item.item_id,
            title=item.title,
            score=item.score,
            feature_values=[
                pb.FeatureValue(name=name, value=value.value, missing_cause=CAUSES[value.cause])
                for name, value in item.features.items()
            ],
            source_scores=[
                pb.SourceScore(source=each.source, score=each.score, rank=each.rank) for each in item.sources
            ],
        )
        for item in items
    ]


def write_item(row: Mapping[str, Any]) -> item_pb2.Item:
    """Makes a message of an item, with the columns that have a value.

    Args:
        row: column to value, with the item's id in ``item_id``.
    """
    attributes = []
    for name, value in row.items():
        if name == "item_id" or value is None or value == [] or value == "":
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            attributes.append(item_pb2.ItemAttribute(name=name, numbers=[value]))
        else:
            values = [str(each) for each in value if each is not None] if isinstance(value, list) else [str(value)]
            attributes.append(item_pb2.ItemAttribute(name=name, values=values))
    return item_pb2.Item(item_id=row["item_id"], attributes=attributes)

"""Filters and attributes of requests, made of plain Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reckg.v1 import recommender_pb2 as pb

AttributeValue = str | float | bool | Sequence[str]


def item_filter(
    allow: Sequence[str] | None = None,
    deny: Sequence[str] = (),
    where: Mapping[str, AttributeValue | Mapping[str, float]] | None = None,
) -> pb.ItemFilter:
    """Makes a filter for the methods of `RecommenderClient` that recommend.

    Args:
        allow: ids of the only items that may be recommended; None: any item.
        deny: ids of items that are left out.
        where: conditions on the items' columns, by column: a value, several values, or bounds by >, >=, <, <=.

    Returns:
        The message for the argument ``filter``. An item must meet all conditions.

    Raises:
        KeyError: a bound has another sign.

    Example:
        >>> from serving.client import item_filter
        >>> wanted = item_filter(deny=["i10"], where={"genres": ["x", "y"], "price": {"<=": 20}})
        >>> response = client.recommend("u03", k=5, filter=wanted)
        >>> len(response.items), "i10" in [item.item_id for item in response.items]
        (5, False)
    """
    bounds = {">=": "at_least", "<=": "at_most", ">": "above", "<": "below"}
    predicates = []
    for column, wanted in (where or {}).items():
        if isinstance(wanted, Mapping):
            limits = pb.NumberRange(**{bounds[sign]: number for sign, number in wanted.items()})
            predicates.append(pb.AttributePredicate(column=column, range=limits))
        else:
            predicates += to_messages(_predicate, {column: wanted})
    allowed = None if allow is None else pb.ItemIdList(item_ids=allow)
    return pb.ItemFilter(allowed_items=allowed, denied_item_ids=deny, predicates=predicates)


def _predicate(name: str, values: Sequence[str] = (), numbers: Sequence[float] = ()) -> pb.AttributePredicate:
    return pb.AttributePredicate(column=name, values=values, numbers=numbers)


def to_messages(message: Any, values_by_name: Mapping[str, Any]) -> list[Any]:
    """Makes a message of each name and its values.

    Args:
        message: makes a message of ``name`` and ``values`` or ``numbers``.
        values_by_name: a value or several for each name. A boolean becomes "true" or "false", as in tables.
    """
    messages = []
    for name, value in values_by_name.items():
        values = [value] if isinstance(value, str | int | float) else list(value)
        values = [str(each).lower() if isinstance(each, bool) else each for each in values]
        are_numbers = bool(values) and not isinstance(values[0], str)
        messages.append(message(name=name, **{"numbers" if are_numbers else "values": values}))
    return messages

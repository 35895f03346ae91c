"""Upserted items: checks of their messages, and conversion to the store's form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reckg.bundle.bundle import Bundle
from reckg.data.schema import ColumnKinds
from reckg.v1 import item_pb2
from serving.errors import InvalidRequestError
from serving.services import messages


def parse_item(field: str, item: item_pb2.Item, kinds: ColumnKinds) -> dict[str, Any]:
    """Checks an item of a request.

    Args:
        field: place of the item in the request, for messages.
        item: the item.
        kinds: kinds of the bundle's columns.

    Returns:
        Column to value. A column of the bundle has a value of its kind; another column has its value as given.

    Raises:
        InvalidRequestError: the id is missing, a column repeats, or a value does not match its column.
    """
    messages.check_id(f"{field}.item_id", item.item_id)
    found: dict[str, Any] = {}
    for attribute in item.attributes:
        name = messages.require(f"{field}.attributes.name", attribute.name)
        if name in found:
            raise InvalidRequestError(f"{field}.attributes.name must not repeat, got {name!r} twice")
        if name == "item_id":
            raise InvalidRequestError(f"{field}.attributes.name must be a column other than 'item_id'")
        found[name] = _value(f"{field}.attributes[{name!r}]", attribute, kinds)
    return found


def _value(field: str, attribute: item_pb2.ItemAttribute, kinds: ColumnKinds) -> Any:
    name, values, numbers = attribute.name, list(attribute.values), list(attribute.numbers)
    if values and numbers:
        raise InvalidRequestError(f"{field} must have values or numbers, got both")
    if name in kinds.number or (numbers and name not in kinds.all()):
        if len(numbers) != 1:
            raise InvalidRequestError(
                f"{field} must have one number, got {len(values or numbers)} {'values' if values else 'numbers'}"
            )
        if not math.isfinite(numbers[0]):
            raise InvalidRequestError(f"{field} must be finite, got {numbers[0]}")
        return numbers[0]
    if numbers:
        raise InvalidRequestError(f"{field} must have values, got {len(numbers)} numbers")
    if name in (*kinds.text, *kinds.categorical):
        if len(values) != 1:
            raise InvalidRequestError(f"{field} must have one value, got {len(values)}")
        return values[0]
    return values


def unknown_attributes(item: Mapping[str, Any], bundle: Bundle) -> tuple[list[str], bool]:
    """Checks which attributes of an item the bundle's vectors take into account.

    Args:
        item: column to value.
        bundle: a bundle that can embed items.

    Returns:
        The unknown attributes, and whether the bundle knows any text or attribute.
    """
    inductive = bundle.embedder
    kinds = inductive.item_kinds
    edges, unknown = inductive.vocabulary.edges({name: value for name, value in item.items() if name not in kinds.text})
    text = inductive.info["text"]
    known = text is not None and any(str(item.get(name, "")).strip(". ") for name in kinds.text)
    if text is not None and text["attributes"]:
        known = known or any(item.get(name) for name in (*kinds.categorical, *kinds.list))
    return unknown, bool(len(edges)) or known

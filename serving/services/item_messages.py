"""Upserted items: from messages, checked, to what the store keeps, and on to the table that is embedded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reckg.bundle.bundle import Bundle
from reckg.data.schema import ColumnKinds
from reckg.inductive.embedder import KINDS
from reckg.v1 import item_pb2
from serving.errors import InvalidRequestError
from serving.services import messages


def item_kinds(bundle: Bundle) -> ColumnKinds:
    """The columns of the bundle's catalogue."""
    columns = bundle.manifest.get("item_columns", {})
    return ColumnKinds(**{kind: tuple(columns.get(kind, ())) for kind in KINDS})


def checked_item(field: str, item: item_pb2.Item, kinds: ColumnKinds) -> dict[str, Any]:
    """Column to value: a string, a number or a list of strings, as the bundle's columns are, or as given.

    Raises:
        InvalidRequestError: no id, a column twice, or a value that does not fit its column.
    """
    messages.raw_id(f"{field}.item_id", item.item_id)
    found: dict[str, Any] = {}
    for attribute in item.attributes:
        name = messages.required(f"{field}.attributes.name", attribute.name)
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
            raise InvalidRequestError(f"{field} must have one number, got {len(values or numbers)} {_what(values)}")
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


def _what(values: Sequence[str]) -> str:
    return "values" if values else "numbers"


def unknown_attributes(item: Mapping[str, Any], bundle: Bundle) -> tuple[list[str], bool]:
    """What of an item the bundle's vectors cannot count; and whether there is anything that they can."""
    inductive = bundle.embedder
    kinds = inductive.item_kinds
    edges, unknown = inductive.vocabulary.edges({name: value for name, value in item.items() if name not in kinds.text})
    reads = inductive.info["text"] is not None
    says = reads and any(str(item.get(name, "")).strip(". ") for name in kinds.text)
    if reads and inductive.info["text"]["attributes"]:
        says = says or any(item.get(name) for name in (*kinds.categorical, *kinds.list))
    return unknown, bool(len(edges)) or says

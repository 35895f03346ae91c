"""Attributes of new items and users as edges of the graph, and the values that the graph does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reckg.graph.number_bins import NumberBins
from reckg.graph.triples import OUTSIDE
from reckg.inductive.readout import Edges

Attributes = Mapping[str, Any]  # a column's name to a value, or to a list of values
INVERSE = "^"  # before a relation: the values are heads of triples whose tail is the new node


@dataclass(frozen=True)
class Vocabulary:
    """The graph's names.

    relations: R names, ``interact`` first. entities: name to node. item_ids: id to node. columns: relations that are
    attribute columns, in the graph or not; the values of all others are names of the outside graph.
    numbers: the bins of number columns by relation.
    """

    relations: tuple[str, ...]
    entities: Mapping[str, int]
    item_ids: Mapping[str, int]
    columns: frozenset[str]
    numbers: Mapping[str, NumberBins]

    def edges(self, attributes: Attributes, prefix: str = "") -> tuple[Edges, list[str]]:
        """Makes the edges of a node with these attributes.

        A missing value has no edge. A value is unknown (``column=value``) where it is no entity of the graph: new, or
        too rare or too common when the graph was built. A column is unknown (``column``) where the graph has no such
        relation.

        Args:
            attributes: column to a value or a list of values.
            prefix: sets users' columns apart from items', as in reckg.graph.triples.
        Returns:
            The edges, and the unknown values and columns.
        """
        found: dict[tuple[int, int], None] = {}
        unknown = []
        for column, given in attributes.items():
            values = [value for value in listed(given) if value is not None and value != ""]
            relation = prefix + column.removeprefix(INVERSE)
            if values and (relation not in self.relations or relation == self.relations[0]):
                unknown.append(column)
                continue
            for value in values:
                tail = self._node(relation, value)
                if tail is None:
                    unknown.append(f"{column}={as_text(value)}")
                else:
                    inverse = len(self.relations) * column.startswith(INVERSE)
                    found[(self.relations.index(relation) + inverse, tail)] = None
        pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
        ones = np.ones(len(pairs))
        return Edges(pairs[:, 0], pairs[:, 1], ones, ones), unknown

    def _node(self, relation: str, value: Any) -> int | None:
        if relation in self.numbers:
            try:
                place = int(self.numbers[relation].places(np.array([float(value)]))[0])
            except (TypeError, ValueError):
                return None
            return None if place < 0 else self.entities.get(f"{relation}:{self.numbers[relation].labels[place]}")
        text = as_text(value)
        if relation in self.columns:
            return self.entities.get(f"{relation}:{text}")
        return self.entities.get(f"{OUTSIDE}:{text}", self.item_ids.get(text))


def listed(value: Any) -> Sequence[Any]:
    """Returns the values of an attribute."""
    return value if isinstance(value, list | tuple) else [value]


def as_text(value: Any) -> str:
    """Writes a value as Polars does, which wrote the graph's names."""
    return str(value).lower() if isinstance(value, bool) else str(value)

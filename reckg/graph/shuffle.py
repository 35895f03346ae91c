"""A graph without its meaning: tails change places within their relation, and every degree stays.

The gain of the true graph over a shuffled one comes from the meaning of its triples, because the number of triples of
every node and relation is the same in both. Source of the question: KG4RecEval, arXiv:2404.03164.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

ROUNDS = 100  # rounds of swaps; repeats and loops that remain are counted

Triples = tuple[np.ndarray, np.ndarray, np.ndarray]  # head, relation, tail, (m,) int each


class ShuffleCounts(TypedDict):
    """Counts of a relation's shuffled triples.

    Args:
        unchanged: shared with the true graph; many if few values are common.
        repeated: surplus copies in the shuffled graph.
        loops: triples from a node to itself.
    """

    triples: int
    unchanged: int
    repeated: int
    loops: int


def shuffle_tails(triples: Triples, relations: Sequence[str], seed: int) -> tuple[np.ndarray, dict[str, ShuffleCounts]]:
    """Permutes the tails of every relation.

    Every head keeps its number of triples of each relation, every tail its degree in it. A triple that then repeats
    another, or leads from a node to itself, swaps its tail with another triple of the relation, where that helps.

    Args:
        triples: (head, relation, tail); relation i is relations[i].
        relations: their names.
        seed: of the permutations.
    Returns:
        The new tails (m,) in the order of the triples, and counts by relation.
    """
    head, relation, tail = (np.asarray(part, dtype=np.int64) for part in triples)
    stride = int(max(head.max(initial=0), tail.max(initial=0))) + 1
    rng, out = np.random.default_rng(seed), tail.copy()
    counts: dict[str, ShuffleCounts] = {}
    for number, name in enumerate(relations):
        rows = np.flatnonzero(relation == number)
        out[rows] = _permute_tails(head[rows], tail[rows], stride, rng)
        pair = head[rows] * stride + out[rows]
        counts[name] = {
            "triples": len(rows),
            "unchanged": int(np.isin(pair, head[rows] * stride + tail[rows]).sum()),
            "repeated": len(pair) - len(np.unique(pair)),
            "loops": int((head[rows] == out[rows]).sum()),
        }
    return out, counts


def _permute_tails(head: np.ndarray, tail: np.ndarray, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Permutes a relation's tails, with as few repeated pairs and loops as the swaps can reach."""
    tail = rng.permutation(tail)
    for _ in range(ROUNDS):
        bad = _mark_repeats_and_loops(head, tail, stride)
        if not bad.any():
            break
        order = rng.permutation(len(tail))
        wrong, partner = order[bad[order]], order[~bad[order]]
        n = min(len(wrong), len(partner))
        wrong, partner = wrong[:n], partner[:n]
        new = np.stack([head[wrong] * stride + tail[partner], head[partner] * stride + tail[wrong]])
        _, place, times = np.unique(new, return_inverse=True, return_counts=True)
        fresh = (times[place].reshape(new.shape) == 1) & ~np.isin(new, head * stride + tail)
        loop = (head[wrong] == tail[partner]) | (head[partner] == tail[wrong])
        swap = fresh.all(axis=0) & ~loop
        tail[wrong[swap]], tail[partner[swap]] = tail[partner[swap]], tail[wrong[swap]]
    return tail


def _mark_repeats_and_loops(head: np.ndarray, tail: np.ndarray, stride: int) -> np.ndarray:
    """Marks pairs that repeat an earlier one or lead from a node to itself: (m,) bool."""
    bad = np.ones(len(head), dtype=bool)
    bad[np.unique(head * stride + tail, return_index=True)[1]] = False
    marks: np.ndarray = bad | (head == tail)
    return marks

"""Slow, obvious versions of the model: a loop over a node's edges, a sum over all items, a formula written out.

Everything here is Python loops over lists of floats; nothing is shared with the library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]
Matrix = Sequence[Vector]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a: Vector) -> list[float]:
    norm = math.sqrt(dot(a, a))
    return [x / norm for x in a] if norm > 0 else list(a)


def row_times(a: Vector, matrix: Matrix) -> list[float]:
    """Row vector (d,) times matrix (d, e) -> (e,)."""
    return [sum(a[i] * matrix[i][j] for i in range(len(a))) for j in range(len(matrix[0]))]


def leaky(x: float) -> float:
    return x if x > 0 else 0.01 * x


def log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


# ---------------------------------------------------------------------------------------------------------------------
# The graph.
# ---------------------------------------------------------------------------------------------------------------------


def slow_propagate(
    nodes: Matrix, head: Sequence[int], tail: Sequence[int], weight: Sequence[float]
) -> list[list[float]]:
    """Every node's weighted sum over the tails of its edges."""
    out = [[0.0] * len(nodes[0]) for _ in nodes]
    for h, t, w in zip(head, tail, weight, strict=True):
        for column in range(len(nodes[0])):
            out[h][column] += w * nodes[t][column]
    return out


def slow_attention(head: Sequence[int], prior: Sequence[float], logits: Sequence[float]) -> list[float]:
    """Each edge's prior * exp(logit), divided by the sum of these over the edges of its head."""
    out = []
    for edge in range(len(head)):
        siblings = [other for other in range(len(head)) if head[other] == head[edge]]
        total = sum(prior[other] * math.exp(logits[other]) for other in siblings)
        out.append(prior[edge] * math.exp(logits[edge]) / total)
    return out


def slow_transr_logit(head: Vector, tail: Vector, relation: Vector, projection: Matrix) -> float:
    """(W t) . tanh(W h + e)."""
    projected = row_times(head, projection)
    return dot(row_times(tail, projection), [math.tanh(p + e) for p, e in zip(projected, relation, strict=True)])


def slow_transr_distance(head: Vector, tail: Vector, relation: Vector, projection: Matrix) -> float:
    """|W h + e - W t|^2, each vector projected by itself."""
    h, t = row_times(head, projection), row_times(tail, projection)
    return sum((a + e - b) ** 2 for a, e, b in zip(h, relation, t, strict=True))


def slow_aggregate(
    kind: str, node: Vector, neighbourhood: Vector, joined: tuple[Matrix, Vector], product: tuple[Matrix, Vector]
) -> list[float]:
    """One node's new vector; joined and product are (weight (out, in), bias (out,))."""
    if kind == "sum":
        return list(neighbourhood)
    both = [a + b for a, b in zip(node, neighbourhood, strict=True)]
    out = [leaky(dot(row, both) + bias) for row, bias in zip(*joined, strict=True)]
    if kind == "bi-interaction":
        times = [a * b for a, b in zip(node, neighbourhood, strict=True)]
        out = [o + leaky(dot(row, times) + bias) for o, row, bias in zip(out, *product, strict=True)]
    return unit(out)


# ---------------------------------------------------------------------------------------------------------------------
# The losses.
# ---------------------------------------------------------------------------------------------------------------------


def slow_softmax_loss(scores: Matrix, target: Sequence[int]) -> float:
    """Mean of -log(exp(s_target) / sum of exp(s)), one row of scores for each interaction."""
    return sum(log_sum_exp(row) - row[item] for row, item in zip(scores, target, strict=True)) / len(target)


def slow_sampled_softmax_loss(
    positive: Vector, negative: Matrix, is_target: Sequence[Sequence[bool]], log_probability: Vector
) -> float:
    """The positive among the samples that are not it, each sample's score less the log of its expected count."""
    total = 0.0
    for row, score in enumerate(positive):
        others = [
            value - log_p
            for value, hit, log_p in zip(negative[row], is_target[row], log_probability, strict=True)
            if not hit
        ]
        total += log_sum_exp([score, *others]) - score
    return total / len(positive)


def slow_pair_loss(better: Vector, worse: Vector) -> float:
    """Mean of -log sigmoid(better - worse): BPR's loss, and TransR's over negated distances."""
    return sum(-math.log(1 / (1 + math.exp(b - a))) for a, b in zip(better, worse, strict=True)) / len(better)


def slow_text_alignment_loss(text: Matrix, node: Matrix, temperature: float) -> float:
    scores = [[dot(unit(t), unit(n)) / temperature for n in node] for t in text]
    across = [[scores[row][column] for row in range(len(node))] for column in range(len(node))]
    diagonal = list(range(len(node)))
    return (slow_softmax_loss(scores, diagonal) + slow_softmax_loss(across, diagonal)) / 2


def slow_l2_loss(*vectors: Matrix) -> float:
    return sum(sum(dot(row, row) / 2 for row in rows) / len(rows) for rows in vectors)

"""Reading out a node: an edge that is its tail's first of the kind changes the shares of the tail's other edges."""

from __future__ import annotations

import numpy as np
import pytest

from reckg.inductive.readout import Edges, Readout

SHARE = 0.7  # of the interactions in a node's attention
LOGIT = {"interaction": 0.9, "other": -0.4}  # as the tail sees the edge


def weighted_softmax(priors: list[float], logits: list[float]) -> np.ndarray:
    scaled = np.array(priors) * np.exp(logits)
    return scaled / scaled.sum()


def read_out(kind: str, present: list[float]) -> float:
    """The weight of one new edge of this kind to a node that has edges of the other kind with these logits."""
    logits = np.zeros(4, dtype=np.float32)
    logits[2], logits[3] = LOGIT["interaction"], LOGIT["other"]  # the inverses of two relations
    total = np.log(np.exp(present).mean()) if present else 0.0
    counts = {"interaction": 0, "other": 0, "other" if kind == "interaction" else "interaction": len(present)}
    arrays = {
        "layers": np.array([[[1.0, 0.0]]], dtype=np.float32),
        "interactions": np.array([counts["interaction"]], dtype=np.float32),
        "others": np.array([counts["other"]], dtype=np.float32),
        "log_total": np.array([total], dtype=np.float32),
        "relation_logit": logits,
    }
    readout = Readout(arrays, 2, "sum", "last", SHARE)
    one = np.ones(1)
    edges = Edges(np.array([0 if kind == "interaction" else 1]), np.array([0]), one, one)
    return float(readout.layers(np.zeros(2, dtype=np.float32), edges)[1, 0])


@pytest.mark.parametrize(("kind", "prior"), [("interaction", SHARE), ("other", 1 - SHARE)])
def test_a_first_edge_of_its_kind_takes_its_share_from_the_edges_of_the_other_kind(kind: str, prior: float) -> None:
    """The tail's attention is computed anew with the edge, as training would."""
    present = [0.3, -0.2, 1.1]
    left = (1 - prior) / len(present)
    share = weighted_softmax([left] * len(present) + [prior], [*present, LOGIT[kind]])[-1]
    assert read_out(kind, present) == pytest.approx(np.sqrt(share), rel=1e-5)


@pytest.mark.parametrize("kind", ["interaction", "other"])
def test_the_only_edge_of_a_node_has_all_its_attention(kind: str) -> None:
    assert read_out(kind, []) == pytest.approx(1.0)

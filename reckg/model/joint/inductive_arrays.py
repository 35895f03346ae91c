"""The arrays that read out a node outside the graph: parts of a trained model and a graph, as named NumPy arrays."""

from __future__ import annotations

import numpy as np
import torch

from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from reckg.model.linear.spectral import Spectral
from reckg.model.sparse.message_passing import propagate


@torch.no_grad()
def inductive_parts(
    model: JointModel, spectral: Spectral | None, tensors: GraphTensors, interactions: np.ndarray
) -> dict[str, np.ndarray]:
    """Collects the arrays of reckg.inductive.readout and reckg.inductive.embedder.

    Args:
        model: trained.
        spectral: the linear part beside it, or None.
        tensors: the graph, with its present attention.
        interactions: (n_items,) summed weights of the interactions of each item that the graph was built from.
    Returns:
        Arrays by name.
    """
    training = model.training
    model.eval()
    graph, n_users = tensors.graph, model.n_users
    order = np.roll(np.arange(n_users, graph.n_nodes), graph.n_entities)  # entities, then items: new ones can follow
    others = np.bincount(graph.head[graph.relation % graph.n_relations != 0], minlength=graph.n_nodes)
    parts = {
        "layers": np.stack([nodes[order] for nodes in _layers(model, tensors)]),
        "interactions": np.concatenate([np.zeros(graph.n_entities), interactions]).astype(np.float32),
        "others": others[order].astype(np.float32),
    }
    parts |= {name: tensor.cpu().numpy() for name, tensor in model.propagation.state_dict().items()}
    if model.text is not None:
        parts |= {name: p.cpu().numpy() for name, p in model.state_dict().items() if name.startswith("text_")}
    if tensors.logits is not None:
        if model.attention == "relation":
            parts["relation_logit"] = model.relation_logit.cpu().numpy()
        else:
            parts |= {f"transr.{name}": p.cpu().numpy() for name, p in model.transr.state_dict().items()}
        total = _log_totals(graph.head, tensors.logits.cpu().numpy(), graph.prior, graph.n_nodes)
        parts["log_total"] = total[order].astype(np.float32)
    if model.first_row == 0:
        parts["user_inputs"] = (model.embedding[:n_users] * model.known[:n_users]).cpu().numpy()
    own = np.flatnonzero((graph.head < n_users) & (graph.relation != 0))
    parts["user_edges.indptr"] = np.concatenate([[0], np.cumsum(np.bincount(graph.head[own], minlength=n_users))])
    parts["user_edges.relation"], parts["user_edges.tail"] = (
        graph.relation[own],
        np.argsort(order)[graph.tail[own] - n_users],
    )
    if spectral is not None and spectral.joins:
        parts |= _linear_parts(spectral, np.argsort(order), n_users)
    model.train(training)
    return {name: np.ascontiguousarray(part) for name, part in parts.items()}


def _linear_parts(spectral: Spectral, place: np.ndarray, n_users: int) -> dict[str, np.ndarray]:
    """Collects the arrays that add a new node's linear part.

    Args:
        place: (n_nodes - n_users,) where each item and entity stands.
    """
    parts = {"linear.source": spectral.source, "linear.longest": np.array(spectral.longest, dtype=np.float32)}
    if spectral.content is not None:
        content = spectral.content
        tail = place[content.tail - n_users]
        sorted_again = np.lexsort((tail, content.relation))
        parts |= {
            "content.relation": content.relation[sorted_again],
            "content.tail": tail[sorted_again],
            "content.rarity": content.rarity[sorted_again],
            "content.by_feature": content.by_feature[sorted_again],
            **{f"content.{name}": getattr(content, name) for name in ("by_text", "constant", "reliability")},
        }
    if spectral.new is not None:
        parts["new.scales"] = np.array([spectral.new.own, spectral.new.linear], dtype=np.float32)
        parts["new.level"] = np.array(spectral.new.level, dtype=np.float32)
    return parts


def _layers(model: JointModel, tensors: GraphTensors) -> list[np.ndarray]:
    """Computes the nodes that each layer reads, users included: all but the last layer's output."""
    nodes = model.node_input()
    read = [nodes.cpu().numpy()]
    for aggregator in list(model.propagation.aggregators)[:-1]:
        nodes = aggregator(nodes, propagate(nodes, tensors.adjacency))
        read.append(nodes.cpu().numpy())
    return read


def _log_totals(head: np.ndarray, logits: np.ndarray, prior: np.ndarray, n_nodes: int) -> np.ndarray:
    """Computes the log of the sum of prior x exp(logit) over each head's edges.

    Returns:
        (n_nodes,); 0 for a node without edges.
    """
    with np.errstate(divide="ignore"):
        scores = logits.astype(np.float64) + np.log(prior.astype(np.float64))
    heads, first = np.unique(head, return_index=True)
    total = np.zeros(n_nodes)
    total[heads] = np.logaddexp.reduceat(scores, first) if len(heads) else 0
    return total

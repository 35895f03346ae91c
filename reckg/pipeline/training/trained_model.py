"""A run's trained model, and the vectors that it gives over a graph."""

from __future__ import annotations

from pathlib import Path

import torch

from reckg.config.run_config import Config
from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.embeddings import Embeddings
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from reckg.model.linear.spectral import load_spectral
from reckg.model.training.checkpoint import load_tensors
from reckg.model.training.train import load_trained_state
from reckg.pipeline.run.folder import Prepared, n_threads
from reckg.pipeline.training.model_inputs import build_model, pick_device


def trained_model(config: Config, run: Path, prepared: Prepared, trained_on: KnowledgeGraph) -> JointModel:
    """Loads the model of the run's best epoch, on its device.

    Args:
        trained_on: the graph of the state train.
    """
    model = untrained_model(config, run, prepared, trained_on)
    load_weights(model, run)
    return model


def untrained_model(config: Config, run: Path, prepared: Prepared, trained_on: KnowledgeGraph) -> JointModel:
    torch.set_num_threads(n_threads(config))
    torch.manual_seed(config.run.seed)
    return build_model(config, run, prepared, trained_on, pick_device(config))


def load_weights(model: JointModel, run: Path) -> None:
    state, _ = load_tensors(run / "model" / "model.safetensors")
    load_trained_state(model, state)
    model.spectral = load_spectral(run / "model" / "spectral.safetensors")


def embeddings_over(model: JointModel, graph: KnowledgeGraph) -> Embeddings:
    """Computes the vectors of users and items over a graph, with its attention and the linear part.

    Args:
        graph: has the model's nodes.
    Returns:
        Unit vectors.
    """
    return joined(model, model.embeddings(attended(model, graph)), graph)


def attended(model: JointModel, graph: KnowledgeGraph) -> GraphTensors:
    """Puts a graph on the model's device and gives the model the attention over it."""
    tensors = GraphTensors(graph, model.embedding.device)
    model.update_attention(tensors)
    return tensors


def joined(model: JointModel, own: Embeddings, graph: KnowledgeGraph) -> Embeddings:
    """Joins the linear part to the graph model's vectors."""
    return own if model.spectral is None else model.spectral.joined(own, graph)

"""A run's trained model, and the vectors that it gives over a graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from reckg.config.run_config import Config
from reckg.graph.knowledge_graph import KnowledgeGraph
from reckg.model.embeddings import Embeddings
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from reckg.model.linear.spectral import Spectral, load_spectral
from reckg.model.training.checkpoint import load_tensors
from reckg.model.training.train import load_trained_state
from reckg.pipeline.run.folder import Prepared, n_threads
from reckg.pipeline.training.model_inputs import build_model, pick_device


@dataclass(frozen=True)
class TrainedModel:
    """A trained graph model and the linear part beside it."""

    model: JointModel
    spectral: Spectral

    def embeddings(self, graph: KnowledgeGraph) -> Embeddings:
        """Computes the vectors of users and items over a graph, with its attention and the linear part.

        Args:
            graph: has the model's nodes.
        Returns:
            Unit vectors.
        """
        return self.spectral.joined(self.model.embeddings(self.attend(graph)), graph)

    def attend(self, graph: KnowledgeGraph) -> GraphTensors:
        """Puts a graph on the model's device and gives the model the attention over it."""
        tensors = GraphTensors(graph, self.model.embedding.device)
        self.model.update_attention(tensors)
        return tensors


def load_trained_model(config: Config, run: Path, prepared: Prepared, trained_on: KnowledgeGraph) -> TrainedModel:
    """Loads the model of the run's best epoch, on its device.

    Args:
        trained_on: the graph of the state train.
    """
    return load_weights(build_untrained_model(config, run, prepared, trained_on), run)


def build_untrained_model(config: Config, run: Path, prepared: Prepared, trained_on: KnowledgeGraph) -> JointModel:
    torch.set_num_threads(n_threads(config))
    torch.manual_seed(config.run.seed)
    return build_model(config, run, prepared, trained_on, pick_device(config))


def load_weights(model: JointModel, run: Path) -> TrainedModel:
    """Gives a model the weights of the run's best epoch."""
    state, _ = load_tensors(run / "model" / "model.safetensors")
    load_trained_state(model, state)
    return TrainedModel(model, load_spectral(run / "model" / "spectral.safetensors"))

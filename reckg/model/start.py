"""Where training starts: ID embeddings from the spectrum of the training graph.

Propagation keeps what lies along the graph's leading eigenvectors, so that these are where trained embeddings end up
near; starting there saves epochs, most on sparse data.
"""

from __future__ import annotations

import torch

from reckg.model.graph_tensors import GraphTensors
from reckg.model.joint_model import JointModel
from reckg.model.message_passing import propagate

ROUNDS = 16  # of subspace iteration: about the leading eigenvectors are enough
SCALE = 0.1  # standard deviation of the items' embeddings, as at a random start
NOISE = 0.1  # what is kept of the random start


@torch.no_grad()
def start_from_spectrum(model: JointModel, tensors: GraphTensors) -> None:
    """Sets the ID embeddings to the leading eigenvectors of the propagation matrix, times the roots of the eigenvalues.

    The matrix has eigenvalues within -1 and 1; one is added, so that the iteration turns to the positive ones.
    Source: subspace iteration, Saad 2011, Numerical Methods for Large Eigenvalue Problems, section 5.1.
    """
    dim = min(model.embedding.shape[1], tensors.graph.n_nodes)
    vectors = torch.randn(tensors.graph.n_nodes, dim, device=model.embedding.device)
    for _ in range(ROUNDS):
        vectors, _ = torch.linalg.qr(vectors + propagate(vectors, tensors.adjacency))
    values, rotation = torch.linalg.eigh(vectors.T @ propagate(vectors, tensors.adjacency))
    vectors = vectors @ (rotation * values.clamp(min=0).sqrt())
    spread = vectors[model.n_users : model.n_users + model.n_items].std().clamp(min=1e-12)
    model.embedding.mul_(NOISE)
    model.embedding[:, :dim].add_(vectors[model.first_row :], alpha=float(SCALE / spread))

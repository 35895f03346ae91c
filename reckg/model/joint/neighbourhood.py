"""Training on sampled neighbourhoods: a step's memory depends on its batch, not on the graph.

From the nodes that a step needs, DGL samples at most ``fanout`` edges of each kind (interactions, all others) for every
node, layer by layer (GraphSAGE, arXiv:1706.02216). The two kinds are sampled apart because a popular item has far more
readers than attributes. The weights of a node's sampled edges of a kind are scaled to the sum over all its edges of
that kind, so that with every edge sampled the result is the whole graph's. DGL samples on the CPU. The sums are
torch's embedding bags and run on the model's device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Bags
from reckg.model.joint.joint_model import JointModel
from reckg.model.joint.kgat import Layers
from reckg.model.sparse.dgl_compat import dgl
from reckg.model.sparse.sampled_rows import SampledRows, places

KINDS = ("interaction", "attribute")


@dataclass(frozen=True)
class Neighbourhood:
    """The part of the graph that a step sees.

    Args:
        nodes: (m,) int64: the seeds, then the nodes sampled from hop to hop, then nodes that lend only their input.
        hops: for each layer, first to last, the bags of the first nodes over the nodes before the layer.
    """

    nodes: torch.Tensor
    n_seeds: int
    hops: list[list[Bags]]


@dataclass(frozen=True)
class SampledForward:
    """The vectors that the loss reads, looked up by the graph's own numbers.

    Args:
        layers: nodes of the layers, by node.
        items: unit vectors by item_idx.
        text: projected texts by item_idx, or None without text.
        ids: rows of the ID table by node.
    """

    layers: Layers[SampledRows]
    items: SampledRows
    text: SampledRows | None
    ids: SampledRows


class NeighbourSampler:
    """Samples neighbourhoods of a graph and runs a model on them.

    Args:
        tensors: the graph.
        fanout: most sampled edges of a kind.
        generator: seeds the samples.
    Attributes:
        rows: after a forward, the rows of the model's ID table that it read, as a leaf that gets the gradient. The
            table itself gets none.
        row_ids: their places in the table.
    """

    rows: torch.Tensor
    row_ids: torch.Tensor

    def __init__(self, tensors: GraphTensors, fanout: int, generator: torch.Generator) -> None:
        self.tensors, self.fanout, self.generator = tensors, fanout, generator
        self.n_nodes = tensors.graph.n_nodes
        head, tail = tensors.head.cpu(), tensors.tail.cpu()
        is_interaction = tensors.relation.cpu() % tensors.graph.n_relations == 0
        self._edge = {kind: torch.nonzero(is_interaction == (kind == KINDS[0])).squeeze(1).int() for kind in KINDS}
        formats = {}
        for kind, edge in self._edge.items():
            counts = torch.bincount(head[edge], minlength=self.n_nodes)
            start = F.pad(counts.cumsum(0), (1, 0)).int()
            formats["node", kind, "node"] = ("csc", (start, tail[edge].int(), torch.arange(len(edge)).int()))
        self._graph = dgl.heterograph(formats, num_nodes_dict={"node": self.n_nodes}, idtype=torch.int32)
        self._weighed: torch.Tensor | None = None

    def sample(self, seeds: torch.Tensor, inputs: torch.Tensor, layers: int) -> Neighbourhood:
        """Samples the neighbourhood of the seeds.

        Args:
            seeds: (b,) nodes, repeats allowed.
            inputs: (b,) nodes without a neighbourhood, repeats allowed.
            layers: number of hops.
        """
        self._weigh()
        seeds = torch.unique(seeds.cpu())
        dgl.seed(int(torch.randint(2**31 - 1, (1,), generator=self.generator)))
        threads = dgl.utils.get_num_threads()
        dgl.utils.set_num_threads(1)  # several threads would share the nodes by chance
        try:
            sampler = dgl.dataloading.NeighborSampler([self.fanout] * layers)
            nodes, _, blocks = sampler.sample_blocks(self._graph, {"node": seeds.int()})
        finally:
            dgl.utils.set_num_threads(threads)
        nodes = nodes.long()
        there = torch.zeros(self.n_nodes, dtype=torch.bool)
        there[nodes] = True
        inputs = torch.unique(inputs.cpu())
        device = self.tensors.head.device
        nodes = torch.cat([nodes, inputs[~there[inputs]]]).to(device)
        return Neighbourhood(nodes, len(seeds), [self._bags(block, device) for block in blocks])

    def forward(
        self, model: JointModel, seeds: torch.Tensor, inputs: torch.Tensor, encode: torch.Tensor | None
    ) -> SampledForward:
        """Runs the model for the seeds.

        Args:
            seeds: nodes; they hold every item that the loss scores.
            inputs: nodes whose input is enough.
            encode: (k,) items of the seeds whose text a trained encoder encodes anew.
        Raises:
            ValueError: the edge weights train. They change in every step, and depend on all edges.
        """
        if model.attention == "relation":
            raise ValueError("attention 'relation' trains on the whole graph alone: take another one here")
        part = self.sample(seeds, inputs, len(model.propagation.aggregators))
        nodes = part.nodes
        place = places(nodes, self.n_nodes)
        with_row = torch.nonzero(nodes >= model.first_row).squeeze(1)
        self.row_ids = nodes[with_row] - model.first_row
        self.rows = model.embedding.detach()[self.row_ids].requires_grad_()
        kept = self.rows * model.draw_ids(nodes[with_row])
        vectors = kept.new_zeros(len(nodes), kept.shape[1]).index_copy(0, with_row, kept)
        text = self._text(model, nodes, encode)
        if text is not None:
            items = torch.nonzero(_is_item(model, nodes)).squeeze(1)
            vectors = vectors.index_add(0, items, text.values)
        layers = model.propagation.apply_hops(vectors, [_Hop(bags) for bags in part.hops])
        combined = model.propagation.combine_layers([values[: part.n_seeds] for values in layers.nodes])
        return SampledForward(
            Layers(*([SampledRows(values, place) for values in of] for of in (layers.nodes, layers.sums))),
            SampledRows(F.normalize(combined, dim=1), place, -model.n_users),
            text,
            SampledRows(self.rows, places(nodes[with_row], self.n_nodes)),
        )

    def _text(self, model: JointModel, nodes: torch.Tensor, encode: torch.Tensor | None) -> SampledRows | None:
        """Projects the texts of the items among the nodes."""
        if model.text is None:
            return None
        items = nodes[_is_item(model, nodes)] - model.n_users
        place = places(items, model.n_items)
        projected = model.project_text(model.text.vectors[items])
        if encode is not None and model.text.trains:
            encoded = model.project_text(model.text.encode(encode))
            projected = projected.index_copy(0, place[encode], encoded)
        return SampledRows(projected, place)

    def _weigh(self) -> None:
        """Takes over the graph's edge weights, once after each change."""
        weights = self.tensors.adjacency.weights
        if weights is self._weighed:
            return
        self._weighed, on_cpu, head = weights, weights.cpu(), self.tensors.head.cpu()
        self._weight = {kind: on_cpu[edge] for kind, edge in self._edge.items()}
        self._total = {
            kind: torch.zeros(self.n_nodes).index_add(0, head[edge], self._weight[kind])
            for kind, edge in self._edge.items()
        }

    def _bags(self, block: Any, device: torch.device) -> list[Bags]:
        """Makes a block's weighted sums, a bag for each kind of edge."""
        bags = []
        head = block.dstdata[dgl.NID].long()
        for kind in KINDS:
            start, tail, order = block.adj_tensors("csc", etype=kind)
            edge = block.edges[kind].data[dgl.EID][order] if len(order) else block.edges[kind].data[dgl.EID]
            weight = self._weight[kind][edge]
            of = torch.repeat_interleave(torch.arange(len(head)), start.long().diff())
            sampled = torch.zeros(len(head)).index_add(0, of, weight)
            scale = self._total[kind][head] / sampled.clamp(min=torch.finfo(torch.float32).tiny)
            weight = weight * scale[of]
            bags.append(Bags(tail.long().to(device), start[:-1].long().to(device), weight.to(device)))
        return bags


class _Hop:
    """The sum of a hop's bags, (n, d) -> (m, d)."""

    def __init__(self, bags: list[Bags]) -> None:
        self.bags = bags

    def __call__(self, nodes: torch.Tensor) -> torch.Tensor:
        return torch.stack([bag.gather(nodes, nodes) for bag in self.bags]).sum(0)


def _is_item(model: JointModel, nodes: torch.Tensor) -> torch.Tensor:
    return (nodes >= model.n_users) & (nodes < model.n_users + model.n_items)

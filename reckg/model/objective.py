"""The training objective of one step: the recommendation loss and, where their weights ask for it, its companions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from reckg.model import losses
from reckg.model.graph_tensors import GraphTensors
from reckg.model.histories import Histories
from reckg.model.joint_model import JointModel
from reckg.model.sampling import SeenItems, TrainBatch, corrupt_tails, sample_items


@dataclass(frozen=True)
class Objective:
    """What is minimised; the names and meanings are those of the ``train`` section of the configuration.

    generator draws the samples (on the CPU); popularity (n_items,) is the sampling distribution of sampled-softmax.
    """

    loss: str
    temperature: float
    negatives: int
    popularity_correction: bool
    kg_loss: str
    kg_weight: float
    text_weight: float
    l2_weight: float
    text_batch_tokens: int
    generator: torch.Generator
    histories: Histories
    seen: SeenItems
    popularity: torch.Tensor

    def __call__(
        self, model: JointModel, tensors: GraphTensors, batch: TrainBatch
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The total, and the value of each named part before its weight."""
        text_items = self._text_items(model, batch)
        text = None if text_items is None else model.text_nodes(text_items)
        layers = model(tensors, text)
        nodes = model.vectors(layers)
        users = F.normalize(model.user_readout(layers, batch.user, self.histories.neighbourhoods(batch.row)), dim=1)
        parts = {self.loss: (1.0, self._recommendation(model, users, nodes, batch))}
        if self.kg_loss != "none":
            knowledge = self._knowledge_graph(model, tensors, layers.nodes[0], len(batch.item))
            parts[f"kg_{self.kg_loss}"] = (self.kg_weight, knowledge)
        if self.text_weight > 0 and text is not None and text_items is not None and len(text_items) > 1:
            projected = text[text_items]
            anchor = nodes[model.n_users + text_items][:, : projected.shape[1]]
            parts["text"] = (self.text_weight, losses.text_alignment_loss(projected, anchor, self.temperature))
        if self.l2_weight > 0:
            users, items = model.embedding[batch.user], model.embedding[model.n_users + batch.item]
            parts["l2"] = (self.l2_weight, losses.l2_loss(users, items))
        total = torch.stack([weight * value for weight, value in parts.values()]).sum()
        return total, {name: value.item() for name, (_, value) in parts.items()}

    def _text_items(self, model: JointModel, batch: TrainBatch) -> torch.Tensor | None:
        """Items of the batch, drawn at random, whose text is worked on in this step.

        Their texts have at most text_batch_tokens tokens together; the first drawn is taken in any case.
        """
        if model.text is None or not (model.text.trains or self.text_weight > 0):
            return None
        lengths = torch.from_numpy(model.text.tokens.lengths)
        items = torch.unique(batch.item.cpu())
        items = items[lengths[items] > 0]
        items = items[torch.randperm(len(items), generator=self.generator)]
        fits = lengths[items].cumsum(0) <= self.text_batch_tokens
        fits[:1] = True
        return items[fits].to(batch.item.device)

    def _recommendation(
        self, model: JointModel, users: torch.Tensor, nodes: torch.Tensor, batch: TrainBatch
    ) -> torch.Tensor:
        items = nodes[model.n_users : model.n_users + model.n_items]
        if self.loss == "softmax":
            return losses.softmax_loss(users @ items.T / self.temperature, batch.item)
        positive = (users * items[batch.item]).sum(1) / self.temperature
        if self.loss == "bpr":
            negative = self.seen.sample_negatives(batch.user.cpu(), self.generator).to(users.device)
            return losses.bpr_loss(positive, (users * items[negative]).sum(1) / self.temperature)
        if self.loss != "sampled-softmax":
            raise ValueError(f"loss must be softmax, sampled-softmax or bpr, got {self.loss!r}")
        sampled, log_count = (x.to(users.device) for x in sample_items(self.popularity, self.negatives, self.generator))
        negative_scores = users @ items[sampled].T / self.temperature
        correction = log_count if self.popularity_correction else None
        return losses.sampled_softmax_loss(positive, negative_scores, batch.item[:, None] == sampled, correction)

    def _knowledge_graph(
        self, model: JointModel, tensors: GraphTensors, nodes: torch.Tensor, batch_size: int
    ) -> torch.Tensor:
        edges = torch.randint(len(tensors.head), (batch_size,), generator=self.generator).to(nodes.device)
        head, relation, tail = tensors.head[edges], tensors.relation[edges], tensors.tail[edges]
        if self.kg_loss == "relation":
            return losses.relation_loss(model.relation_logits(nodes, head, tail), relation)
        if self.kg_loss != "transr":
            raise ValueError(f"kg_loss must be none, transr or relation, got {self.kg_loss!r}")
        corrupt = corrupt_tails(tail.cpu(), model.n_users, len(nodes), self.generator).to(nodes.device)
        return losses.transr_loss(
            model.transr.distance(nodes, head, relation, tail), model.transr.distance(nodes, head, relation, corrupt)
        )

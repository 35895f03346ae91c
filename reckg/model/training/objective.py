"""The training objective of a step: the recommendation loss and the weighted losses beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Bags, Groups, Histories, WithoutTargets
from reckg.model.joint.joint_model import JointModel
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.sparse.sampled_rows import SampledRows
from reckg.model.text.encoder import TextEncoder
from reckg.model.training import losses
from reckg.model.training.batches import SeenItems, TrainBatch, corrupt_tails, sample_items

Rows = torch.Tensor | SampledRows
SHARING = 1024  # examples that are scored against the same sampled items
SCORES_AT_ONCE = 1 << 23  # scores of a step. More are made block by block, and anew for the gradient
BLOCKS_AT_ONCE = {"cuda": 8}  # blocks at once, to save launches. On a CPU one block stays in the cache


@dataclass(frozen=True)
class Draw:
    """The random choices of a step.

    Args:
        text_items: items whose text is worked on.
        negatives: items, as the loss needs them.
        log_count: the log of the expected count of each negative.
        facts: head, relation, tail and a corrupted tail, (b,) nodes each.
    """

    text_items: torch.Tensor | None
    negatives: torch.Tensor | None
    log_count: torch.Tensor | None
    facts: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None] | None


@dataclass(frozen=True)
class Objective:
    """The function to minimise. Names and meanings are those of the configuration's ``train`` section.

    Args:
        text_batch_tokens: tokens of a step; 0: as many as cost as much as the graph's part of the step.
        generator: draws the samples, on the CPU.
        popularity: (n_items,) the sampling distribution of sampled-softmax.
        sampler: the part of the graph that a step sees; None: all.
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
    sampler: NeighbourSampler | None = None

    def __call__(
        self, model: JointModel, tensors: GraphTensors, batch: TrainBatch
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Computes the loss of a batch.

        Returns:
            The total, and the value of each named part before its weight.
        """
        draw, around = self._draw(model, tensors, batch), self.histories.neighbourhoods(batch.row, batch.groups)
        text: Any = None
        items: Rows
        if self.sampler is None:
            text = None if draw.text_items is None else model.text_nodes(draw.text_items)
            layers = model(tensors, text)
            items = model.item_vectors(layers)
        else:
            seeds, inputs = self._nodes(model, batch, draw, around)
            seen = self.sampler.forward(model, seeds, inputs, draw.text_items)
            layers, items, text = seen.layers, seen.items, seen.text
        users = F.normalize(model.user_readout(layers, batch.user[batch.groups.first], around), dim=1)
        parts = {self.loss: (1.0, self._recommendation(users, items, batch, draw))}
        if draw.facts is not None:
            parts[f"kg_{self.kg_loss}"] = (self.kg_weight, self._knowledge_graph(model, layers.nodes[0], draw.facts))
        if self.text_weight > 0 and draw.text_items is not None and len(draw.text_items) > 1:
            projected = text[draw.text_items]
            anchor = items[draw.text_items][:, : projected.shape[1]]
            parts["text"] = (self.text_weight, losses.text_alignment_loss(projected, anchor, self.temperature))
        if self.l2_weight > 0:
            ids = model.id_rows() if self.sampler is None else seen.ids
            with_ids = [model.n_users + batch.item] if model.first_row else [batch.user, model.n_users + batch.item]
            parts["l2"] = (self.l2_weight, losses.l2_loss(*(ids[nodes] for nodes in with_ids)))
        total = torch.stack([weight * value for weight, value in parts.values()]).sum()
        return total, {name: value.item() for name, (_, value) in parts.items()}

    def _text_items(self, model: JointModel, batch: TrainBatch) -> torch.Tensor | None:
        """Chooses the items of the batch whose text is worked on: a random one, and those of the next longer texts.

        The longest is followed by the shortest. This keeps padding small and gives every text its turn. Together they
        have at most text_batch_tokens tokens. The first is taken in any case.
        """
        if model.text is None or not (model.text.trains or self.text_weight > 0):
            return None
        lengths = torch.from_numpy(model.text.tokens.lengths)
        items: torch.Tensor = torch.unique(batch.item.cpu())
        items = items[lengths[items] > 0]
        items = items[torch.randperm(len(items), generator=self.generator)]
        first = int(torch.randint(max(len(items), 1), (), generator=self.generator))
        items = items[lengths[items].argsort(stable=True)].roll(-first)
        tokens = self.text_batch_tokens or self._affordable_tokens(model, model.text, len(batch.groups.first))
        fits = lengths[items].cumsum(0) <= tokens
        fits[:1] = True
        chosen: torch.Tensor = items[fits].to(batch.item.device)
        return chosen

    def _affordable_tokens(self, model: JointModel, text: TextEncoder, n_rows: int) -> int:
        """Counts the tokens that take as many multiplications as the graph's part of a step.

        With sampled neighbourhoods only the scores are counted.

        Args:
            n_rows: rows of scores of the step.
        """
        candidates = {"softmax": model.n_items, "bpr": 1}.get(self.loss, self.negatives)
        of_node = 3 * n_rows * candidates  # products of vectors: the value and two gradients
        if self.sampler is None:
            of_node += 2 * len(model.propagation.aggregators) * len(self.histories.tensors.head)
            of_node += 4 * text.dim * model.n_items  # projection and gate: the value and the weights' gradient
        return of_node * model.embedding.shape[1] // text.work_per_token

    def _draw(self, model: JointModel, tensors: GraphTensors, batch: TrainBatch) -> Draw:
        """Makes the random choices of a step."""
        device, negatives, log_count, facts = batch.item.device, None, None, None
        text_items = self._text_items(model, batch)
        if self.loss == "bpr":
            negatives = self.seen.sample_negatives(batch.user.cpu(), self.generator).to(device)
        elif self.loss == "sampled-softmax":
            groups = math.ceil(len(batch.groups.first) / _sharing(batch.groups))
            drawn, log_count = sample_items(self.popularity, self.negatives * groups, self.generator)
            negatives, log_count = drawn.to(device), (log_count - math.log(groups)).to(device)
        elif self.loss != "softmax":
            raise ValueError(f"loss must be softmax, sampled-softmax or bpr, got {self.loss!r}")
        if self.kg_loss != "none":
            facts = self._facts(model, tensors, len(batch.item))
        return Draw(text_items, negatives, log_count, facts)

    def _facts(
        self, model: JointModel, tensors: GraphTensors, n: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Draws n facts of the graph, with a corrupted tail for TransR."""
        if self.kg_loss not in ("transr", "relation"):
            raise ValueError(f"kg_loss must be none, transr or relation, got {self.kg_loss!r}")
        edges = torch.randint(len(tensors.head), (n,), generator=self.generator).to(tensors.head.device)
        head, relation, tail = tensors.head[edges], tensors.relation[edges], tensors.tail[edges]
        if self.kg_loss == "relation":
            return head, relation, tail, None
        corrupt = corrupt_tails(tail.cpu(), model.n_users, tensors.graph.n_nodes, self.generator)
        return head, relation, tail, corrupt.to(tail.device)

    def _nodes(
        self, model: JointModel, batch: TrainBatch, draw: Draw, around: list[Bags] | list[WithoutTargets]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Lists the nodes that a step reads.

        Returns:
            Nodes whose vectors of every layer count, and nodes whose input is enough.
        """
        if draw.negatives is None:
            raise ValueError("softmax scores every item: use sampled-softmax or bpr on sampled neighbourhoods")
        seeds, inputs = [model.n_users + batch.item, model.n_users + draw.negatives], [batch.user]
        for part in around:
            seeds += [part.nodes] if isinstance(part, Bags) else [part.user]
        if draw.facts is not None:
            head, _, tail, corrupt = draw.facts
            inputs += [head, tail] if corrupt is None else [head, tail, corrupt]
        return torch.cat(seeds), torch.cat(inputs)

    def _recommendation(self, users: torch.Tensor, items: Rows, batch: TrainBatch, draw: Draw) -> torch.Tensor:
        """Computes the recommendation loss of (m, d) users and all or sampled items."""
        users = users / self.temperature
        if self.loss == "softmax":
            assert isinstance(items, torch.Tensor)
            return losses.softmax_loss(users, items, batch.item, batch.groups.first, batch.weight)
        assert draw.negatives is not None
        of_rows = users.index_select(0, batch.groups.of)
        positive = (of_rows * items[batch.item]).sum(1)
        if self.loss == "bpr":
            return losses.bpr_loss(positive, (of_rows * items[draw.negatives]).sum(1), batch.weight)
        assert draw.log_count is not None
        weight = torch.ones_like(positive) if batch.weight is None else batch.weight
        item, positive, weight = (
            _in_rows(values, batch.groups, filler)
            for values, filler in ((batch.item, -1), (positive, -torch.inf), (weight, 0.0))
        )
        candidates = _split(self.negatives, items[draw.negatives], draw.negatives, draw.log_count)
        examples = _split(_sharing(batch.groups), users, item, positive, weight)
        blocks = [(*c, *e) for c, e in zip(candidates, examples, strict=True)]
        return _in_blocks(self._sampled_softmax, blocks, BLOCKS_AT_ONCE.get(users.device.type, 1)) / weight.sum()

    def _sampled_softmax(
        self,
        negative: torch.Tensor,
        sampled: torch.Tensor,
        log_count: torch.Tensor,
        users: torch.Tensor,
        item: torch.Tensor,
        positive: torch.Tensor,
        weight: torch.Tensor,
    ) -> torch.Tensor:
        """Computes the loss of a block, or of several stacked blocks."""
        is_target = item[..., :1] == sampled.unsqueeze(-2)
        for column in item.unbind(-1)[1:]:
            is_target |= column.unsqueeze(-1) == sampled.unsqueeze(-2)
        correction = log_count if self.popularity_correction else None
        return losses.sampled_softmax_loss(positive, users @ negative.mT, is_target, correction, weight)

    def _knowledge_graph(self, model: JointModel, nodes: Any, facts: tuple[Any, Any, Any, Any]) -> torch.Tensor:
        """Computes the loss of facts."""
        head, relation, tail, corrupt = facts
        if self.kg_loss == "relation":
            return losses.relation_loss(model.relation_logits(nodes, head, tail), relation)
        return losses.transr_loss(
            model.transr.distance(nodes, head, relation, tail), model.transr.distance(nodes, head, relation, corrupt)
        )


def _sharing(groups: Groups) -> int:
    """Counts the groups that share their sampled items."""
    return max(1, SHARING // groups.largest)


def _split(n: int, *tensors: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(*(tensor.split(n) for tensor in tensors), strict=True))


def _in_blocks(loss: Callable[..., torch.Tensor], blocks: list[tuple[torch.Tensor, ...]], stack: int) -> torch.Tensor:
    """Sums a loss over blocks of examples, few scores at a time.

    Args:
        blocks: each (candidates, ..., examples). Only the last may be smaller.
        stack: blocks that are computed at once.
    """
    if sum(len(block[0]) * len(block[-1]) for block in blocks) > SCORES_AT_ONCE:
        loss = partial(checkpoint, loss, use_reentrant=False, preserve_rng_state=False)
    if stack > 1:
        *whole, last = blocks
        several = [whole[start : start + stack] for start in range(0, len(whole), stack)]
        blocks = [*(tuple(torch.stack(part) for part in zip(*stacked, strict=True)) for stacked in several), last]
    return torch.stack([loss(*block) for block in blocks]).sum()


def _in_rows(values: torch.Tensor, groups: Groups, filler: float) -> torch.Tensor:
    """Arranges values by group.

    Args:
        values: (b,).
        filler: fills up short rows.
    Returns:
        (m, largest), a row for each group.
    """
    place = torch.arange(len(values), device=values.device) - groups.first[groups.of]
    return values.new_full((len(groups.first), groups.largest), filler).index_put((groups.of, place), values)

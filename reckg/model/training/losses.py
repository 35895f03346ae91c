"""The losses, each a function of tensors that returns a scalar to minimise."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

SCORES_AT_ONCE = {"cpu": 1 << 19}  # scores of the softmax at a time. This many stay in a CPU's cache


class _LogSumExp(torch.autograd.Function):
    """The weighted sum of the rows' logsumexp of scores.

    The gradients are made with the value, block by block, so that no array of all scores is ever kept.
    """

    @staticmethod
    def forward(ctx: Any, users: torch.Tensor, items: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        total, users_grad, items_grad = users.new_zeros(()), torch.empty_like(users), torch.zeros_like(items)
        block = max(1, SCORES_AT_ONCE.get(users.device.type, 1 << 23) // len(items))
        for start in range(0, len(users), block):
            rows = slice(start, start + block)
            scores = users[rows] @ items.T
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
            top = scores.amax(1, keepdim=True)
            total_exp = scores.sub_(top).exp_().sum(1, keepdim=True)
            own = weight[rows].unsqueeze(1)
            total += (own * (top + total_exp.log())).sum()
            scale = own / total_exp
            users_grad[rows] = (scores @ items) * scale
            items_grad += scores.T @ (users[rows] * scale)
        ctx.save_for_backward(users_grad, items_grad)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        users_grad, items_grad = ctx.saved_tensors
        return users_grad * gradients[0], items_grad * gradients[0], None


def softmax_loss(
    users: torch.Tensor,
    items: torch.Tensor,
    target: torch.Tensor,
    first: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Computes the mean cross-entropy of targets among all items. Targets of the same user share a row of scores.

    Args:
        users: (m, d), divided by the temperature.
        items: (n_items, d).
        target: (b,) item_idx, user by user.
        first: (m,) where each user's targets begin. Every user has at least one.
        weight: (b,) of the targets. None: all 1.
    Returns:
        A scalar.
    Source: the multinomial likelihood of Mult-VAE, Liang et al., arXiv:1802.05814.
    """
    sizes = (F.pad(first[1:], (0, 1), value=len(target)) - first).to(users.dtype)
    own = F.embedding_bag(target, items, first, mode="sum", per_sample_weights=weight)
    if weight is not None:
        group = torch.repeat_interleave(torch.arange(len(first), device=first.device), sizes.long())
        sizes = torch.zeros_like(sizes).index_add(0, group, weight)
    total: torch.Tensor = _LogSumExp.apply(users, items, sizes)  # type: ignore[no-untyped-call] # torch
    return (total - (users * own).sum()) / (len(target) if weight is None else weight.sum())


def sampled_softmax_loss(
    positive: torch.Tensor,
    negative: torch.Tensor,
    is_target: torch.Tensor,
    log_probability: torch.Tensor | None,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sums cross-entropies, one per positive. The classes are the row's positives and the sampled items.

    Sampled items are corrected for their chance of being drawn. Positives are not, because they are no samples.

    Args:
        positive: (m, w) scores of a user's positives, filled up with -inf behind the first column.
        negative: (m, k) scores of the sampled items.
        is_target: (m, k) bool: the sampled item is one of the positives, and is masked.
        log_probability: (k,) log of the expected count of each sampled item, or None for no correction.
        weight: (m, w) of the positives, 0 behind the last. None: all 1.
        All may have a leading dimension of blocks, each with its own users and samples.
    Returns:
        A scalar.
    Source: Yi et al., RecSys 2019, doi:10.1145/3298689.3346996.
    """
    if log_probability is not None:
        negative = negative - log_probability.unsqueeze(-2)
    negative = negative.masked_fill(is_target, -torch.inf)
    total, absent = torch.cat([positive, negative], dim=-1).logsumexp(-1), positive == -torch.inf
    if weight is None:
        return (total * (~absent).sum(-1)).sum() - positive.masked_fill(absent, 0.0).sum()
    return (total * weight.sum(-1)).sum() - (positive.masked_fill(absent, 0.0) * weight).sum()


def bpr_loss(positive: torch.Tensor, negative: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Computes Bayesian personalised ranking over pairs.

    Args:
        positive, negative: (b,) scores.
        weight: (b,) of the pairs. None: all 1.
    Source: Rendle et al., arXiv:1205.2618.
    """
    each = F.softplus(negative - positive)
    return each.mean() if weight is None else (each * weight).sum() / weight.sum()


def transr_loss(positive_distance: torch.Tensor, negative_distance: torch.Tensor) -> torch.Tensor:
    """Computes the ranking loss of facts: a fact is nearer than a corrupted one.

    Args:
        positive_distance, negative_distance: (b,).
    Source: KGAT, arXiv:1905.07854, equation 2.
    """
    return F.softplus(positive_distance - negative_distance).mean()


def relation_loss(logits: torch.Tensor, relation: torch.Tensor) -> torch.Tensor:
    """Computes the cross-entropy of relation inference, P(r | head, tail).

    Args:
        logits: (b, n_relations).
        relation: (b,) int64.
    """
    return F.cross_entropy(logits, relation)


def text_alignment_loss(text: torch.Tensor, node: torch.Tensor, temperature: float) -> torch.Tensor:
    """Computes a contrastive loss: an item's text finds its node among the batch's nodes, and the reverse.

    Args:
        text, node: (b, d), normalised here.
        temperature: divides the cosines.
    Source: InfoNCE, van den Oord et al., arXiv:1807.03748.
    """
    scores = F.normalize(text, dim=1) @ F.normalize(node, dim=1).T / temperature
    target = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def l2_loss(*vectors: torch.Tensor) -> torch.Tensor:
    """Sums half the mean squared norm of the rows over the arguments, (b, d) each."""
    return torch.stack([v.square().sum(1).mean() / 2 for v in vectors]).sum()

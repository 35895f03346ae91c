"""The losses, each a function of tensors that returns a scalar to minimise."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

SCORES_AT_ONCE = {
    "cpu": 1 << 19
}  # of the softmax: so many stay in the cache; elsewhere, as many as one wants in memory


class _LogSumExp(torch.autograd.Function):
    """The gradients are made with the value, block by block, so that no array of all scores is ever kept."""

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


def softmax_loss(users: torch.Tensor, items: torch.Tensor, target: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of targets among all items, where the targets of a user share one row of scores.

    Args:
        users: (m, d), divided by the temperature; items: (n_items, d).
        target: (b,) item_idx, user by user; first: (m,) where each user's begin, at least one for each.
    Source: the multinomial likelihood of Mult-VAE, Liang et al., arXiv:1802.05814.
    """
    sizes = F.pad(first[1:], (0, 1), value=len(target)) - first
    own = F.embedding_bag(target, items, first, mode="sum")
    return (_LogSumExp.apply(users, items, sizes.to(users.dtype)) - (users * own).sum()) / len(target)


def sampled_softmax_loss(
    positive: torch.Tensor, negative: torch.Tensor, is_target: torch.Tensor, log_probability: torch.Tensor | None
) -> torch.Tensor:
    """The sum over all positives of their cross-entropy among those of their row and sampled items.

    The samples are corrected for how likely each was to be drawn.

    Args:
        positive: (m, w) scores of a user's positives, -inf where there are fewer than w, but not in the first column.
        negative: (m, k) scores of the sampled items.
        is_target: (m, k) bool: the sampled item is one of the positives, and is masked.
        log_probability: (k,) log of the expected count of each sampled item, or None for no correction.
        All may have one more dimension before: blocks, each with its own users and samples.
    Source: Yi et al., RecSys 2019, doi:10.1145/3298689.3346996. The positives are not corrected: they are no samples.
    """
    if log_probability is not None:
        negative = negative - log_probability.unsqueeze(-2)
    negative = negative.masked_fill(is_target, -torch.inf)
    total, absent = torch.cat([positive, negative], dim=-1).logsumexp(-1), positive == -torch.inf
    return (total * (~absent).sum(-1)).sum() - positive.masked_fill(absent, 0.0).sum()


def bpr_loss(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Bayesian personalised ranking over pairs, (b,) each. Source: Rendle et al., arXiv:1205.2618."""
    return F.softplus(negative - positive).mean()


def transr_loss(positive_distance: torch.Tensor, negative_distance: torch.Tensor) -> torch.Tensor:
    """A fact is nearer than a corrupted one, (b,) each. Source: KGAT, arXiv:1905.07854, equation 2."""
    return F.softplus(positive_distance - negative_distance).mean()


def relation_loss(logits: torch.Tensor, relation: torch.Tensor) -> torch.Tensor:
    """Relation inference P(r | head, tail): cross-entropy of logits (b, n_relations) against relation (b,)."""
    return F.cross_entropy(logits, relation)


def text_alignment_loss(text: torch.Tensor, node: torch.Tensor, temperature: float) -> torch.Tensor:
    """An item's text finds its node among the batch's and the reverse; (b, d) each, normalised here.

    Source: InfoNCE, van den Oord et al., arXiv:1807.03748.
    """
    scores = F.normalize(text, dim=1) @ F.normalize(node, dim=1).T / temperature
    target = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def l2_loss(*vectors: torch.Tensor) -> torch.Tensor:
    """Half the mean squared norm of the rows of each (b, d), summed over the arguments."""
    return torch.stack([v.square().sum(1).mean() / 2 for v in vectors]).sum()

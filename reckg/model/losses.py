"""The losses, each a function of tensors that returns a scalar to minimise."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def softmax_loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the target (b,) item_idx among all items; scores (b, n_items), divided by the temperature."""
    return F.cross_entropy(scores, target)


def sampled_softmax_loss(
    positive: torch.Tensor, negative: torch.Tensor, is_target: torch.Tensor, log_probability: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy of the positive among sampled items, corrected for how likely each was to be sampled.

    Args:
        positive: (b,) scores of the positives; negative: (b, m) scores of the sampled items.
        is_target: (b, m) bool: the sampled item is the positive itself, and is masked.
        log_probability: (m,) log of the expected count of each sampled item, or None for no correction.
    Source: Yi et al., RecSys 2019, doi:10.1145/3298689.3346996. The positive is not corrected: it is not a sample.
    """
    if log_probability is not None:
        negative = negative - log_probability
    negative = negative.masked_fill(is_target, -torch.inf)
    scores = torch.cat([positive.unsqueeze(1), negative], dim=1)
    return (scores.logsumexp(1) - positive).mean()


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

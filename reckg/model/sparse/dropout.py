"""Dropout for whole tables of node vectors, where drawing random numbers takes the most time."""

from __future__ import annotations

import torch

STEPS = 1 << 16  # number of values of 16 random bits


def dropout(nodes: torch.Tensor, share: float, training: bool) -> torch.Tensor:
    """Zeroes a share of the numbers in training and scales the others up, so that the mean stays.

    16 bits of torch's generator decide about a number, a quarter of the bits of torch's own dropout. The share is
    rounded to them. Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        nodes: (n, d).
        share: 0 <= share < 1.
        training: False: nodes as they are.
    """
    cut = round(share * STEPS)
    if not training or cut == 0:
        return nodes
    n = nodes.numel()
    drawn = torch.empty((n + 3) // 4, dtype=torch.int64, device=nodes.device).random_(-(2**63), None)
    kept = drawn.view(torch.int16)[:n].view(nodes.shape) >= cut - STEPS // 2
    return nodes * kept.to(nodes.dtype).mul_(STEPS / (STEPS - cut))

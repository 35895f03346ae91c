"""Dropout for whole tables of node vectors, where drawing takes longer than everything else that is done to them."""

from __future__ import annotations

import torch

STEPS = 1 << 16  # shares that 16 random bits can tell apart


def dropout(nodes: torch.Tensor, share: float, training: bool) -> torch.Tensor:
    """In training, nodes with a share of the numbers 0 and the others scaled up, so that the mean stays.

    16 bits of torch's generator decide about a number, a quarter of what torch's own dropout draws; the share is
    rounded to them. Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
    """
    cut = round(share * STEPS)
    if not training or cut == 0:
        return nodes
    n = nodes.numel()
    drawn = torch.empty((n + 3) // 4, dtype=torch.int64, device=nodes.device).random_(-(2**63), None)
    kept = drawn.view(torch.int16)[:n].view(nodes.shape) >= cut - STEPS // 2
    return nodes * kept.to(nodes.dtype).mul_(STEPS / (STEPS - cut))

"""AdamW that moves only the rows of a table that a step has read, for training on sampled neighbourhoods."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reckg.model.joint.neighbourhood import NeighbourSampler


class RowAdamW(torch.optim.AdamW):
    """AdamW with one sparse parameter, the table: rows that the sampler has read get a step, others none.

    A row's moments stand still between its steps, as in torch.optim.SparseAdam. The bias correction counts all steps.
    With every row read, a step is AdamW's. The state is kept as AdamW's is.

    Args:
        groups: parameter groups, as AdamW takes them.
        table: (n, d), in one of the groups.
        sampler: holds the rows that the step has read, with their gradient.
    """

    def __init__(self, groups: Any, table: nn.Parameter, sampler: NeighbourSampler, **defaults: Any) -> None:
        super().__init__(groups, **defaults)
        self.table, self.sampler = table, sampler
        zeros = torch.zeros_like(table, requires_grad=False)
        self.state[table] = {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates all parameters, and the rows of the table that have a gradient."""
        super().step(closure)
        (group,) = (g for g in self.param_groups if any(p is self.table for p in g["params"]))
        state, ids, gradient = self.state[self.table], self.sampler.row_ids, self.sampler.rows.grad
        if gradient is None:
            return
        (beta1, beta2), rate = group["betas"], group["lr"]
        state["step"] += 1
        first = state["exp_avg"][ids].lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"][ids].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        state["exp_avg"][ids], state["exp_avg_sq"][ids] = first, second
        step = state["step"].item()
        size = second.div_(1 - beta2**step).sqrt_().add_(group["eps"])
        rows = self.sampler.rows.detach().mul_(1 - rate * group["weight_decay"])
        self.table[ids] = rows.addcdiv_(first, size, value=-rate / (1 - beta1**step))

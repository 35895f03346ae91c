"""The held-out part of a run, by its kind of split."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from reckg.evaluation.protocol import HeldOut, held_out
from reckg.pipeline.run.folder import Prepared


def held_out_part(prepared: Prepared, part: Literal["valid", "test"]) -> HeldOut:
    """Collects the users of a split part, their held-out items, and the items that their lists leave out.

    Where the items are split, users without a training interaction are left out, for they have no history; and of
    their own items users are spared those of training alone: the new items of the other part stay candidates.

    Args:
        part: valid or test.
    Raises:
        DataError: the part is empty.
    """
    n_users = len(prepared.users)
    if prepared.cold_items:
        return held_out(prepared.interactions, part, ("train",), n_users, history_parts=("train",))
    before = ("train",) if part == "valid" else ("train", "valid")
    return held_out(prepared.interactions, part, before, n_users, target=prepared.target)


def new_items(prepared: Prepared, part: Literal["valid", "test"]) -> np.ndarray:
    """Lists the items of a part, for a split that keeps whole items out of training.

    Args:
        part: valid or test.
    Returns:
        (c,) int64 item_idx, sorted.
    """
    return np.sort(prepared.interactions.filter(pl.col("split") == part)["item_idx"].unique().to_numpy())

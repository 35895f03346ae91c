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


def label_weights(prepared: Prepared, part: str, held: HeldOut) -> np.ndarray:
    """Sums the weights of each held-out item's target interactions in a part.

    Returns:
        (nnz,) in the order of ``held.relevant``.
    """
    rows = prepared.interactions.filter(pl.col("split") == part)
    rows = rows.filter("taken") if "taken" in rows.columns else rows
    sums = rows.group_by("user_idx", "item_idx").agg(pl.col("weight").sum())
    users = np.repeat(held.users, np.diff(held.relevant[0]))
    pairs = pl.DataFrame({"user_idx": users, "item_idx": held.relevant[1]})
    joined = pairs.cast(dict(zip(pairs.columns, sums.select(pairs.columns).dtypes, strict=True)))
    weights: np.ndarray = joined.join(sums, on=pairs.columns, how="left", maintain_order="left")["weight"].to_numpy()
    return weights


def new_items(prepared: Prepared, part: Literal["valid", "test"]) -> np.ndarray:
    """Lists the items of a part, for a split that keeps whole items out of training.

    Args:
        part: valid or test.
    Returns:
        (c,) int64 item_idx, sorted.
    """
    return np.sort(prepared.interactions.filter(pl.col("split") == part)["item_idx"].unique().to_numpy())

"""Splits of interactions into train, valid and test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from reckg.data.ids import codes_of
from reckg.data.row_order import hash_numbers, hash_pairs
from reckg.data.schema import SPLITS, TimeKind
from reckg.data.split_checks import users_out_of_order
from reckg.data.text_table import collect
from reckg.errors import DataError

SplitKind = Literal["given", "global-time", "leave-last-out", "per-user-ratio", "cold-items"]
KINDS = ("auto", "given", "global-time", "leave-last-out", "per-user-ratio", "cold-items")
PARTS = pl.Enum(SPLITS)
_LABEL = "interactions"


@dataclass(frozen=True)
class Split:
    """A frame of interactions with its column ``split``.

    Attributes:
        cutoff_time, valid_cutoff_time: the last timestamps of training and of validation (global-time only). Later
            parts have later timestamps only.
        valid_before_test: no user has a validation interaction later than a test interaction, so that validation may
            join the history at test time.
        counts: rows, users and items by part.
        notes: sentences about counted decisions.
    """

    frame: pl.LazyFrame
    kind: SplitKind
    cutoff_time: int | None
    valid_cutoff_time: int | None
    valid_before_test: bool
    counts: dict[str, int]
    notes: tuple[str, ...]


def split_interactions(
    frame: pl.LazyFrame, *, kind: str, valid: float, test: float, time: TimeKind, seed: int, cold_share: float = 0.2
) -> Split:
    """Labels every interaction ``train``, ``valid`` or ``test``.

    Global-time, cold-items and given splits stay lazy, with the ids and times of all rows in memory once. The two
    per-user kinds sort all rows in memory.

    Args:
        frame: user_id, item_id, timestamp (unless ``time`` is none) and, for a given split, split.
        kind: one of

            - auto: given if the frame has a column ``split``, else global-time for UTC times, leave-last-out for
              ordered sequences, per-user-ratio without time
            - given: the frame's column ``split``
            - global-time: by timestamp; rows with one timestamp stay together
            - leave-last-out: a user's last interaction is test, the previous one valid, among equal times by chance;
              users with fewer than three interactions stay in train
            - per-user-ratio: random per user, independent of the order of the rows
            - cold-items: random items leave train whole, see ``cold_item_parts``
        valid, test: shares of all interactions, each above 0 and below 0.5 (global-time and per-user-ratio).
        time: the meaning of ``timestamp``, see ``Dataset``.
        seed: of everything random.
        cold_share: share of the items that leave train, above 0 and below 1 (cold-items).
    Raises:
        DataError: the kind needs times or a column that the data lacks, or a part would be empty.
    """
    columns = frame.collect_schema().names()
    chosen = _resolve(kind, "split" in columns, time)
    _refuse_impossible(chosen, columns, time)
    _check_shares(valid, test, cold_share)
    notes: list[str] = []
    if "split" in columns and chosen != "given":
        notes.append(f"The data's own column 'split' was replaced by a {chosen} split.")
        frame = frame.drop("split")
    cutoffs: tuple[int | None, int | None] = (None, None)
    if chosen == "global-time":
        frame, cutoffs = _by_time(frame, valid, test)
    elif chosen == "leave-last-out":
        frame = _leave_last_out(frame, seed)
    elif chosen == "per-user-ratio":
        frame = random_per_user(frame, valid, test, seed)
    elif chosen == "cold-items":
        parts = cold_item_parts(frame, cold_share, seed).lazy()
        frame = frame.join(parts, on="item_id", how="left", maintain_order="left")
    counts = _count(frame, chosen)
    _refuse_empty(counts, chosen)
    _note_counts(counts, chosen, notes)
    ordered = chosen in ("global-time", "leave-last-out") or (
        chosen == "given" and time != "none" and users_out_of_order(frame, "valid", "test") == 0
    )
    return Split(frame, chosen, *cutoffs, ordered, counts, tuple(notes))


def with_cleaned(split: Split, frame: pl.LazyFrame) -> Split:
    """Puts rows that were cleaned since in place of a split's.

    Args:
        frame: rows of ``split.frame``.
    Raises:
        DataError: a part has no rows any more.
    """
    counts = _count(frame, split.kind)
    _refuse_empty(counts, split.kind)
    return replace(split, frame=frame, counts=counts)


def _check_shares(valid: float, test: float, cold_share: float) -> None:
    for name, share in (("valid", valid), ("test", test)):
        if not 0 < share < 0.5:
            raise DataError(f"the share of {name} must be above 0 and below 0.5, got {share}.")
    if not 0 < cold_share < 1:
        raise DataError(f"the share of cold items must be above 0 and below 1, got {cold_share}.")


def _refuse_empty(counts: dict[str, int], kind: SplitKind) -> None:
    """Raises DataError if a part is empty."""
    for name in SPLITS:
        if not counts[name]:
            raise DataError(
                f"the {kind} split leaves no {name} interactions of {counts['rows']:_} "
                f"(train {counts['train']:_}, valid {counts['valid']:_}, test {counts['test']:_}). Choose another."
            )


def _note_counts(counts: dict[str, int], kind: SplitKind, notes: list[str]) -> None:
    """Adds notes about users without held-out or training rows."""
    if counts["whole_users"] and kind in ("leave-last-out", "per-user-ratio"):
        notes.append(
            f"{counts['whole_users']:_} of {counts['users']:_} users have fewer than 3 interactions; all train."
        )
    if kind == "cold-items" and counts["users_without_train"]:
        notes.append(
            f"{counts['users_without_train']:_} of {counts['users']:_} users have interactions with cold items alone: "
            "they have no history in training, and the evaluation leaves them out."
        )


def random_per_user(frame: pl.LazyFrame, valid: float, test: float, seed: int) -> pl.LazyFrame:
    """Adds a random column ``split`` per user, in memory.

    A user's count, n * share, is rounded up or down at random, so that the shares hold over all users. Users with
    fewer than three interactions stay in train, and every user keeps at least one interaction there. The draw does
    not depend on the order of the rows, but it depends on the set of all ids.

    Args:
        frame: user_id, item_id and other columns.
        valid, test: shares of the interactions.
        seed: of the draw.
    """
    rows = collect(frame, _LABEL)
    codes = (codes_of(rows[name]) for name in ("user_id", "item_id"))
    user, item = (np.unique(each, return_inverse=True)[1].astype(np.uint64) for each in codes)
    chance = pl.Series("chance", hash_pairs(user, item, seed))
    ties = [rows[name] for name in ("timestamp", "event", "weight") if name in rows.columns]
    order, place, size = _places(user, [chance, *ties])
    ordered = user[order]
    n_test = np.floor(size * test + hash_numbers(ordered, 2 * seed + 1) / 2.0**64).astype(np.int64)
    n_valid = np.floor(size * valid + hash_numbers(ordered, 2 * seed + 2) / 2.0**64).astype(np.int64)
    n_test = np.where(size < 3, 0, np.minimum(n_test, size - 1))
    n_valid = np.where(size < 3, 0, np.minimum(n_valid, size - 1 - n_test))
    part = np.where(place < n_test, 2, np.where(place < n_test + n_valid, 1, 0))
    return _label_parts(rows, order, part)


def cold_item_parts(frame: pl.LazyFrame, share: float, seed: int) -> pl.DataFrame:
    """Draws the items that leave train.

    Of n items with interactions, n * share (rounded half up) leave train. Half of these go to test, the others (one
    fewer for an odd number) to valid. The draw does not depend on the order of the rows, but it depends on the set of
    all items.

    Args:
        frame: a column item_id.
        share: share of the items that leave train.
        seed: of the draw.
    Returns:
        item_id and split, one row per item.
    """
    items = collect(frame.select("item_id").unique().sort("item_id"), _LABEL)
    n_cold = int(len(items) * share + 0.5)
    place = np.empty(len(items), dtype=np.int64)
    place[np.argsort(hash_numbers(np.arange(len(items), dtype=np.uint64), seed))] = np.arange(len(items))
    part = np.where(place < (n_cold + 1) // 2, 2, np.where(place < n_cold, 1, 0))
    return items.with_columns(_names(part))


def _leave_last_out(frame: pl.LazyFrame, seed: int) -> pl.LazyFrame:
    """Labels by place from the end. Equal times of a user are in random order; the order of the rows has no effect."""
    rows = collect(frame, _LABEL)
    user, item = (codes_of(rows[name]) for name in ("user_id", "item_id"))
    chance = pl.Series("chance", hash_pairs(user, item, seed))
    repeats = [rows[name] for name in ("event", "weight") if name in rows.columns]
    order, place, size = _places(user, [rows["timestamp"], chance, *repeats])
    from_end = size - 1 - place
    part = np.where((size < 3) | (from_end > 1), 0, np.where(from_end == 0, 2, 1))
    return _label_parts(rows, order, part)


def _places(user: np.ndarray, keys: list[pl.Series]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorts rows by user and keys.

    Args:
        user: (n,) codes.
        keys: columns of n values.
    Returns:
        (n,) order of the rows; then, in that order, each row's place among its user's rows, and their number.
    """
    columns = [pl.Series("user", user), *[key.alias(f"key {i}") for i, key in enumerate(keys)]]
    order = pl.DataFrame(columns).select(pl.arg_sort_by([c.name for c in columns])).to_series().to_numpy()
    counts = np.bincount(user.astype(np.int64))
    size = np.repeat(counts, counts)
    place = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order, place, size


def _label_parts(rows: pl.DataFrame, order: np.ndarray, part: np.ndarray) -> pl.LazyFrame:
    code = np.empty(len(rows), dtype=np.uint8)
    code[order] = part
    return rows.with_columns(_names(code)).lazy()


def _names(part: np.ndarray) -> pl.Series:
    """Returns the column ``split`` for (n,) places in SPLITS."""
    return pl.Series("split", part).replace_strict(range(len(SPLITS)), SPLITS, return_dtype=PARTS)


def _resolve(kind: str, has_split: bool, time: TimeKind) -> SplitKind:
    if kind == "given":
        return "given"
    if kind == "global-time":
        return "global-time"
    if kind == "leave-last-out":
        return "leave-last-out"
    if kind == "per-user-ratio":
        return "per-user-ratio"
    if kind == "cold-items":
        return "cold-items"
    if kind != "auto":
        raise DataError(f"unknown kind of split {kind!r}; one of {', '.join(KINDS)}.")
    if has_split:
        return "given"
    return "global-time" if time == "utc" else "leave-last-out" if time == "order" else "per-user-ratio"


def _refuse_impossible(kind: SplitKind, columns: list[str], time: TimeKind) -> None:
    if kind == "given" and "split" not in columns:
        raise DataError("the split is to be the given one, but the interactions have no column 'split'.")
    if kind == "global-time" and time != "utc":
        found = "places in a user's order, which are not comparable between users" if time == "order" else "no times"
        raise DataError(f"a global-time split needs UTC timestamps, but the data has {found}. Choose another split.")
    if kind == "leave-last-out" and time == "none":
        raise DataError("a leave-last-out split needs times or an order, but the data has none. Choose per-user-ratio.")


def _by_time(frame: pl.LazyFrame, valid: float, test: float) -> tuple[pl.LazyFrame, tuple[int, int]]:
    times = collect(frame.select("timestamp"), _LABEL)["timestamp"].sort().to_numpy()
    total = len(times)
    first = np.flatnonzero(np.append(True, times[1:] != times[:-1])[:total])
    moment, before = times[first], np.append(first, total)  # before: the number of earlier rows
    if len(moment) < 3:
        raise DataError(f"a global-time split needs 3 different timestamps at least, there are {len(moment)}.")
    first_valid = 1 + int(np.argmin(np.abs(before[1:-2] - (1 - valid - test) * total)))
    after = before[first_valid + 1 : -1]
    first_test = first_valid + 1 + int(np.argmin(np.abs(after - (1 - test) * total)))
    start_valid, start_test = int(moment[first_valid]), int(moment[first_test])
    time = pl.col("timestamp")
    train, valid_part, test_part = (pl.lit(name, dtype=PARTS) for name in SPLITS)
    label = pl.when(time < start_valid).then(train).when(time < start_test).then(valid_part)
    cutoffs = int(moment[first_valid - 1]), int(moment[first_test - 1])
    return frame.with_columns(label.otherwise(test_part).alias("split")), cutoffs


def _count(frame: pl.LazyFrame, kind: SplitKind) -> dict[str, int]:
    rows = collect(frame.select("user_id", "item_id", pl.col("split").cast(PARTS, strict=False)), _LABEL)
    part = rows["split"].to_physical().cast(pl.Int64).fill_null(len(SPLITS)).to_numpy()
    of_user, of_item = (_by_part(codes_of(rows[name]), part) for name in ("user_id", "item_id"))
    size, (train, _, test, _) = of_user.sum(axis=1), of_user.T
    return {
        "rows": len(rows),
        **dict(zip(SPLITS, np.bincount(part, minlength=len(SPLITS)).tolist(), strict=False)),
        "users": len(of_user),
        "whole_users": int((size < 3).sum()) if kind in ("leave-last-out", "per-user-ratio") else 0,
        "users_without_train": int((train == 0).sum()),
        "test_users": int((test > 0).sum()),
        "test_users_without_train": int(((test > 0) & (train == 0)).sum()),
        "test_items_without_train": int(((of_item[:, 2] > 0) & (of_item[:, 0] == 0)).sum()),
    }


def _by_part(codes: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Counts rows by code and part: (m, parts + 1) for the m codes that occur. The last column has no part."""
    width = len(SPLITS) + 1
    counts = np.bincount(codes * width + part)
    counts = np.pad(counts, (0, -len(counts) % width)).reshape(-1, width)
    return counts[counts.any(axis=1)]

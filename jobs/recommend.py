"""Batch recommendations of a bundle to one Parquet file, streamed in blocks of users."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from reckg.bundle import Bundle, load_bundle
from reckg.errors import ArtifactError, DataError
from reckg.recommend import is_cold, popular_items, recommend_batch

SCHEMA = {
    "user_id": pl.String,
    "rank": pl.Int32,
    "item_id": pl.String,
    "score": pl.Float32,
    "fallback": pl.String,
}


def recommend_all(
    bundle_path: Path,
    out: Path,
    *,
    k: int = 10,
    users: Path | None = None,
    block_users: int = 1024,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the best k items of every user of a bundle, or of a list of users.

    ``out`` has a row per user and item: ``user_id``, ``rank`` (1 is best), ``item_id``, ``score``, and ``fallback``:
    null where the model answered; ``popular`` where the most popular items did, as for a user the bundle does not
    know. Users come in the bundle's order, or the list's. Memory grows with ``block_users``, not with the users.

    Args:
        users: a Parquet, CSV, TSV or JSONL file with a column ``user_id``, or a .txt with one id a line. An id that
            is repeated is answered once.
        overwrite: replace ``out``.
    Returns:
        Counts: ``users`` answered, of them ``unknown_users`` (not in the bundle; ``unknown_examples`` names up to
        five) and ``cold_users`` (in the bundle without an interaction); ``repeated_users`` of the list;
        ``short_users`` with fewer than k items; ``rows``; besides ``bundle_version``, ``out`` and ``seconds``.
    Raises:
        ArtifactError: the bundle is damaged, or ``out`` exists and ``overwrite`` is off.
        DataError: the list cannot be read, or it is empty.
        ValueError: k or block_users below 1.
    """
    if k < 1 or block_users < 1:
        raise ValueError(f"k and block_users must be >= 1, got {k} and {block_users}")
    started = time.perf_counter()
    out = Path(out)
    if out.is_dir() or (out.exists() and not overwrite):
        raise ArtifactError(f"{out} exists already; choose another path, or ask for it to be overwritten.")
    listed = None if users is None else _read_users(Path(users))
    bundle = load_bundle(Path(bundle_path))
    user_ids = bundle.user_ids.ids if listed is None else listed.unique(maintain_order=True)
    counts: dict[str, Any] = {
        "users": len(user_ids),
        "unknown_users": 0,
        "unknown_examples": [],
        "cold_users": 0,
        "repeated_users": 0 if listed is None else len(listed) - len(user_ids),
        "short_users": 0,
        "rows": 0,
    }
    parts = out.with_name(f".{out.name}.writing-{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    try:
        with tqdm(total=len(user_ids), unit="users", desc="recommend", disable=not progress) as bar:
            for number, block in enumerate(_blocks(user_ids, block_users)):
                _recommend_block(bundle, block, k, counts).write_parquet(parts / f"{number:08d}.parquet")
                bar.update(len(block))
        _join(parts, out)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    seconds = round(time.perf_counter() - started, 2)
    return {**counts, "bundle_version": bundle.version, "out": str(out), "seconds": seconds}


def _blocks(user_ids: pl.Series, block_users: int) -> Iterator[list[str]]:
    for start in range(0, len(user_ids), block_users):
        yield user_ids[start : start + block_users].to_list()


def _recommend_block(bundle: Bundle, user_ids: list[str], k: int, counts: dict[str, Any]) -> pl.DataFrame:
    """The rows of one block of users; adds to ``counts``."""
    found_idx = (bundle.user_ids.get(user_id) for user_id in user_ids)
    user_idx = np.array([-1 if idx is None else idx for idx in found_idx], dtype=np.int64)
    known = user_idx >= 0
    item_idx = np.empty((len(user_ids), k), dtype=np.int64)
    score = np.empty((len(user_ids), k), dtype=np.float32)
    fallback = ~known
    if known.any():
        found = recommend_batch(bundle, user_idx[known], k)
        item_idx[known], score[known] = found.item_idx, found.score
        fallback[known] = is_cold(bundle, user_idx[known])
    if not known.all():
        popular = popular_items(bundle, k)
        item_idx[~known], score[~known] = popular.item_idx, popular.score
    unknown = [user_ids[place] for place in np.flatnonzero(~known)]
    counts["unknown_users"] += len(unknown)
    counts["unknown_examples"] += unknown[: 5 - len(counts["unknown_examples"])]
    counts["cold_users"] += int(fallback.sum()) - len(unknown)
    filled = item_idx >= 0
    counts["short_users"] += int((~filled[:, -1]).sum())
    counts["rows"] += int(filled.sum())
    row, place = np.nonzero(filled)
    columns = {
        "user_id": pl.Series(user_ids, dtype=pl.String).gather(row),
        "rank": place + 1,
        "item_id": bundle.item_ids.ids.gather(item_idx[filled]),
        "score": score[filled],
        "fallback": pl.Series(["popular" if is_fallback else None for is_fallback in fallback[row]], dtype=pl.String),
    }
    return pl.DataFrame(columns, schema=SCHEMA, strict=False)


def _join(parts: Path, out: Path) -> None:
    """Joins the parts in order, streaming, and renames the result into place."""
    whole = parts / "whole.parquet"
    pl.scan_parquet(sorted(parts.iterdir())).sink_parquet(whole, maintain_order=True)
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(whole, out)


def _read_users(path: Path) -> pl.Series:
    """The ids of a list of users. Raises DataError."""
    try:
        match path.suffix.lower():
            case ".parquet":
                frame = pl.read_parquet(path)
            case ".csv" | ".tsv":
                separator = "," if path.suffix.lower() == ".csv" else "\t"
                frame = pl.read_csv(path, separator=separator, infer_schema=False)
            case ".jsonl" | ".ndjson":
                frame = pl.read_ndjson(path)
            case ".txt":
                frame = pl.DataFrame({"user_id": path.read_text(encoding="utf-8-sig").splitlines()})
            case other:
                raise DataError(f"{path}: a list of users is .parquet, .csv, .tsv, .jsonl or .txt, not {other!r}.")
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if "user_id" not in frame.columns:
        raise DataError(f"{path} has no column user_id; it has {', '.join(frame.columns)}.")
    ids = frame["user_id"].cast(pl.String)
    empty = ids.is_null() | (ids == "")
    if len(ids) == 0 or empty.any():
        raise DataError(f"{path}: {int(empty.sum())} of {len(ids)} user ids are empty; every row needs one.")
    return ids

"""Batch recommendations of a bundle to one Parquet file, streamed in blocks of users."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from reckg.bundle.bundle import Bundle
from reckg.data.read import open_table
from reckg.data.schema import ColumnKinds
from reckg.data.text_table import ROW, collect
from reckg.errors import ArtifactError, DataError
from reckg.files.atomic_folder import written_file
from reckg.inductive.embedder import conformed
from reckg.live.add_items import with_items
from reckg.recommend.fold_in import UserRequest
from reckg.recommend.golden import open_bundle
from reckg.recommend.known_users import gets_popular, popular_items, recommend_batch
from reckg.recommend.requests import recommend_users
from reckg.recommend.wanted import Wanted
from reckg.retrieval.scored_items import ScoredItems, empty_result

RECENT = "recent_item_ids"
USER_IDX = "__user_idx__"  # the user's place in the bundle; null: unknown
PLAIN = ["user_id", USER_IDX]
EXAMPLES = 5  # unknown values that the counts name
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
    new_items: Path | None = None,
    rerank: bool = True,
    block_users: int = 4096,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the best k items of every user of a bundle, or of a list of users.

    ``out`` has a row per user and item: ``user_id``, ``rank`` (1 is best), ``item_id``, ``score``, and ``fallback``:
    null where the model answered; ``popular`` where the most popular items did, as for a user the bundle does not
    know. Users come in the bundle's order, or the list's. Memory grows with ``block_users``, not with the users.

    Args:
        users: a Parquet, CSV, TSV or JSONL file with a column ``user_id``, or a .txt with one id a line. An id that
            is repeated is answered once. A list column ``recent_item_ids`` and the columns of the users' attributes
            are used as by Recommender.recommend, for users that the bundle knows and others.
        new_items: a table of items that the bundle does not have, to be recommended as well; see
            reckg.live.add_items.with_items.
        rerank: apply the bundle's ranker, where it has one.
        overwrite: replace ``out``.
    Returns:
        Counts: ``users`` answered, of them ``unknown_users`` (not in the bundle; ``unknown_examples`` names up to
        five) and ``cold_users`` (in the bundle without an interaction); ``repeated_users`` of the list;
        ``short_users`` with fewer than k items; ``rows``; ``folded_users`` with recent items or attributes, and
        ``ignored_columns`` of the list; how many recent items and values are unknown, and ``..._examples`` of these;
        ``new_items``, and what is unknown of them; besides ``bundle_version``, ``out`` and ``seconds``.
    Raises:
        ArtifactError: the bundle is damaged, or ``out`` exists and ``overwrite`` is off.
        DataError: the list or the new items cannot be read, or they are empty or contradict themselves.
        CannotEmbedError: recent items or new items are given, and the bundle cannot embed them.
        ValueError: k or block_users below 1.
    """
    if k < 1 or block_users < 1:
        raise ValueError(f"k and block_users must be >= 1, got {k} and {block_users}")
    started = time.perf_counter()
    out = Path(out)
    if out.is_dir() or (out.exists() and not overwrite):
        raise ArtifactError(f"{out} exists already; choose another path, or ask for it to be overwritten.")
    given = None if users is None else _read_users(Path(users))
    bundle = open_bundle(Path(bundle_path))
    if rerank and bundle.ranker is not None:
        bundle.ranker.compile()
    asked = pl.DataFrame({"user_id": bundle.user_ids.ids}) if given is None else _asked(given, bundle, str(users))
    counts = _no_counts(given, asked)
    users_of_bundle = pl.DataFrame({"user_id": bundle.user_ids.ids}).with_row_index(USER_IDX)
    asked = asked.join(users_of_bundle, on="user_id", how="left", maintain_order="left")
    asked = asked.select(*PLAIN, pl.exclude(PLAIN))
    if new_items is not None:
        bundle = _with_new_items(bundle, Path(new_items), counts)
    parts = out.with_name(f".{out.name}.parts-{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    try:
        with tqdm(total=len(asked), unit="users", desc="recommend", disable=not progress) as bar:
            for number, block in enumerate(asked.iter_slices(block_users)):
                _recommend_block(bundle, block, k, rerank, counts).write_parquet(parts / f"{number:08d}.parquet")
                bar.update(len(block))
        _join(parts, out)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    seconds = round(time.perf_counter() - started, 2)
    return {**counts, "bundle_version": bundle.version, "out": str(out), "seconds": seconds}


def _no_counts(given: pl.DataFrame | None, asked: pl.DataFrame) -> dict[str, Any]:
    """The counts before the first block."""
    counts: dict[str, Any] = {
        "users": len(asked),
        "unknown_users": 0,
        "unknown_examples": [],
        "cold_users": 0,
        "repeated_users": 0 if given is None else len(given) - len(asked),
        "short_users": 0,
        "rows": 0,
        "folded_users": 0,
        "ignored_columns": [] if given is None else [name for name in given.columns if name not in asked.columns],
    }
    for what in ("recent_items", "attributes"):
        counts |= {f"unknown_{what}": 0, f"unknown_{what}_examples": []}
    return counts


def _with_new_items(bundle: Bundle, path: Path, counts: dict[str, Any]) -> Bundle:
    """The bundle with the items of a table; adds to ``counts``."""
    grown = with_items(bundle, collect(open_table(path, []).frame.drop(ROW), path.name))
    added = grown.manifest["added_items"]
    counts |= {"new_items": added["items"], "unknown_of_new_items": 0, "unknown_of_new_items_examples": []}
    for unknown in added["unknown"].values():
        _count(counts, "unknown_of_new_items", "unknown_of_new_items_examples", unknown)
    return grown


def _recommend_block(bundle: Bundle, block: pl.DataFrame, k: int, rerank: bool, counts: dict[str, Any]) -> pl.DataFrame:
    """The rows of one block of users; adds to ``counts``."""
    if block.columns == PLAIN:
        found, fallback = _plain(bundle, block[USER_IDX], k, rerank)
    else:
        found, fallback = _requested(bundle, block, k, rerank, counts)
    known = block[USER_IDX].is_not_null().to_numpy()
    _count(counts, "unknown_users", "unknown_examples", block["user_id"].filter(pl.Series(~known)))
    counts["cold_users"] += int((fallback & known).sum())
    filled = found.item_idx >= 0
    counts["short_users"] += int((~filled[:, -1]).sum())
    counts["rows"] += int(filled.sum())
    row, place = np.nonzero(filled)
    columns = {
        "user_id": block["user_id"].gather(row),
        "rank": pl.Series(place + 1, dtype=pl.Int32),
        "item_id": bundle.item_ids.ids.gather(found.item_idx[filled]),
        "score": found.score[filled],
        "fallback": pl.Series(["popular", None], dtype=pl.String).gather(np.where(fallback, 0, 1)[row]),
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def _plain(bundle: Bundle, block: pl.Series, k: int, rerank: bool) -> tuple[ScoredItems, np.ndarray]:
    """(n, k) items of users of whom there is an id alone, and (n,) whether the popular ones; as recommend_users.

    block: (n,) their places in the bundle, null where it does not know them.
    """
    user_idx = block.cast(pl.Int64).fill_null(-1).to_numpy()
    popular, known = user_idx < 0, np.flatnonzero(user_idx >= 0)
    found = empty_result(len(block), k)
    part = recommend_batch(bundle, user_idx[known], Wanted(k, rerank=rerank))
    found.item_idx[known], found.score[known] = part.item_idx, part.score
    popular[known] = gets_popular(bundle, user_idx[known], rerank)
    strangers = user_idx < 0
    if strangers.any():
        most = popular_items(bundle, k)
        found.item_idx[strangers], found.score[strangers] = most.item_idx, most.score
    return found, popular


def _requested(
    bundle: Bundle, block: pl.DataFrame, k: int, rerank: bool, counts: dict[str, Any]
) -> tuple[ScoredItems, np.ndarray]:
    """The same of users who may have recent items and attributes; adds to ``counts``."""
    requests = [_request(row) for row in block.drop(USER_IDX).iter_rows(named=True)]
    answers = recommend_users(bundle, requests, Wanted(k, rerank=rerank))
    for what in ("recent_items", "attributes"):
        unknown = [value for values in getattr(answers, f"unknown_{what}") for value in values]
        _count(counts, f"unknown_{what}", f"unknown_{what}_examples", unknown)
    counts["folded_users"] += sum(not request.is_plain for request in requests)
    return answers.found, np.array([each is not None for each in answers.fallback])


def _count(counts: dict[str, Any], number: str, examples: str, found: Sequence[str] | pl.Series) -> None:
    counts[number] += len(found)
    counts[examples] += list(found[: EXAMPLES - len(counts[examples])])


def _request(row: dict[str, Any]) -> UserRequest:
    """A row of the list as a request; a value that is missing is not given."""
    recent = row.pop(RECENT, None) or ()
    user_id = row.pop("user_id")
    return UserRequest(user_id, recent, {name: value for name, value in row.items() if value not in (None, [])})


def _asked(given: pl.DataFrame, bundle: Bundle, label: str) -> pl.DataFrame:
    """user_id once each, with the recent items and the attributes that the bundle can use, where there are any."""
    kinds = ColumnKinds() if bundle.inductive is None else bundle.inductive.user_kinds
    if RECENT in given.columns:
        kinds = replace(bundle.embedder.user_kinds, list=(*bundle.embedder.user_kinds.list, RECENT))
    return conformed(given, "user_id", kinds, label)


def _join(parts: Path, out: Path) -> None:
    """Joins the parts in order, streaming, and renames the result into place."""
    with written_file(out) as beside:
        pl.scan_parquet(sorted(parts.iterdir())).sink_parquet(beside, maintain_order=True)


def _read_users(path: Path) -> pl.DataFrame:
    """A list of users, its ``user_id`` as strings. Raises DataError."""
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
    return frame.with_columns(ids)

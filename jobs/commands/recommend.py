"""Batch recommendations of a bundle to one Parquet file, streamed in blocks of users."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import polars as pl
from tqdm import tqdm

from reckg.bundle.bundle import Bundle
from reckg.data.read import open_table
from reckg.data.schema import ColumnKinds
from reckg.data.text_table import ROW, collect
from reckg.errors import ArtifactError, DataError
from reckg.files.atomic_folder import written_file
from reckg.inductive.embedder import conform_table
from reckg.live.add_items import with_items
from reckg.recommend.fold_in import UserRequest
from reckg.recommend.golden import open_bundle
from reckg.recommend.known_users import gets_popular, popular_items, recommend_batch
from reckg.recommend.requests import recommend_users, tabulate_answers
from reckg.recommend.wanted import Wanted
from reckg.retrieval.scored_items import ScoredItems, empty_result

RECENT = "recent_item_ids"
USER_IDX = "__user_idx__"  # the user's place in the bundle; null: unknown
PLAIN = ["user_id", USER_IDX]
EXAMPLES = 5  # unknown values that the counts name


@dataclass(kw_only=True)
class BatchCounts:
    """Counts of a batch, and up to EXAMPLES examples of ids and values that the bundle does not know.

    Args:
        cold_users: known ones who got the most popular items.
        short_users: users with fewer than k items.
        folded_users: users with recent items or attributes.
        ignored_columns: of the list.
    """

    users: int
    unknown_users: int = 0
    unknown_examples: list[str] = field(default_factory=list)
    cold_users: int = 0
    repeated_users: int
    short_users: int = 0
    rows: int = 0
    folded_users: int = 0
    ignored_columns: list[str]
    unknown_recent_items: int = 0
    unknown_recent_items_examples: list[str] = field(default_factory=list)
    unknown_attributes: int = 0
    unknown_attributes_examples: list[str] = field(default_factory=list)


class NewItemCounts(TypedDict, total=False):
    """Counts of the added items, and of their values that the graph does not know. Empty without new items."""

    new_items: int
    unknown_of_new_items: int
    unknown_of_new_items_examples: list[str]


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
) -> dict[str, Any]:
    """Writes the best k items of every user of a bundle, or of a list of users.

    Args:
        bundle_path: bundle folder.
        out: Parquet file to write. Each row is a user and an item: ``user_id``, ``rank`` (1 is best), ``item_id``,
            ``score`` and ``fallback``, which is ``popular`` if the most popular items answered and null if the model
            did. Users come in the order of the bundle, or of the list.
        users: Parquet, CSV, TSV or JSONL file with ``user_id``, or a .txt with one id a line. Repeated ids are answered
            once. ``recent_item_ids`` (lists) and attribute columns are used as by ``Recommender.recommend``.
        new_items: table of items that are missing in the bundle and recommended as well.
        rerank: apply the bundle's ranker.
        block_users: users answered at once; memory grows with it.
        overwrite: replace ``out``.
    Returns:
        BatchCounts and NewItemCounts by name, and ``bundle_version``, ``out`` and ``seconds``.
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
    requested = (
        pl.DataFrame({"user_id": bundle.user_ids.ids}) if given is None else _conform_users(given, bundle, str(users))
    )
    counts = BatchCounts(
        users=len(requested),
        repeated_users=0 if given is None else len(given) - len(requested),
        ignored_columns=[] if given is None else [name for name in given.columns if name not in requested.columns],
    )
    requested = _with_user_idx(requested, bundle)
    added: NewItemCounts = {}
    if new_items is not None:
        bundle, added = _with_new_items(bundle, Path(new_items))
    with tqdm(total=len(requested), unit="users", desc="recommend") as bar, _parts(out) as parts:
        for number, block in enumerate(requested.iter_slices(block_users)):
            _recommend_block(bundle, block, k, rerank, counts).write_parquet(parts / f"{number:08d}.parquet")
            bar.update(len(block))
    seconds = round(time.perf_counter() - started, 2)
    return {**vars(counts), **added, "bundle_version": bundle.version, "out": str(out), "seconds": seconds}


def _with_user_idx(requested: pl.DataFrame, bundle: Bundle) -> pl.DataFrame:
    """Adds the users' places in the bundle, and puts the columns of PLAIN first."""
    known = pl.DataFrame({"user_id": bundle.user_ids.ids}).with_row_index(USER_IDX)
    placed = requested.join(known, on="user_id", how="left", maintain_order="left")
    return placed.select(*PLAIN, pl.exclude(PLAIN))


def _with_new_items(bundle: Bundle, path: Path) -> tuple[Bundle, NewItemCounts]:
    """Adds the items of a table to the bundle, and counts them."""
    extended = with_items(bundle, collect(open_table(path, []).frame.drop(ROW), path.name))
    added = extended.manifest["added_items"]
    unknown = [value for values in added["unknown"].values() for value in values]
    counts: NewItemCounts = {
        "new_items": added["items"],
        "unknown_of_new_items": len(unknown),
        "unknown_of_new_items_examples": unknown[:EXAMPLES],
    }
    return extended, counts


def _recommend_block(bundle: Bundle, block: pl.DataFrame, k: int, rerank: bool, counts: BatchCounts) -> pl.DataFrame:
    """Answers a block of users.

    Args:
        block: user_id, USER_IDX and columns of recent items and attributes.
        counts: get the block's counts added.
    Returns:
        user_id, rank, item_id, score and fallback.
    """
    if block.columns == PLAIN:
        found, fallback = _plain(bundle, block[USER_IDX], k, rerank)
    else:
        found, fallback = _answer_requests(bundle, block, k, rerank, counts)
    known = block[USER_IDX].is_not_null().to_numpy()
    counts.unknown_users += int((~known).sum())
    _keep_examples(counts.unknown_examples, block["user_id"].filter(pl.Series(~known)))
    counts.cold_users += int((fallback & known).sum())
    filled = found.item_idx >= 0
    counts.short_users += int((~filled[:, -1]).sum())
    counts.rows += int(filled.sum())
    by_popularity = pl.Series("fallback", ["popular", None], dtype=pl.String)
    rows = tabulate_answers(bundle, block["user_id"], found)
    return rows.with_columns(by_popularity.gather(np.where(fallback, 0, 1)[np.nonzero(filled)[0]]))


def _plain(bundle: Bundle, block: pl.Series, k: int, rerank: bool) -> tuple[ScoredItems, np.ndarray]:
    """Answers users that give an id alone: (n, k) items, and (n,) whether they are the popular ones.

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


def _answer_requests(
    bundle: Bundle, block: pl.DataFrame, k: int, rerank: bool, counts: BatchCounts
) -> tuple[ScoredItems, np.ndarray]:
    """The same of users who may have recent items and attributes; adds to ``counts``."""
    requests = [_request(row) for row in block.drop(USER_IDX).iter_rows(named=True)]
    answers = recommend_users(bundle, requests, Wanted(k, rerank=rerank))
    items = [item_id for unknown in answers.unknown_recent_items for item_id in unknown]
    counts.unknown_recent_items += len(items)
    _keep_examples(counts.unknown_recent_items_examples, items)
    values = [value for unknown in answers.unknown_attributes for value in unknown]
    counts.unknown_attributes += len(values)
    _keep_examples(counts.unknown_attributes_examples, values)
    counts.folded_users += sum(not request.is_plain for request in requests)
    return answers.found, np.array([each is not None for each in answers.fallback])


def _keep_examples(examples: list[str], found: Sequence[str] | pl.Series) -> None:
    """Adds found values to the examples, up to EXAMPLES."""
    examples += list(found[: EXAMPLES - len(examples)])


def _request(row: dict[str, Any]) -> UserRequest:
    """A row of the list as a request; a value that is missing is not given."""
    recent = row.pop(RECENT, None) or ()
    user_id = row.pop("user_id")
    return UserRequest(user_id, recent, {name: value for name, value in row.items() if value not in (None, [])})


def _conform_users(given: pl.DataFrame, bundle: Bundle, label: str) -> pl.DataFrame:
    """user_id once each, with the recent items and the attributes that the bundle can use, where there are any."""
    kinds = ColumnKinds() if bundle.inductive is None else bundle.inductive.user_kinds
    if RECENT in given.columns:
        kinds = replace(bundle.embedder.user_kinds, list=(*bundle.embedder.user_kinds.list, RECENT))
    return conform_table(given, "user_id", kinds, label)


@contextmanager
def _parts(out: Path) -> Iterator[Path]:
    """Yields a folder for the parts of a file; at the end they are joined in order, streaming, and take its place."""
    parts = out.with_name(f".{out.name}.parts-{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    try:
        yield parts
        with written_file(out) as beside:
            pl.scan_parquet(sorted(parts.iterdir())).sink_parquet(beside, maintain_order=True)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _read_users(path: Path) -> pl.DataFrame:
    """Reads a list of users.

    Args:
        path: .parquet, .csv, .tsv, .jsonl or .txt.
    Returns:
        ``user_id`` as strings, and the other columns.
    Raises:
        DataError: the file cannot be read, or ids are missing.
    """
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

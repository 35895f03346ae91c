"""Importer of MovieLens CSV folders (ml-latest, ml-latest-small, ml-20m, ml-25m, ml-32m).

Format: https://files.grouplens.org/datasets/movielens/ml-latest-README.html
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from reckg.data.contract import NotedDataset, RawTables, conform
from reckg.data.schema import ColumnKinds
from reckg.data.text_table import ROW, Table, collect, open_delimited, require_columns
from reckg.errors import DataError

_NO_GENRES = "(no genres listed)"
_YEAR = r"\s*\((\d{4})\)\s*$"


def import_movielens(src: Path, *, name: str | None = None) -> NotedDataset:
    """Reads ratings.csv and, if present, movies.csv and tags.csv.

    The year moves from the title to a number column. Genres and users' tags (lower case) become list columns.
    links.csv is not read: it holds ids of other sites, not a graph.

    Args:
        src: the folder, or its ratings.csv.
        name: of the data set; default: the folder's.
    Raises:
        DataError: ratings.csv is missing, or values break the data contract.
    """
    folder = Path(src)
    if folder.is_file() and folder.name == "ratings.csv":
        folder = folder.parent
    if not (folder / "ratings.csv").exists():
        raise DataError(f"{folder} holds no ratings.csv; a MovieLens folder has ratings.csv and movies.csv.")
    notes: list[str] = []
    ratings = open_delimited(folder / "ratings.csv", ",", notes, quoted=True)
    require_columns(ratings, ("userId", "movieId", "rating", "timestamp"))
    names = {"userId": "user_id", "movieId": "item_id", "rating": "weight", "timestamp": "timestamp"}
    _note_other_columns(ratings, names, notes)
    items, kinds = _movies(folder, notes)
    links = folder / "links.csv"
    if links.exists():
        rows = collect(open_delimited(links, ",", notes, quoted=True).frame.select(pl.len()), links.name).item()
        notes.append(f"links.csv: {rows:_} rows of IMDb and TMDB ids were not imported; no outside graph uses them.")
    raw = RawTables(
        name=name or folder.resolve().name,
        interactions=ratings.rename(names),
        items=items,
        item_columns=kinds,
        time="utc",
        source="MovieLens, https://grouplens.org/datasets/movielens/",
        licence="GroupLens terms of use: research, with acknowledgement",
    )
    return conform(raw, notes)


def _movies(folder: Path, notes: list[str]) -> tuple[Table | None, ColumnKinds | None]:
    path = folder / "movies.csv"
    if not path.exists():
        return None, None
    movies = open_delimited(path, ",", notes, quoted=True)
    require_columns(movies, ("movieId", "title", "genres"))
    _note_other_columns(movies, {"movieId": "", "title": "", "genres": ""}, notes)
    title, genres = pl.col("title"), pl.col("genres")
    year = title.str.extract(_YEAR)
    query = movies.frame.select(
        pl.len(), (year.is_null()).sum().alias("no year"), (genres == _NO_GENRES).sum().alias("no genres")
    )
    rows, no_year, no_genres = collect(query, path.name).row(0)
    if no_year:
        notes.append(
            f"movies.csv: {no_year:_} of {rows:_} titles have no year at their end; the year is missing there."
        )
    if no_genres:
        notes.append(f"movies.csv: {no_genres:_} of {rows:_} films have {_NO_GENRES!r}; they get an empty list.")
    plain = pl.when(year.is_null()).then(title).otherwise(title.str.replace(_YEAR, ""))
    frame = movies.frame.select(
        ROW,
        pl.col("movieId").alias("item_id"),
        plain.alias("title"),
        year.alias("year"),
        pl.when(genres != _NO_GENRES).then(genres).alias("genre"),
    )
    lists = ["genre"]
    tags = _tags(folder, notes)
    if tags is not None:
        lists.append("tag")
        frame = frame.join(tags, on="item_id", how="left")
    kinds = ColumnKinds(text=("title",), number=("year",), list=tuple(lists))
    return Table(frame, path.name, movies.row_word), kinds


def _tags(folder: Path, notes: list[str]) -> pl.LazyFrame | None:
    """Collects (item_id, tag): the distinct tags of each film."""
    path = folder / "tags.csv"
    if not path.exists():
        return None
    tags = open_delimited(path, ",", notes, quoted=True)
    require_columns(tags, ("userId", "movieId", "tag"))
    tag = pl.col("tag").str.strip_chars().str.to_lowercase()
    pairs = tags.frame.select(pl.col("movieId").alias("item_id"), tag).drop_nulls().unique()
    grouped = collect(pairs.group_by("item_id").agg(pl.col("tag").sort()), path.name)
    rows = collect(tags.frame.select(pl.len()), path.name).item()
    kept = int(grouped["tag"].list.len().sum())
    notes.append(
        f"tags.csv: {rows:_} tags became {kept:_} distinct (film, tag) pairs in the list column 'tag', in lower case; "
        "their times are not kept, so tags given after the cutoff are known to the model."
    )
    return grouped.lazy()


def _note_other_columns(table: Table, known: dict[str, str], notes: list[str]) -> None:
    other = [name for name in table.columns() if name not in known]
    if other:
        notes.append(f"{table.label}: column {', '.join(map(repr, other))} left out; it is not MovieLens's.")

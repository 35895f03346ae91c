"""The books of the generated bookshop: their true properties as arrays, their texts, and an outside knowledge graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from reckg.data.bookshop import words as words

DAY = 86_400
START = 1_672_531_200  # 2023-01-01 00:00 UTC, the first possible interaction
END = START + 546 * DAY  # 2024-06-30, the last

N_GENRES = len(words.GENRES)
N_THEMES = len(words.THEMES)
N_MOVEMENTS = len(words.MOVEMENTS)

BOOKS_PER_AUTHOR = 6
SHARE_NEW = 0.32  # books that come out while the log runs
SERIES_GOES_ON = 0.28  # chance that an author's next book is the next volume of the same series
SHARE_LINKED = 0.92  # books that the outside knowledge graph knows
POPULARITY_POWER = 0.88
AUTHORS_THEMES = 0.3  # share of themes that are the usual ones of the author


@dataclass(frozen=True)
class Authors:
    """Arrays (a,) over a authors; ``themes`` is (a, 2). ``influenced_by`` is another author's index, or -1."""

    name: pl.Series
    genre: np.ndarray
    themes: np.ndarray
    movement: np.ndarray
    language: np.ndarray
    publisher: np.ndarray
    city: np.ndarray
    influenced_by: np.ndarray
    fame: np.ndarray


@dataclass(frozen=True)
class Catalog:
    """True properties of n books as (n,) arrays; genres (n, 2) and themes (n, 2) hold -1 for 'none'.

    ``series`` is -1 outside a series. The volumes of series s are, in their order,
    ``series_items[series_start[s]:series_start[s + 1]]``. ``released`` is in epoch seconds, ``popularity`` sums to 1.
    """

    authors: Authors
    author: np.ndarray
    genres: np.ndarray
    themes: np.ndarray
    language: np.ndarray
    publisher: np.ndarray
    series: np.ndarray
    volume: np.ndarray
    series_start: np.ndarray
    series_items: np.ndarray
    released: np.ndarray
    price: np.ndarray
    popularity: np.ndarray

    def __len__(self) -> int:
        return len(self.author)


def make_catalog(n: int, rng: np.random.Generator) -> Catalog:
    """Draws n books by about n / 6 authors. No Python object is made per book."""
    authors = _make_authors(max(4, n // BOOKS_PER_AUTHOR), rng)
    author = np.sort(_draw_by_weight(rng, authors.fame**0.5, n))
    series, volume, size = _make_series(author, rng)
    released = _release_dates(n, series, rng)
    # Books stand by author so far; from here on in random order, so that an index says nothing.
    order = rng.permutation(n)
    author, series, volume, released = author[order], series[order], volume[order], released[order]
    in_series = np.flatnonzero(series >= 0)
    themes, genres = _subjects(authors, author, series, rng)
    years = (END - released) / (365 * DAY)
    usual = np.array([genre.price for genre in words.GENRES])[genres[:, 0]]
    price = np.maximum(3, np.round(usual * rng.lognormal(0, 0.2, n) * np.where(years < 2, 1.3, 1.0)) - 0.01)
    fame = authors.fame[author] * rng.lognormal(0, 1.0, n)
    rank = np.empty(n)
    rank[np.argsort(-fame, kind="stable")] = np.arange(n)
    popularity = (rank + 5) ** -POPULARITY_POWER
    return Catalog(
        authors=authors,
        author=author,
        genres=genres,
        themes=themes,
        language=authors.language[author],
        publisher=np.where(rng.random(n) < 0.85, authors.publisher[author], rng.permutation(authors.publisher[author])),
        series=series,
        volume=volume,
        series_start=np.concatenate([[0], np.cumsum(size)]),
        series_items=in_series[np.lexsort((volume[in_series], series[in_series]))],
        released=released,
        price=np.round(price, 2),
        popularity=popularity / popularity.sum(),
    )


def _make_authors(n: int, rng: np.random.Generator) -> Authors:
    genre = _draw_by_weight(rng, 1 / (np.arange(N_GENRES) + 4), n)
    usual = _usual_themes()[genre]
    themes = np.where(rng.random((n, 2)) < 0.5, _one_of_each(usual, 2, rng), rng.integers(0, N_THEMES, (n, 2)))
    # A movement leans to some genres; authors learn from an earlier one of their own movement.
    lean = rng.integers(0, N_MOVEMENTS, (N_GENRES, 2))
    movement = np.where(rng.random(n) < 0.5, _one_of_each(lean[genre], 1, rng)[:, 0], rng.integers(0, N_MOVEMENTS, n))
    by_movement = np.argsort(movement, kind="stable")
    model = np.full(n, -1)
    model[by_movement[2:]] = by_movement[:-2]
    model[rng.random(n) < 0.3] = -1
    publishers = min(max(6, n // 8), len(words.PUBLISHER_WORDS) * len(words.PUBLISHER_FORMS))
    home = rng.integers(0, N_GENRES, publishers)
    near = rng.integers(0, publishers, (n, 4))
    return Authors(
        name=_names((words.FIRST_NAMES, words.LAST_NAMES), n, rng),
        genre=genre,
        themes=themes,
        movement=movement,
        language=np.where(rng.random(n) < 0.55, 0, rng.integers(0, len(words.LANGUAGES), n)),
        publisher=near[np.arange(n), np.argmax(home[near] == genre[:, None], axis=1)],
        city=rng.integers(0, len(words.CITIES), n),
        influenced_by=model,
        fame=rng.lognormal(0, 0.8, n),
    )


def _make_series(author: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws series.

    Args:
        author: (n,) authors of the books, rising.
    Returns:
        series index (n,), -1 outside a series; volume (n,) from 1, 0 outside a series; size of each series.
    """
    goes_on = (rng.random(len(author)) < SERIES_GOES_ON) & np.concatenate([[False], author[1:] == author[:-1]])
    run = np.cumsum(~goes_on) - 1
    length = np.bincount(run)
    is_series = length >= 2
    number = np.where(is_series, np.cumsum(is_series) - 1, -1)
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    volume = np.where(is_series[run], np.arange(len(author)) - start[run] + 1, 0)
    return number[run], volume, length[is_series].astype(np.int64)


def _release_dates(n: int, series: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws (n,) epoch seconds. Volumes of a series, which are neighbours, come out in order."""
    old = START - (rng.gamma(1.2, 12 * 365, n) * DAY).clip(DAY, 70 * 365 * DAY)
    new = START + (END - START) * rng.random(n) ** 0.8
    released = np.where(rng.random(n) < SHARE_NEW, new, old).astype(np.int64) // DAY * DAY
    run = np.where(series >= 0, series, series.max(initial=0) + 1 + np.arange(n))
    grouped = np.argsort(run, kind="stable")
    out = np.empty(n, dtype=np.int64)
    out[grouped] = released[np.lexsort((released, run))]
    return out


def _subjects(
    authors: Authors, author: np.ndarray, series: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws themes and genres close to those of the authors. Volumes of a series share their first ones.

    Args:
        author, series: (n,) of the books.
    Returns:
        (n, 2) themes and (n, 2) genres.
    """
    n = len(author)
    main = np.where(rng.random(n) < 0.8, authors.genre[author], rng.integers(0, N_GENRES, n))
    second = np.where(rng.random(n) < 0.55, rng.integers(0, N_GENRES, n), -1)
    own = _one_of_each(authors.themes[author], 2, rng)
    themes = np.where(rng.random((n, 2)) < AUTHORS_THEMES, own, rng.integers(0, N_THEMES, (n, 2)))
    volumes = series >= 0
    main[volumes] = authors.genre[author[volumes]]
    themes[volumes, 0] = authors.themes[author[volumes], 0]
    themes[themes[:, 1] == themes[:, 0], 1] = -1
    return themes, np.stack([main, np.where(second == main, -1, second)], axis=1)


def _usual_themes() -> np.ndarray:
    return np.array([genre.themes for genre in words.GENRES])


def _one_of_each(choices: np.ndarray, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Picks from each row of ``choices``. Returns (n, columns)."""
    pick = rng.integers(0, choices.shape[1], (len(choices), columns))
    return np.take_along_axis(choices, pick, axis=1)


def _draw_by_weight(rng: np.random.Generator, weight: np.ndarray, n: int) -> np.ndarray:
    """Draws (n,) indices in proportion to ``weight``."""
    cumulative = np.cumsum(weight)
    found = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
    return np.asarray(found.clip(max=len(weight) - 1))


def _names(parts: Sequence[Sequence[str]], n: int, rng: np.random.Generator) -> pl.Series:
    """Makes n distinct names from one word per part. Names get a number when all combinations are used."""
    combinations = int(np.prod([len(part) for part in parts]))
    code = np.tile(rng.permutation(combinations), n // combinations + 1)[:n]
    again = np.arange(n) // combinations
    columns: list[pl.Series] = []
    for part in reversed(parts):
        columns.insert(0, _pick(part, code % len(part)))
        code = code // len(part)
    number = pl.Series(again + 1).cast(pl.String)
    name = pl.concat_str(*columns, separator=" ")
    suffix = pl.when(pl.Series(again > 0)).then(pl.lit(" ") + number).otherwise(pl.lit(""))
    return pl.select(pl.concat_str(name, suffix).alias("name"))["name"]


def _pick(choices: Sequence[str] | pl.Series, index: np.ndarray) -> pl.Series:
    """Gathers (n,) strings. A negative index gives null."""
    series = choices if isinstance(choices, pl.Series) else pl.Series(choices, dtype=pl.String)
    with_null = pl.concat([series, pl.Series([None], dtype=pl.String)])
    return with_null.gather(pl.Series(np.where(index < 0, len(series), index)))


# Texts and tables


def item_ids(n: int) -> pl.Series:
    return pl.select(pl.format("b{}", pl.int_range(1, n + 1).cast(pl.String).str.zfill(6)).alias("item_id"))["item_id"]


def item_frame(books: Catalog, rng: np.random.Generator) -> pl.DataFrame:
    """Builds the items table: item_id, title, description, author, series, publisher, language, year, price, genres."""
    n = len(books)
    genre_names = [genre.name for genre in words.GENRES]
    publishers = [f"{first} {second}" for second in words.PUBLISHER_FORMS for first in words.PUBLISHER_WORDS]
    series_names = _names((words.SERIES_FIRST, words.SERIES_SECOND, words.SERIES_FORMS), len(books.series_start), rng)
    frame = pl.DataFrame(
        {
            "item_id": item_ids(n),
            "author": _pick(books.authors.name, books.author),
            "series": "The " + _pick(series_names, books.series),
            "publisher": _pick(publishers, books.publisher),
            "language": _pick(words.LANGUAGES, books.language),
            "year": pl.Series(books.released).cast(pl.Int64),
            "price": books.price,
            "genre_1": _pick(genre_names, books.genres[:, 0]),
            "genre_2": _pick(genre_names, books.genres[:, 1]),
            **_titles(books, rng),
            **_descriptions(books, rng),
        }
    )
    return frame.select(
        "item_id",
        "title",
        "description",
        "author",
        "series",
        "publisher",
        "language",
        pl.from_epoch("year").dt.year().cast(pl.Float64).alias("year"),
        "price",
        pl.concat_list("genre_1", "genre_2").list.drop_nulls().alias("genres"),
    )


def _by_theme(part: str, theme: np.ndarray, rng: np.random.Generator) -> pl.Series:
    """Picks a phrase for each of (n,) themes. Theme -1 gives null."""
    phrases = [getattr(theme, part) for theme in words.THEMES]
    start = np.concatenate([[0], np.cumsum([len(p) for p in phrases])])
    pick = start[theme] + (rng.random(len(theme)) * (start[theme + 1] - start[theme])).astype(np.int64)
    return _pick([phrase for group in phrases for phrase in group], np.where(theme < 0, -1, pick))


def _titles(books: Catalog, rng: np.random.Generator) -> dict[str, pl.Series]:
    n = len(books)
    word = _by_theme("title_words", books.themes[:, 0], rng)
    other = _by_theme("title_words", books.themes[:, 1], rng)
    adjective = _pick(words.TITLE_ADJECTIVES, rng.integers(0, len(words.TITLE_ADJECTIVES), n))
    ending = _pick(words.TITLE_ENDINGS, rng.integers(0, len(words.TITLE_ENDINGS), n))
    form = pl.Series(rng.random(n))
    title = (
        pl.when((form < 0.3) & other.is_not_null())
        .then(pl.format("The {} and the {}", word, other))
        .when(form < 0.55)
        .then(pl.format("The {} {}", word, ending))
        .otherwise(pl.format("The {} {}", adjective, word))
    )
    return {"title": pl.select(title.alias("title"))["title"]}


def _descriptions(books: Catalog, rng: np.random.Generator) -> dict[str, pl.Series]:
    """Writes one to three sentences: a plot of the first theme, a motif of the second, and often tone and place."""
    n = len(books)
    motif = _by_theme("motifs", books.themes[:, 1], rng)
    joins = ("It is also a story about {}.", "Readers will find {}.", "At its heart: {}.", "Along the way: {}.")
    opening = pl.format(
        "{} {}.",
        _pick(words.HEROES, rng.integers(0, len(words.HEROES), n)),
        _by_theme("plots", books.themes[:, 0], rng),
    )
    form = pl.Series(rng.integers(0, len(joins), n))
    second = pl.coalesce(pl.when(form == i).then(pl.format(join, motif)) for i, join in enumerate(joins))
    tone = pl.format(
        "A {} {} set in {}.",
        _pick(words.TONES, rng.integers(0, len(words.TONES), n)),
        _pick([genre.kind for genre in words.GENRES], books.genres[:, 0]),
        _pick(list(words.CITIES), rng.integers(0, len(words.CITIES), n)),
    )
    last = pl.when(pl.Series(rng.random(n) < 0.5)).then(tone)
    text = pl.concat_str(opening, second, last, separator=" ", ignore_nulls=True)
    return {"description": pl.select(text.alias("description"))["description"]}


def outside_graph(books: Catalog, items: pl.DataFrame, rng: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Builds the outside knowledge graph.

    It holds facts that no column has: movements, influences and birthplaces of authors, seats of publishers, and the
    order of volumes.

    Args:
        books: the catalog.
        items: its items table.
        rng: the random stream.
    Returns:
        triples (head, relation, tail), and links (item_id, entity) for most books.
    """
    n = len(books)
    known = rng.random(n) < SHARE_LINKED
    work = pl.select(pl.format("Q{}", pl.Series(100_000 + rng.permutation(n))).alias("work"))["work"]
    authors = books.authors
    author = "person/" + authors.name
    publisher = "company/" + items["publisher"]
    houses = publisher.unique(maintain_order=True)
    cities = "place/" + pl.Series(list(words.CITIES))
    after = np.flatnonzero(books.volume[books.series_items] > 1)
    has_model = authors.influenced_by >= 0
    rows: list[tuple[str, Any, Any]] = [
        ("written_by", work.filter(pl.Series(known)), _pick(author, books.author).filter(pl.Series(known))),
        ("published_by", work.filter(pl.Series(known)), publisher.filter(pl.Series(known))),
        ("follows", _pick(work, books.series_items[after]), _pick(work, books.series_items[after - 1])),
        ("movement", author, "movement/" + _pick(words.MOVEMENTS, authors.movement)),
        ("born_in", author, _pick(cities, authors.city)),
        (
            "influenced_by",
            author.filter(pl.Series(has_model)),
            _pick(author, authors.influenced_by[has_model]),
        ),
        ("located_in", houses, _pick(cities, rng.integers(0, len(cities), len(houses)))),
        ("in_country", cities, "place/" + pl.Series(list(words.CITIES.values()))),
    ]
    triples = pl.concat(
        [
            pl.DataFrame({"head": head.rename("head"), "tail": tail.rename("tail")}).select(
                "head", pl.lit(relation).alias("relation"), "tail"
            )
            for relation, head, tail in rows
        ]
    )
    links = pl.DataFrame({"item_id": items["item_id"], "entity": work}).filter(pl.Series(known))
    return triples, links

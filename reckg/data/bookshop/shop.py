"""Readers of the generated bookshop, their tastes and their visits.

In a visit a reader sees a shelf of ``SHELF`` books, drawn by popularity, from the new arrivals and from the reader's
favourite genres, themes and authors. The reader takes the book with the highest utility plus Gumbel noise. After a
volume of a series a reader often takes the next ones in order. Tastes depend on age band and country, and change once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from reckg.data.bookshop import words as words
from reckg.data.bookshop.catalog import (
    DAY,
    END,
    N_GENRES,
    N_MOVEMENTS,
    N_THEMES,
    START,
    Catalog,
    item_frame,
    make_catalog,
    outside_graph,
)
from reckg.data.bookshop.shelves import Shelves, choose_books
from reckg.errors import DataError

BLOCK_USERS = 2048
INTERACTIONS_PER_USER = 20.0
SHELF = 64
FAVOURITE_AUTHORS = 3
# Columns of a shelf by where its books come from; the rest is drawn by popularity.
SHELF_NEW, SHELF_GENRE, SHELF_THEME, SHELF_AUTHOR = 8, 12, 12, 6
# Weights of the utility.
GENRE, THEME, AUTHOR, MOVEMENT, LANGUAGE, NOVELTY, PRICE = 1.2, 3.2, 1.2, 1.2, 1.6, 2.3, 0.03
NOVELTY_DAYS = 45.0
SERIES_NEXT = 0.45  # chance to go on with the next volume
SERIES_GAP_DAYS = 12.0


@dataclass(frozen=True)
class Readers:
    """A block of n users: attributes, activity and tastes.

    Taste tables have 2n rows: row u until ``changed_at[u]`` (epoch seconds), row n + u afterwards. Their last column,
    for 'none', is 0. ``authors`` (n, 3) are favourites.
    """

    age: np.ndarray
    country: np.ndarray
    visits: np.ndarray
    joined: np.ndarray
    left: np.ndarray
    changed_at: np.ndarray
    genre: np.ndarray
    theme: np.ndarray
    movement: np.ndarray
    language: np.ndarray
    authors: np.ndarray
    thrift: np.ndarray

    def __len__(self) -> int:
        return len(self.age)

    def row(self, user: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Returns rows of the taste tables.

        Args:
            user: indices within the block.
            time: epoch seconds, one per user.
        """
        return np.asarray(user + len(self) * (time >= self.changed_at[user]))


class Traits:
    """Inputs of the utility: compact (n,) columns over n books."""

    def __init__(self, books: Catalog) -> None:
        self.genres = tuple(books.genres.T.astype(np.int8).copy())
        self.themes = tuple(books.themes.T.astype(np.int8).copy())
        self.author = books.author.astype(np.int32)
        self.movement = books.authors.movement[books.author].astype(np.int8)
        self.language = books.language.astype(np.int8)
        self.released_day = (books.released / DAY).astype(np.float32)
        self.price = books.price.astype(np.float32)


class Bookshop:
    """The generated books, with readers and interactions by block.

    Args:
        users, items: numbers of readers (at least 1) and books (at least 12).
        seed: of every draw.
        interactions_per_user: mean of a skewed distribution; its median is about two thirds.
        block_users: readers drawn at once.
    Raises:
        DataError: a number is out of range.
    """

    def __init__(
        self, users: int, items: int, seed: int, interactions_per_user: float, block_users: int = BLOCK_USERS
    ) -> None:
        if users < 1 or items < 12 or seed < 0 or block_users < 1 or not 1 <= interactions_per_user <= items / 4:
            raise DataError(
                "a bookshop needs users >= 1, items >= 12, seed >= 0, block_users >= 1 and interactions_per_user "
                f"of 1 to items / 4; got {users}, {items}, {seed}, {block_users} and {interactions_per_user}."
            )
        self.users, self.items, self.seed = users, items, seed
        self.interactions_per_user, self.block_users = interactions_per_user, block_users
        self.books = make_catalog(items, self._stream(0))
        books = self.books
        self.traits = Traits(books)
        self.by_popularity = Shelves(np.zeros((items, 1), dtype=np.int64), books.popularity, 1)
        self.by_genre = Shelves(books.genres, books.popularity, N_GENRES)
        self.by_theme = Shelves(books.themes, books.popularity, N_THEMES)
        self.by_author = Shelves(books.author[:, None], books.popularity, len(books.authors.name))
        self.at_home = self._stream(4).normal(0, 0.8, (len(words.COUNTRIES), N_MOVEMENTS))
        self.arrivals = np.argsort(books.released, kind="stable")
        self.arrival_times = books.released[self.arrivals]

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *key])))

    def catalog_frames(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """Returns the tables items, triples and links."""
        frame = item_frame(self.books, self._stream(1))
        triples, links = outside_graph(self.books, frame, self._stream(2))
        return frame, triples, links

    def blocks(self) -> Iterator[tuple[int, Readers, np.random.Generator]]:
        """Yields (first user, readers, the random stream for their visits) for each block."""
        for block, first in enumerate(range(0, self.users, self.block_users)):
            rng = self._stream(3, block)
            yield first, self.draw_readers(min(self.block_users, self.users - first), rng), rng

    def draw_readers(self, n: int, rng: np.random.Generator) -> Readers:
        """Draws n readers."""
        age = rng.choice(len(words.AGE_BANDS), n, p=[0.08, 0.17, 0.24, 0.25, 0.16, 0.10])
        country = rng.choice(len(words.COUNTRIES), n, p=[0.28, 0.06, 0.14, 0.18, 0.12, 0.09, 0.07, 0.06])
        likes = np.array([[a in genre.ages for genre in words.GENRES] for a in range(len(words.AGE_BANDS))])
        genre_rank = _rank_top(1.1 * likes[age] + rng.gumbel(size=(n, N_GENRES)), 4)
        usual = np.zeros((N_GENRES, N_THEMES))
        for g, genre in enumerate(words.GENRES):
            usual[g, list(genre.themes)] = 1.0
        lean = usual[genre_rank[:, 0]] + 0.6 * usual[genre_rank[:, 1]]
        theme_rank = _rank_top(1.2 * lean + rng.gumbel(size=(n, N_THEMES)), 6)
        movement_rank = _rank_top(self.at_home[country] + rng.gumbel(size=(n, N_MOVEMENTS)), 3)
        movement = _table([(movement_rank, (1.0, 0.6, 0.0))] * 2, N_MOVEMENTS)
        reads = np.full((len(words.COUNTRIES), len(words.LANGUAGES)), -1.0, dtype=np.float32)
        for c, languages in enumerate(words.COUNTRIES.values()):
            reads[c, list(languages)] = (1.0, 0.4)[: len(languages)]
        joined = START + (END - START) * np.maximum(0, rng.uniform(-0.8, 0.95, n))
        stays = rng.exponential(1.2, n) * (END - START)
        mean_visits = self.interactions_per_user / 1.17  # going on in series adds the rest
        return Readers(
            age=age,
            country=country,
            visits=np.clip(rng.lognormal(np.log(mean_visits) - 0.36, 0.85, n), 1, self.items / 3).round().astype(int),
            joined=joined,
            left=np.minimum(END, joined + np.maximum(stays, 5 * DAY)),
            changed_at=joined + rng.uniform(0.3, 1.5, n) * (END - joined),
            genre=_table([(genre_rank, (1.0, 0.7, 0.4, 0.0)), (genre_rank, (0.8, 0.3, 0.4, 0.9))], N_GENRES),
            theme=_table(
                [(theme_rank, (1.0, 0.9, 0.7, 0.5, 0.0, 0.0)), (theme_rank, (0.9, 0.4, 0.6, 0.0, 1.0, 0.6))], N_THEMES
            ),
            movement=movement[:n],
            language=reads[country],
            authors=self._favourite_authors(genre_rank, theme_rank, movement, rng),
            thrift=rng.exponential(1.0, n).astype(np.float32),
        )

    def _favourite_authors(
        self, genres: np.ndarray, themes: np.ndarray, movement: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Chooses favourites among 16 known authors by themes and movement.

        Returns:
            (n, 3) authors; the last has influenced the first, if anybody has.
        """
        n = len(genres)
        authors = self.books.authors
        book = self.by_genre.draw(np.repeat(genres[:, :2], 8, axis=1), rng)
        known = self.books.author[np.maximum(book, 0)]
        shared = (authors.themes[known][:, :, :, None] == themes[:, None, None, :4]).any(axis=(2, 3))
        score = 1.5 * shared + 2.0 * movement[np.arange(n)[:, None], authors.movement[known]]
        best = np.take_along_axis(known, _rank_top(score + rng.gumbel(size=score.shape), FAVOURITE_AUTHORS), axis=1)
        model = authors.influenced_by[best[:, 0]]
        best[:, -1] = np.where(model >= 0, model, best[:, -1])
        return best

    def utility(self, readers: Readers, user: np.ndarray, time: np.ndarray, book: np.ndarray) -> np.ndarray:
        """Computes the true utility of books.

        Args:
            readers: a block of users.
            user, time: (e,) users of the block and times of their visits.
            book: (e, c) books.
        Returns:
            (e, c) float32, -inf before a book's release.
        """
        traits = self.traits
        row = readers.row(user, time)[:, None]
        user = user[:, None]
        age = (time[:, None] / DAY).astype(np.float32) - traits.released_day[book]
        out = readers.genre[row, traits.genres[0][book]]
        out += np.float32(0.6) * readers.genre[row, traits.genres[1][book]]
        out *= np.float32(GENRE)
        theme = readers.theme[row, traits.themes[0][book]]
        theme += np.float32(0.8) * readers.theme[row, traits.themes[1][book]]
        out += np.float32(THEME) * theme
        author = traits.author[book]
        liked = author == readers.authors[user, 0]
        for column in range(1, FAVOURITE_AUTHORS):
            liked |= author == readers.authors[user, column]
        out += np.float32(AUTHOR) * liked
        out += np.float32(MOVEMENT) * readers.movement[user, traits.movement[book]]
        out += np.float32(LANGUAGE) * readers.language[user, traits.language[book]]
        out += np.float32(NOVELTY) * np.exp(np.maximum(age, 0) * np.float32(-1 / NOVELTY_DAYS))
        out -= np.float32(PRICE) * readers.thrift[user] * traits.price[book]
        out[age < 0] = -np.inf
        return np.asarray(out)

    def shelf(self, readers: Readers, user: np.ndarray, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws the books that readers see.

        Args:
            readers: a block of users.
            user, time: (e,) users of the block and times of their visits.
            rng: the random stream.
        Returns:
            (e, SHELF) books. Unreleased ones among them are never taken.
        """
        e = len(user)
        row = readers.row(user, time)
        popular = SHELF - SHELF_NEW - SHELF_GENRE - SHELF_THEME - SHELF_AUTHOR
        out = np.empty((e, SHELF), dtype=np.int64)
        out[:, :popular] = self.by_popularity.draw(np.zeros((e, popular), dtype=np.int64), rng)
        newest = np.searchsorted(self.arrival_times, time, side="right")[:, None]
        recent = max(8, self.items // 25)
        back = rng.integers(0, recent, (e, SHELF_NEW)).astype(np.int64)
        at = popular
        out[:, at : at + SHELF_NEW] = self.arrivals[np.maximum(newest - 1 - back, 0)]
        at += SHELF_NEW
        favourite = _rank_top(readers.genre, 3)[row]
        out[:, at : at + SHELF_GENRE] = self.by_genre.draw(np.repeat(favourite, SHELF_GENRE // 3, axis=1), rng)
        at += SHELF_GENRE
        favourite = _rank_top(readers.theme, 4)[row]
        out[:, at : at + SHELF_THEME] = self.by_theme.draw(np.repeat(favourite, SHELF_THEME // 4, axis=1), rng)
        at += SHELF_THEME
        favourite = readers.authors[user]
        out[:, at:] = self.by_author.draw(np.repeat(favourite, SHELF_AUTHOR // FAVOURITE_AUTHORS, axis=1), rng)
        return np.where(out < 0, out[:, :1], out)

    def interactions(self, first: int, readers: Readers, rng: np.random.Generator) -> pl.DataFrame:
        """Draws the interactions of a block, sorted by user and time. A user takes a book once.

        Args:
            first: the number of the block's first user.
            readers: the block.
            rng: the block's random stream.
        """
        user = np.repeat(np.arange(len(readers)), readers.visits)
        time = (readers.joined[user] + rng.random(len(user)) * (readers.left - readers.joined)[user]).astype(np.int64)
        shelf = self.shelf(readers, user, time, rng)
        utility = self.utility(readers, user, time, shelf)
        noise = -np.log(rng.standard_exponential(utility.shape, dtype=np.float32) + np.float32(1e-30))
        visit, column = choose_books(utility + noise, user[:, None] * self.items + shelf)
        user, time, book, pleased = user[visit], time[visit], shelf[visit, column], utility[visit, column]
        source, book, time = self._go_on(book, time, rng)
        user, pleased = user[source], pleased[source]
        order = np.lexsort((book, time, user))
        key = (user * self.items + book)[order]
        order = order[np.sort(np.unique(key, return_index=True)[1])]
        user, book, time, pleased = user[order], book[order], time[order], pleased[order]
        bought = rng.random(len(user)) < 1 / (1 + np.exp(4.0 - 0.6 * pleased))
        return pl.DataFrame({"user": user + first, "book": book, "timestamp": time, "bought": bought}).select(
            _user_id(pl.col("user")),
            pl.format("b{}", (pl.col("book") + 1).cast(pl.String).str.zfill(6)).alias("item_id"),
            "timestamp",
            pl.when("bought").then(3.0).otherwise(1.0).cast(pl.Float32).alias("weight"),
            pl.when("bought").then(pl.lit("purchase")).otherwise(pl.lit("view")).alias("event"),
        )

    def _go_on(
        self, book: np.ndarray, time: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Adds the next volumes of series.

        Args:
            book, time: (e,) books taken, and the times.
        Returns:
            (source, book, time), each (m,): ``source`` is the index of the first taking.
        """
        books = self.books
        if not len(books.series_items):
            return np.arange(len(book)), book, time
        series = books.series[book]
        in_series = series >= 0
        start = np.where(in_series & (rng.random(len(book)) < 0.8), 0, books.volume[book] - 1)
        size = np.where(in_series, np.diff(books.series_start)[series], 0)
        length = np.where(in_series, np.minimum(rng.geometric(1 - SERIES_NEXT, len(book)), size - start), 1)
        source = np.repeat(np.arange(len(book)), length)
        step = np.arange(len(source)) - np.repeat(np.cumsum(length) - length, length)
        gap = np.where(step > 0, rng.exponential(SERIES_GAP_DAYS, len(source)) + 0.5, 0.0) * DAY
        later = np.cumsum(gap)
        later -= np.repeat(later[np.cumsum(length) - length], length)
        place = np.where(in_series, books.series_start[series] + start, 0)[source] + step
        taken = np.where(
            in_series[source], books.series_items[np.minimum(place, len(books.series_items) - 1)], book[source]
        )
        at = (time[source] + later).astype(np.int64)
        keep = (at < END) & (books.released[taken] <= at)
        return source[keep], taken[keep], at[keep]

    def user_frame(self, first: int, readers: Readers) -> pl.DataFrame:
        """Returns the users table of a block: user_id, age_band, country."""
        return pl.DataFrame(
            {
                "user": np.arange(first, first + len(readers)),
                "age_band": pl.Series(words.AGE_BANDS).gather(pl.Series(readers.age)),
                "country": pl.Series(list(words.COUNTRIES)).gather(pl.Series(readers.country)),
            }
        ).select(_user_id(pl.col("user")), "age_band", "country")


def _user_id(user: pl.Expr) -> pl.Expr:
    return pl.format("u{}", (user + 1).cast(pl.String).str.zfill(7)).alias("user_id")


def _rank_top(score: np.ndarray, k: int) -> np.ndarray:
    """Returns (n, k) columns of the k highest scores of each row, best first."""
    return np.asarray(np.argsort(-score, axis=1, kind="stable")[:, :k])


def _table(parts: list[tuple[np.ndarray, tuple[float, ...]]], columns: int) -> np.ndarray:
    """Builds a taste table.

    Args:
        parts: pairs of ranked columns (n, k) and their k values.
        columns: number of columns without the last, for 'none'.
    Returns:
        (len(parts) * n, columns + 1) float32.
    """
    tables = []
    for ranked, values in parts:
        table = np.zeros((len(ranked), columns + 1), dtype=np.float32)
        np.put_along_axis(table, ranked, np.array(values, dtype=np.float32)[None, :], axis=1)
        tables.append(table)
    return np.concatenate(tables)

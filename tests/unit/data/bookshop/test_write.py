"""The generated bookshop: deterministic, streamed equal to in-memory, and with the signals that it promises."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from reckg.data.bookshop import words as words
from reckg.data.bookshop.catalog import END, START, make_catalog
from reckg.data.bookshop.shelves import Shelves, choose_books
from reckg.data.bookshop.shop import BLOCK_USERS, Bookshop
from reckg.data.bookshop.write import generate_bookshop, write_bookshop
from reckg.data.read import read_dataset
from reckg.data.schema import TABLES, Dataset
from reckg.errors import DataError


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return generate_bookshop()


@pytest.fixture(scope="module")
def interactions(shop: Dataset) -> pl.DataFrame:
    return shop.interactions.collect()


def table(dataset: Dataset, name: str) -> pl.DataFrame:
    return getattr(dataset, name).collect()


def digest(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.write_ndjson().encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (generate_bookshop(users=300, items=120, seed=s) for s in (5, 5, 6))
    for name in TABLES:
        assert digest(table(first, name)) == digest(table(again, name)), name
        assert digest(table(first, name)) != digest(table(other, name)), name


def test_the_frames_keep_the_contract(shop: Dataset, interactions: pl.DataFrame) -> None:
    items, users = table(shop, "items"), table(shop, "users")
    assert interactions.schema == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "weight": pl.Float32,
        "event": pl.String,
    }
    assert set(items.columns) == {"item_id", *shop.item_columns.all()}
    assert set(users.columns) == {"user_id", *shop.user_columns.all()}
    assert items.schema["genres"] == pl.List(pl.String) and items["genres"].list.len().is_between(1, 2).all()
    assert items["item_id"].n_unique() == items.height == 1200
    assert users["user_id"].n_unique() == users.height == 2000
    assert set(interactions["user_id"]) <= set(users["user_id"])
    assert set(interactions["item_id"]) <= set(items["item_id"])
    assert interactions.null_count().sum_horizontal().item() == 0
    assert items.drop("series").null_count().sum_horizontal().item() == 0
    assert interactions["timestamp"].is_between(START, END).all()
    assert set(table(shop, "links")["item_id"]) < set(items["item_id"])
    assert not interactions.select("user_id", "item_id").is_duplicated().any()


def test_activity_is_skewed_and_of_the_promised_size(interactions: pl.DataFrame) -> None:
    activity = interactions.group_by("user_id").len()["len"]
    assert 35_000 <= interactions.height <= 45_000
    assert 11 <= activity.median() <= 16
    assert activity.max() > 8 * activity.median()
    popular = interactions.group_by("item_id").len()["len"].sort(descending=True)
    assert popular.head(120).sum() > 3 * 0.1 * interactions.height


def test_nobody_takes_a_book_before_its_release() -> None:
    world = Bookshop(400, 200, 1, 15.0)
    for first, readers, rng in world.blocks():
        taken = world.interactions(first, readers, rng)
        book = taken["item_id"].str.slice(1).cast(pl.Int64).to_numpy() - 1
        assert (world.books.released[book] <= taken["timestamp"].to_numpy()).all()


def test_series_are_read_in_order(shop: Dataset, interactions: pl.DataFrame) -> None:
    follows = table(shop, "triples").filter(pl.col("relation") == "follows")
    links = table(shop, "links")
    pairs = (
        follows.join(links, left_on="head", right_on="entity")
        .join(links, left_on="tail", right_on="entity", suffix="_before")
        .select("item_id", "item_id_before")
    )
    times = interactions.select("user_id", "item_id", "timestamp")
    both = (
        pairs.join(times, on="item_id")
        .join(times, left_on=["item_id_before", "user_id"], right_on=["item_id", "user_id"], suffix="_before")
    )  # fmt: skip
    assert both.height > 500
    assert (both["timestamp"] > both["timestamp_before"]).mean() > 0.85


def test_new_books_are_cold_in_the_first_eight_tenths(interactions: pl.DataFrame) -> None:
    ordered = interactions.sort("timestamp")
    train, test = ordered.head(int(0.8 * ordered.height)), ordered.tail(int(0.1 * ordered.height))
    cold = test.filter(~pl.col("item_id").is_in(train["item_id"].unique().implode()))
    assert 0.05 < cold.height / test.height < 0.3
    assert cold["item_id"].n_unique() > 20


def test_themes_are_in_the_texts_and_in_no_column(shop: Dataset) -> None:
    items = table(shop, "items")
    books = Bookshop(2000, 1200, 0, 20.0).books
    for theme in range(len(words.THEMES)):
        plots = "|".join(re.escape(plot) for plot in words.THEMES[theme].plots)
        told = items["description"].str.contains(plots).to_numpy()
        assert (told == (books.themes[:, 0] == theme)).all()
    assert items["description"].str.contains(r"^[A-Z].*\.$").all()
    assert not items["description"].str.contains(r"\ba [aeiou]|  ").any()
    # The column that a theme leans on most, the genre, still leaves it open: no theme holds half of a genre's books.
    for genre in range(len(words.GENRES)):
        of_genre = np.bincount(books.themes[books.genres[:, 0] == genre, 0])
        assert of_genre.max() < 0.5 * of_genre.sum()


def test_true_tastes_beat_popularity_and_attributes_help_cold_books() -> None:
    world = Bookshop(800, 600, 3, 20.0)
    books, n_users, n_items = world.books, 800, 600
    taken, score = [], np.empty((n_users, n_items))
    for first, readers, rng in world.blocks():
        taken.append(world.interactions(first, readers, rng))
        now, every = np.full(len(readers), END), np.tile(np.arange(n_items), (len(readers), 1))
        score[first : first + len(readers)] = world.utility(readers, np.arange(len(readers)), now, every)
    ordered = pl.concat(taken).sort("timestamp", "user_id", "item_id")
    user = ordered["user_id"].str.slice(1).cast(pl.Int64).to_numpy() - 1
    book = ordered["item_id"].str.slice(1).cast(pl.Int64).to_numpy() - 1
    cut = int(0.85 * len(user))
    seen, relevant = np.zeros((2, n_users, n_items), dtype=bool)
    seen[user[:cut], book[:cut]] = True
    relevant[user[cut:], book[cut:]] = True
    everyone = np.arange(n_users)
    popularity = np.tile(seen.sum(axis=0), (n_users, 1)).astype(float)
    popular, oracle = (_hit_share(s, seen, relevant, everyone) for s in (popularity, score + np.log(books.popularity)))
    assert oracle > 2.5 * popular

    cold = ~seen.any(axis=0)
    assert cold.sum() > 10
    traits = np.concatenate([np.eye(n)[c] for n, c in ((100, books.author), (14, books.genres[:, 0]))], axis=1)
    profile = (seen @ (traits / traits.sum(axis=0).clip(1) ** 0.5)) @ traits.T
    readers_of_cold = np.flatnonzero(relevant[:, cold].any(axis=1) & seen.any(axis=1))
    by_profile = _mean_rank(profile[:, cold], relevant[:, cold], readers_of_cold)
    assert by_profile < 0.42  # at random 0.5; 0 is best


def _hit_share(score: np.ndarray, seen: np.ndarray, relevant: np.ndarray, users: np.ndarray) -> float:
    """Share of the relevant items among the ten best unseen ones."""
    top = np.argsort(-np.where(seen, -np.inf, score), axis=1, kind="stable")[:, :10]
    return float(np.take_along_axis(relevant, top, axis=1)[users].sum() / relevant[users].sum())


def _mean_rank(score: np.ndarray, relevant: np.ndarray, users: np.ndarray) -> float:
    """Mean relative rank, 0 to 1, of relevant items; ties count half."""
    ranks = []
    for user in users:
        for own in score[user, relevant[user]]:
            ranks.append(((score[user] > own).mean() + (score[user] >= own).mean()) / 2)
    return float(np.mean(ranks))


def test_written_in_blocks_equals_generated_in_memory(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"users": BLOCK_USERS + 300, "items": 60, "seed": 2, "interactions_per_user": 3.0}
    rows = write_bookshop(tmp_path / "shop", **settings)
    expected = generate_bookshop(**settings)
    back = read_dataset(tmp_path / "shop")
    assert not back.notes
    for name in TABLES:
        frame = table(expected, name)
        assert_frame_equal(frame, pl.read_parquet(tmp_path / "shop" / f"{name}.parquet"))
        assert_frame_equal(frame, table(back.dataset, name))
        assert rows[name] == frame.height
    assert back.dataset.item_columns == expected.item_columns
    assert [path.name for path in tmp_path.iterdir()] == ["shop"], "the blocks are gone"


def test_a_full_folder_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_bookshop(tmp_path, users=50, items=50, interactions_per_user=5)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("wrong", [{"users": 0}, {"items": 11}, {"seed": -1}, {"interactions_per_user": 400.0}])
def test_sizes_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="a bookshop needs"):
        generate_bookshop(**{"users": 10, "items": 1200, **wrong})


def test_the_smallest_shop_has_books_and_readers() -> None:
    for seed in range(8):  # some of these catalogues have no series at all
        tiny = generate_bookshop(users=1, items=12, seed=seed, interactions_per_user=3.0)
        assert table(tiny, "interactions").height >= 1
        assert table(tiny, "items").height == 12


def test_names_stay_distinct_beyond_all_combinations() -> None:
    books = make_catalog(30_000, np.random.default_rng(0))
    assert len(books.authors.name) == 5000 > len(words.FIRST_NAMES) * len(words.LAST_NAMES)
    assert books.authors.name.n_unique() == 5000


def test_shelves_draw_in_proportion_to_popularity_within_the_group() -> None:
    popularity = np.array([0.1, 0.2, 0.3, 0.4])
    shelves = Shelves(np.array([[0, 1], [0, -1], [1, -1], [0, 1]]), popularity, 3)
    drawn = shelves.draw(np.repeat([0, 1, 2], 40_000), np.random.default_rng(0)).reshape(3, -1)
    share = np.stack([np.bincount(row[row >= 0], minlength=4) for row in drawn]) / 40_000
    expected = np.array([[0.1, 0.2, 0, 0.4], [0.1, 0, 0.3, 0.4], [0, 0, 0, 0]])
    expected[:2] /= expected[:2].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share, expected, atol=0.01)
    assert (drawn[2] == -1).all()


def test_a_key_goes_to_the_first_row_that_wants_it() -> None:
    score = np.array([[3.0, 1.0], [3.0, 1.0], [3.0, -np.inf]])
    key = np.array([[7, 8], [7, 9], [7, 7]])
    rows, columns = choose_books(score, key)
    assert rows.tolist() == [0, 1] and columns.tolist() == [0, 1]

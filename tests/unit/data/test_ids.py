"""IdMap: a bijection, with every way to break it refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.data.ids import IdMap, code_ids, codes_of
from reckg.errors import DataError, UnknownIdError


def test_there_and_back() -> None:
    ids = IdMap(["b", "a", "c d"], "item")
    assert len(ids) == 3 and "c d" in ids and "x" not in ids
    assert [ids.idx(raw) for raw in ("b", "a", "c d")] == [0, 1, 2]
    assert ids.get("x") is None and ids.get("a") == 1
    assert ids.indices(["c d", "b"]).tolist() == [2, 0]
    assert ids.indices([]).dtype == np.int64
    assert ids.raw(np.array([2, 0, 2])) == ["c d", "b", "c d"]
    assert ids.raw(np.array([], dtype=np.int64)) == []


def test_from_a_series() -> None:
    assert IdMap(pl.Series("item_id", ["q", "p"])).ids.to_list() == ["q", "p"]


@pytest.mark.parametrize(
    ("raws", "message"),
    [
        (["a", ""], "1 of 2 items are empty"),
        (pl.Series(["a", None, None], dtype=pl.String), "2 of 3 items are empty"),
        (["a", "b", "a"], "1 of 3 items are repeated .first: 'a'"),
    ],
)
def test_bad_ids_are_refused(raws: list[str] | pl.Series, message: str) -> None:
    with pytest.raises(DataError, match=message):
        IdMap(raws, "item")


def test_unknown_ids_are_named() -> None:
    ids = IdMap(["a", "b"], "user")
    with pytest.raises(UnknownIdError, match=r"unknown user 'x': not among the 2"):
        ids.idx("x")
    with pytest.raises(UnknownIdError, match=r"2 of 3 users are unknown \(first: 'x'\)"):
        ids.indices(["a", "x", "y"])
    for out in (-1, 2):
        with pytest.raises(UnknownIdError, match=r"out of range 0\.\.1"):
            ids.raw(np.array([0, out]))


def test_codes_are_places_among_the_sorted_ids_and_rows_stay() -> None:
    frame = pl.LazyFrame({"weight": [1, 2, 3], "item_id": ["b", "a", "b"], "user_id": ["9", "10", "x"]})
    coded = code_ids(frame)
    assert coded.frame.rows() == [(1, 1, 1), (0, 0, 2), (2, 1, 3)] and coded.frame.columns[2] == "weight"
    assert coded.user_id.to_list() == ["10", "9", "x"] and coded.item_id.to_list() == ["a", "b"]


def test_whole_numbers_are_their_own_codes() -> None:
    assert codes_of(pl.Series([7, 3])).tolist() == [7, 3]
    assert codes_of(pl.Series(["b", None, "b", "a"])).tolist() == [2, 0, 2, 1]

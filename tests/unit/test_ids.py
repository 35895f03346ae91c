"""IdMap: a bijection, with every way to break it refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reckg.data.ids import IdMap
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

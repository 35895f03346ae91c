"""Tables handed over in Python: frames and files become the same dataset folder, and errors name the argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from reckg.data.read import read_dataset
from reckg.errors import DataError
from reckg.pipeline.given_tables import write_tables

EVENTS = pl.DataFrame(
    {"user_id": ["a", "a", "b"], "item_id": ["1", "2", "2"], "timestamp": [3, 4, 5], "weight": [1.0, 2.0, 0.5]}
)
ITEMS = pl.DataFrame(
    {"item_id": ["1", "2"], "title": ["One", None], "price": [1.5, None], "genres": [["x"], ["x", "y"]]}
)


def frames(folder: Path, given: dict[str, Any], settings: dict[str, Any] | None = None) -> dict[str, pl.DataFrame]:
    write_tables(given, settings or {}, folder / "dataset")
    dataset, _ = read_dataset(folder / "dataset")
    return {name: getattr(dataset, name).collect() for name in given}


def test_polars_pandas_and_paths_give_the_same_dataset(tmp_path: Path) -> None:
    expected = frames(tmp_path / "polars", {"interactions": EVENTS, "items": ITEMS})
    assert expected["items"]["genres"].to_list() == [["x"], ["x", "y"]]
    EVENTS.write_csv(tmp_path / "events.csv")
    ITEMS.write_parquet(tmp_path / "items.parquet")
    others = {
        "lazy": {"interactions": EVENTS.lazy(), "items": ITEMS.lazy()},
        "paths": {"interactions": tmp_path / "events.csv", "items": str(tmp_path / "items.parquet")},
        "pandas": {
            "interactions": pd.DataFrame(EVENTS.to_dict(as_series=False)),
            "items": pd.DataFrame(ITEMS.to_dicts()),
        },
    }
    for name, given in others.items():
        found = frames(tmp_path / name, given)
        for table, frame in expected.items():
            assert frame.equals(found[table]), (name, table)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["1", "2"], dtype="category"),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1, 2]),
        pd.Series(["1", "2"], dtype=object),
    ],
)
def test_pandas_ids_of_any_type(tmp_path: Path, column: pd.Series) -> None:
    given = pd.DataFrame({"user_id": ["a", "b"], "item_id": column})
    assert frames(tmp_path, {"interactions": given})["interactions"]["item_id"].to_list() == ["1", "2"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_pandas_times_are_utc_seconds(tmp_path: Path, unit: str, zone: str | None) -> None:
    times = pd.Series(pd.to_datetime(["2024-01-01 12:00:00", "2024-01-01 12:00:01"])).dt.as_unit(unit)
    given = pd.DataFrame({"user_id": ["a", "b"], "item_id": ["1", "2"], "timestamp": times.dt.tz_localize(zone)})
    expected = 1704110400 - (3600 if zone else 0)
    found = frames(tmp_path, {"interactions": given})["interactions"]["timestamp"].to_list()
    assert found == [expected, expected + 1]


def test_settings_give_name_and_kinds(tmp_path: Path) -> None:
    settings = {"name": "shop", "items": {"categorical": ["title"]}}
    write_tables({"interactions": EVENTS, "items": ITEMS}, settings, tmp_path / "dataset")
    dataset, notes = read_dataset(tmp_path / "dataset")
    assert (dataset.name, dataset.item_columns.categorical, dataset.item_columns.all()) == (
        "shop",
        ("title",),
        ("title",),
    )
    assert notes == ()


def test_inferred_kinds_are_noted(tmp_path: Path) -> None:
    notes = write_tables({"interactions": EVENTS, "items": ITEMS}, {}, tmp_path / "dataset")
    assert any(note.startswith("items: the kinds of its columns are not given") for note in notes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"interactions": EVENTS.drop("item_id")}, r"^interactions: no column 'item_id'; the columns are"),
        (
            {"interactions": EVENTS.with_columns(user_id=pl.Series(["a", "", None]))},
            r"^interactions: 2 of 3 values of 'user_id' are empty \(first: row 2\)",
        ),
        (
            {"interactions": pd.DataFrame({"user_id": ["a", None], "item_id": ["1", "2"]})},
            r"^interactions: 1 of 2 values of 'user_id' are empty \(first: row 2\)",
        ),
        (
            {"interactions": EVENTS, "items": ITEMS.with_columns(item_id=pl.lit("1"))},
            r"^items: 1 values of 'item_id' have rows that differ \(first: row 1",
        ),
        ({"interactions": EVENTS, "triples": EVENTS}, r"^triples: no column 'head', 'relation', 'tail'"),
        ({"interactions": None}, r"^interactions is None"),
        ({"interactions": [1, 2]}, r"^interactions is of type list; give a Polars or pandas data frame"),
        ({"interactions": "missing.parquet"}, r"^interactions: missing.parquet does not exist"),
        (
            {"interactions": pd.DataFrame({"user_id": ["a", 1], "item_id": ["1", "2"]})},
            r"^interactions: the values of column 'user_id' have several types \(int, str\)",
        ),
        (
            {"interactions": pd.DataFrame([["a", "1", "2"]], columns=["user_id", "item_id", "item_id"])},
            r"^interactions: the column 'item_id' occurs more than once",
        ),
    ],
)
def test_errors_name_argument_column_count_and_row(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_tables(given, {}, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^settings: 1 problem: unknown key 'nam' .did you mean 'name'"):
        write_tables({"interactions": EVENTS}, {"nam": "shop"}, tmp_path / "dataset")
    with pytest.raises(DataError, match="names columns of users"):
        write_tables({"interactions": EVENTS}, {"users": {"text": ["name"]}}, tmp_path / "dataset")

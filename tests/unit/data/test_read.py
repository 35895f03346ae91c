"""Reading and writing dataset folders: what is read, what is refused, what is noted."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from reckg.data.read import read_dataset, write_dataset
from reckg.data.schema import ColumnKinds, Dataset
from reckg.errors import DataError

ITEMS = "item_id,title,genre,year\nx,A tale,crime|drama,1990\ny,Another,drama,2001\nz,Third one,,1985\n"


def folder_of(tmp_path: Path, **files: str | bytes) -> Path:
    folder = tmp_path / "ds"
    folder.mkdir()
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def toy() -> Dataset:
    return Dataset(
        name='quoted "toy" \x7f',
        interactions=pl.LazyFrame(
            {
                "user_id": ["a", "a", "b c"],
                "item_id": ["x", "y", "x"],
                "timestamp": [1_000_000_000, 1_000_000_005, 1_000_000_009],
                "weight": pl.Series([1.0, 2.5, 5.0], dtype=pl.Float32),
                "event": ["view", "buy", "view"],
            }
        ),
        items=pl.LazyFrame(
            {"item_id": ["x", "y"], "title": ["A", None], "maker": ["M", "N"], "year": [1.0, None], "tag": [["p"], []]},
            schema_overrides={"tag": pl.List(pl.String)},
        ),
        users=pl.LazyFrame({"user_id": ["a", "b c"], "city": ["Ulm", None]}),
        triples=pl.LazyFrame({"head": ["e"], "relation": ["by"], "tail": ["f"]}),
        links=pl.LazyFrame({"item_id": ["x"], "entity": ["e"]}),
        item_columns=ColumnKinds(text=("title",), categorical=("maker",), number=("year",), list=("tag",)),
        user_columns=ColumnKinds(categorical=("city",)),
        source="made up",
        licence="CC0",
    )


def test_written_dataset_reads_back_the_same(tmp_path: Path) -> None:
    dataset = toy()
    write_dataset(dataset, tmp_path / "out")
    again, notes = read_dataset(tmp_path / "out")
    assert notes == ()
    for name in ("name", "source", "licence", "time", "item_columns", "user_columns"):
        assert getattr(again, name) == getattr(dataset, name)
    for table in ("interactions", "items", "users", "triples", "links"):
        assert_frame_equal(getattr(again, table).collect(), getattr(dataset, table).collect())


def test_write_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset(toy(), out)
    with pytest.raises(DataError, match=r"not empty .*--overwrite"):
        write_dataset(toy(), out)
    write_dataset(toy(), out, overwrite=True)
    (out / "thesis.doc").write_text("precious")
    with pytest.raises(DataError, match=r"no data set's \(thesis.doc\)"):
        write_dataset(toy(), out, overwrite=True)
    assert (out / "thesis.doc").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"is a file"):
        write_dataset(toy(), tmp_path / "file")


def test_failed_write_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset(toy(), out)
    before = (out / "dataset.toml").read_bytes()
    broken = Dataset("b", toy().interactions.filter(pl.col("absent") > 1), toy().items)
    with pytest.raises(DataError, match=r"interactions cannot be read"):
        write_dataset(broken, out, overwrite=True)
    assert (out / "dataset.toml").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwriting_the_folder_that_is_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset(toy(), out)
    dataset, _ = read_dataset(out)
    write_dataset(dataset, out, overwrite=True)
    assert_frame_equal(read_dataset(out).dataset.interactions.collect(), toy().interactions.collect())


def test_csv_without_settings_infers_kinds_and_says_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, interactions__csv="user_id,item_id,timestamp\nu,x,1000000000\n", items__csv=ITEMS)
    dataset, notes = read_dataset(folder)
    assert dataset.item_columns == ColumnKinds(text=("title",), number=("year",), list=("genre",))
    assert any("inferred" in note and "text: title" in note for note in notes)
    items = dataset.items.collect()
    assert items["genre"].to_list() == [["crime", "drama"], ["drama"], None]
    assert items["year"].to_list() == [1990.0, 2001.0, 1985.0]
    assert dataset.name == "ds"


@pytest.mark.parametrize("name", ["interactions.csv", "interactions.tsv", "interactions.jsonl", "interactions.parquet"])
def test_every_format_gives_the_same_frame_from_any_path(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame(
        {"user_id": ["a b", "c"], "item_id": ["1", "2"], "timestamp": [10**9, 10**9 + 1], "weight": [1.5, 2]}
    )
    folder = tmp_path / "d[s] *"
    folder.mkdir()
    path = folder / name
    if name.endswith("csv"):
        frame.write_csv(path)
    elif name.endswith("tsv"):
        frame.write_csv(path, separator="\t")
    elif name.endswith("jsonl"):
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    read = read_dataset(folder).dataset
    assert_frame_equal(read.interactions.collect(), frame.with_columns(pl.col("weight").cast(pl.Float32)))
    assert read.items.collect()["item_id"].to_list() == ["1", "2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "interactions.csv is empty"),
        ("\n\n \n", "interactions.csv is empty"),
        ("user_id,item_id\n", "holds no rows"),
        ("user,item_id\na,b\n", "no column 'user_id'; the columns are 'user', 'item_id'"),
        ("user_id;item_id\na;b\n", "no column 'user_id'.*look separated by semicolons"),
        ("user_id,item_id\na,b\nc\n", "1 of 2 lines have another number of fields.*first: line 3 has 1: 'c'"),
        ("user_id,item_id\na,b\nc,d,e\n", "first: line 3 has 3"),
        ("user_id,item_id\na,b\n,d\n,e\n", "2 of 3 values of 'user_id' are empty .first: line 3"),
        (
            "user_id,item_id,weight\na,b,3\na,c,good\n",
            "1 of 2 values of 'weight' are no finite number .first: line 3, 'good'",
        ),
        ("user_id,item_id,weight\na,b,inf\n", "no finite number"),
        ("user_id,item_id,weight\na,b,\n", "1 of 1 values of 'weight'"),
        ("user_id,item_id,timestamp\na,b,soon\n", "'timestamp' are neither a number nor a date and time.*'soon'"),
        ("user_id,item_id,timestamp\na,b,1000000000\na,c,soon\n", "1 of 2 values of 'timestamp' are no number"),
        ("user_id,item_id,timestamp\na,b,-5\n", "before 1970"),
        ("user_id,item_id,timestamp\na,b,1e30\n", "too large"),
        (
            "user_id,item_id,timestamp\na,b,1000000000\na,c,1000000000000\n",
            "different units: 1 in seconds .first: line 2",
        ),
        (
            "user_id,item_id,split\na,b,train\na,c,dev\n",
            "1 of 2 values of 'split' are none of train, valid, test.*'dev'",
        ),
        ("user_id,user_id\na,b\n", "repeated"),
        ("user_id,,item_id\na,b,c\n", "1 of 3 names in the first line are empty"),
        (b"user_id,item_id\na,\xe4\xff\nb,c\n", "1 of 3 lines are not UTF-8 .first: line 2.*iconv"),
        (b"user_id,item_id\na,b\0c\n", "1 NUL bytes"),
        ("user_id,item_id\ra,b\r", "CR alone"),
        ('user_id,item_id\na,"b\nc,d\n', "interactions.csv cannot be read"),
        ('user_id,item_id\n"a","b"\n"c"\n', "another number of fields"),
    ],
)
def test_hostile_interactions_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    folder = folder_of(tmp_path, interactions__csv=content)
    with pytest.raises(DataError, match=message):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("content", "note", "rows"),
    [
        (b"\xef\xbb\xbfuser_id,item_id\na,b\n", "byte order mark", [("a", "b")]),
        (b"user_id,item_id\r\na,b\r\nc,d\r\n", "3 of 3 lines end in CR LF", [("a", "b"), ("c", "d")]),
        (b'user_id,item_id\r\n"a, z",b\r\n', "2 of 2 lines end in CR LF", [("a, z", "b")]),
        (b"user_id,item_id\na,b\n\nc,d\n\n", "2 of 4 lines are blank", [("a", "b"), ("c", "d")]),
        (b"user_id,item_id\na,b\nc,d", "last line has no line break", [("a", "b"), ("c", "d")]),
        (b"user_id,item_id\n a,b\n", "1 values of 'user_id' begin or end with white space", [(" a", "b")]),
        (b"user_id,item_id,page\na,b,1\n", "column 'page' left out", [("a", "b")]),
    ],
)
def test_tolerated_oddities_are_noted(tmp_path: Path, content: bytes, note: str, rows: list[tuple[str, str]]) -> None:
    dataset, notes = read_dataset(folder_of(tmp_path, interactions__csv=content))
    assert any(note in said for said in notes), notes
    assert dataset.interactions.collect().rows() == rows


def test_tab_separated_values_have_no_quotation(tmp_path: Path) -> None:
    dataset, notes = read_dataset(folder_of(tmp_path, interactions__tsv='user_id\titem_id\n"a"\tb c\n'))
    assert dataset.interactions.collect().rows() == [('"a"', "b c")]
    assert "interactions.tsv: 1 lines hold quotation marks; kept as part of the values." in notes


def test_wrong_kind_of_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not there"):
        read_dataset(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"is a file"):
        read_dataset(tmp_path / "file")
    folder = folder_of(tmp_path, notes__txt="hello")
    with pytest.raises(DataError, match=r"no interactions.parquet.*notes.txt"):
        read_dataset(folder)
    (folder / "interactions.parquet").mkdir()
    with pytest.raises(DataError, match=r"is a folder, expected a file"):
        read_dataset(folder)
    (folder / "interactions.csv").write_text("user_id,item_id\na,b\n")
    with pytest.raises(DataError, match=r"interactions.parquet and interactions.csv; keep one"):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (pl.Series([1_500_000_000_123, 1_500_000_001_999]), "milliseconds"),
        (pl.Series([1_500_000_000_123_456, 1_500_000_001_999_000]), "microseconds"),
        (pl.Series([1_500_000_000_123_456_789, 1_500_000_001_999_000_000]), "nanoseconds"),
        (pl.Series([1_500_000_000.25, 1_500_000_001.0]), ""),
        (pl.Series(["1500000000", "1500000001.5"]), ""),
        (pl.Series(["2017-07-14T02:40:00Z", "2017-07-14 04:40:01+02:00"]), ""),
        (pl.Series(["2017-07-14T02:40:00", "2017-07-14 02:40:01.7"]), ""),
        (pl.Series([datetime(2017, 7, 14, 2, 40), datetime(2017, 7, 14, 2, 40, 1)]), ""),
        (pl.Series([datetime(2017, 7, 14, 2, 40, tzinfo=UTC), datetime(2017, 7, 14, 2, 40, 1, tzinfo=UTC)]), ""),
    ],
)
def test_timestamps_of_every_form_become_seconds(tmp_path: Path, values: pl.Series, unit: str) -> None:
    folder = tmp_path / "ds"
    folder.mkdir()
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "x"], "timestamp": values})
    frame.write_parquet(folder / "interactions.parquet")
    dataset, notes = read_dataset(folder)
    assert dataset.interactions.collect()["timestamp"].to_list() == [1_500_000_000, 1_500_000_001]
    assert any("2 of 2" in note and unit in note for note in notes) == bool(unit)


@pytest.mark.parametrize(
    ("values", "seconds", "shown"),
    [
        (pl.Series([20240131, 20240201]), [1_706_659_200, 1_706_745_600], "20240131 is 2024-01-31"),
        (pl.Series(["20240131", "20240201"]), [1_706_659_200, 1_706_745_600], "20240131 is 2024-01-31"),
        (pl.Series([20240131103000, 20240201000000]), [1_706_697_000, 1_706_745_600], "is 2024-01-31 10:30:00"),
    ],
)
def test_dates_written_as_numbers_are_dates(tmp_path: Path, values: pl.Series, seconds: list[int], shown: str) -> None:
    folder = tmp_path / "ds"
    folder.mkdir()
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "x"], "timestamp": values})
    frame.write_parquet(folder / "interactions.parquet")
    dataset, notes = read_dataset(folder)
    assert dataset.interactions.collect()["timestamp"].to_list() == seconds
    assert any(shown in note for note in notes)


@pytest.mark.parametrize("ahead", [4_102_444_800, 4_102_444_800_000, "2100-01-01T00:00:00Z", "2100-01-01"])
def test_a_time_ahead_of_the_clock_is_refused_by_its_date(tmp_path: Path, ahead: object) -> None:
    unit = 1000 if isinstance(ahead, int) and ahead > 10**11 else 1
    before = 1_600_000_000 * unit if isinstance(ahead, int) else "2020-09-13T12:26:40Z"
    folder = tmp_path / "ds"
    folder.mkdir()
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "x"], "timestamp": [before, ahead]})
    frame.write_parquet(folder / "interactions.parquet")
    with pytest.raises(DataError, match=r"1 of 2 values .* ahead of the clock.*\(first: row 2, '2100-01-01"):
        read_dataset(folder)
    soon = int(time.time()) + 3600  # clocks of devices are wrong
    frame.with_columns(pl.Series("timestamp", [1_600_000_000, soon])).write_parquet(folder / "interactions.parquet")
    assert read_dataset(folder).dataset.interactions.collect()["timestamp"].to_list() == [1_600_000_000, soon]


def test_day_numbers_of_a_sheet_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, interactions__csv="user_id,item_id,timestamp\na,x,45292\nb,x,45293.5\n")
    with pytest.raises(DataError, match=r"from 45292 to 45293.5.*day numbers of a sheet.*2024-01-31T10:00:00Z"):
        read_dataset(folder)


def test_repeated_items(tmp_path: Path) -> None:
    events = "user_id,item_id\na,x\n"
    folder = folder_of(tmp_path, interactions__csv=events, items__csv="item_id,maker\nx,M\ny,N\nx,M\n")
    dataset, notes = read_dataset(folder)
    assert dataset.items.collect()["item_id"].to_list() == ["x", "y"]
    assert any("1 of 3 rows repeat another one word for word" in note for note in notes)
    (folder / "items.csv").write_text("item_id,maker\nx,M\ny,N\nx,P\n")
    with pytest.raises(DataError, match=r"1 values of 'item_id' have rows that differ \(first: line 2, 'x'\)"):
        read_dataset(folder)


def test_items_without_a_row_are_added(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, interactions__csv="user_id,item_id\na,x\na,q\nb,q\n", items__csv=ITEMS)
    dataset, notes = read_dataset(folder)
    items = dataset.items.collect()
    assert items["item_id"].to_list() == ["x", "y", "z", "q"]
    assert items["title"].to_list()[-1] is None
    assert any("1 of 2 item_ids of interactions.csv have no row (first: 'q')" in note for note in notes)
    (folder / "interactions.csv").write_text("user_id,item_id\na,001\n")
    with pytest.raises(DataError, match=r"none of the 1 item_ids of interactions.csv occurs"):
        read_dataset(folder)


def test_settings_are_checked(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, interactions__csv="user_id,item_id\na,x\n", items__csv=ITEMS)
    settings = folder / "dataset.toml"
    settings.write_text('nmae = "x"\ntime = "gmt"\n[items]\ntexts = ["title"]\nnumber = "year"\n')
    with pytest.raises(DataError, match=r"4 problems") as caught:
        read_dataset(folder)
    assert "did you mean 'name'?" in str(caught.value)
    assert "did you mean 'text'?" in str(caught.value)
    settings.write_text("name = ")
    with pytest.raises(DataError, match=r"dataset.toml cannot be read"):
        read_dataset(folder)
    settings.write_text('time = "utc"\n')
    with pytest.raises(DataError, match=r"no column 'timestamp', though"):
        read_dataset(folder)
    settings.write_text('[items]\ntext = ["headline"]\n')
    with pytest.raises(DataError, match=r"items.csv: no column 'headline'"):
        read_dataset(folder)
    settings.write_text('[items]\nnumber = ["title"]\n')
    with pytest.raises(DataError, match=r"3 of 3 values of 'title' are no number .first: line 2, 'A tale'"):
        read_dataset(folder)
    settings.write_text('[items]\ntext = ["title"]\nlist = ["title"]\n')
    with pytest.raises(DataError, match=r"'title' is given more than one kind"):
        read_dataset(folder)
    settings.write_text('[users]\ntext = ["bio"]\n')
    with pytest.raises(DataError, match=r"there is no table users"):
        read_dataset(folder)
    settings.write_text('list_separator = ";"\n[items]\ntext = ["title"]\nlist = ["genre"]\n')
    dataset, notes = read_dataset(folder)
    assert dataset.items.collect()["genre"].to_list()[0] == ["crime|drama"]
    assert any("'year' left out" in note for note in notes)


def test_json_lines(tmp_path: Path) -> None:
    good = '\ufeff{"user_id": 7, "item_id": "x", "timestamp": 1000000000}\n\n{"user_id": 8, "item_id": "y"}\n'
    folder = folder_of(tmp_path, interactions__jsonl=good)
    with pytest.raises(DataError, match=r"1 of 2 values of 'timestamp' are empty"):
        read_dataset(folder)
    (folder / "interactions.jsonl").write_text(good.replace(', "timestamp": 1000000000', ""))
    (folder / "items.jsonl").write_text('{"item_id": "x", "tag": ["p", "", "q"]}\n{"item_id": "y", "tag": []}\n')
    dataset, _ = read_dataset(folder)
    assert dataset.interactions.collect().rows() == [("7", "x"), ("8", "y")]
    assert dataset.items.collect()["tag"].to_list() == [["p", "q"], []]
    (folder / "items.jsonl").write_text('{"item_id": "x"}\n{"item_id": "y"\n[3]\n')
    with pytest.raises(DataError, match=r"2 of 3 lines are no JSON object \(first: line 2\)"):
        read_dataset(folder)
    (folder / "items.jsonl").write_text('{"item_id": {"a": 1}}\n{"item_id": 2}\n')
    with pytest.raises(DataError, match=r"items.jsonl"):
        read_dataset(folder)


def test_truncated_parquet_is_refused_by_name(tmp_path: Path) -> None:
    write_dataset(toy(), tmp_path / "out")
    path = tmp_path / "out" / "items.parquet"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"items.parquet cannot be read"):
        read_dataset(tmp_path / "out")
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"items.parquet is empty"):
        read_dataset(tmp_path / "out")


def test_ids_of_a_type_that_loses_them_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ds"
    folder.mkdir()
    pl.DataFrame({"user_id": [1.0], "item_id": ["x"]}).write_parquet(folder / "interactions.parquet")
    with pytest.raises(DataError, match=r"'user_id' is of type Float64"):
        read_dataset(folder)


def test_users_triples_and_links(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        interactions__csv="user_id,item_id\na,x\nb,x\n",
        items__csv=ITEMS,
        users__tsv="user_id\tcity\na\tUlm\n",
        triples__csv="head,relation,tail\ne,by,f\ne,,f\n",
        links__csv="item_id,entity\nx,e\nx,f\nq,e\n",
    )
    with pytest.raises(DataError, match=r"triples.csv: 1 of 2 values of 'relation' are empty .first: line 3"):
        read_dataset(folder)
    (folder / "triples.csv").write_text("head,relation,tail\ne,by,f\n")
    dataset, notes = read_dataset(folder)
    assert dataset.users is not None
    assert dataset.users.collect().rows() == [("a", "Ulm"), ("b", None)]
    assert any("1 of 3 links are of items that the items table lacks" in note for note in notes)
    assert any("1 links repeat an item" in note for note in notes)


def test_the_items_of_an_order_have_no_order(tmp_path: Path) -> None:
    rows = (
        "user_id,item_id,timestamp,order_id\na,x,1000000000,o1\na,y,1000000060,o1\na,z,1000000030,\nb,x,1000000090,o1\n"
    )
    dataset, notes = read_dataset(folder_of(tmp_path, interactions__csv=rows))
    frame = dataset.interactions.collect()
    assert frame.columns == ["user_id", "item_id", "timestamp"]
    assert frame["timestamp"].to_list() == [1_000_000_060, 1_000_000_060, 1_000_000_030, 1_000_000_090]
    assert any("the items of an order_id count as taken at its last row's time" in note for note in notes)

"""Properties of data that hold for every input: splits, ids, cleaning, and loaders over broken bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reckg.data.clean import clean_interactions
from reckg.data.contract import NotedDataset
from reckg.data.ids import IdMap
from reckg.data.importers.kgat import import_kgat
from reckg.data.importers.kgcn import import_kgcn
from reckg.data.importers.movielens import import_movielens
from reckg.data.importers.recbole import import_recbole
from reckg.data.importers.sequences import import_sequences
from reckg.data.importers.tables import import_tables
from reckg.data.read import read_dataset, write_dataset
from reckg.data.schema import ColumnKinds, Dataset
from reckg.data.split import split_interactions
from reckg.data.split_checks import check_split
from reckg.errors import DataError

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

EVENTS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 8), st.integers(0, 30), st.sampled_from([1.0, 2.0, 3.0])),
    min_size=1,
    max_size=60,
)


def frame_of(events: list[tuple[int, int, int, float]]) -> pl.LazyFrame:
    return pl.LazyFrame(
        [(f"u{u}", f"i{i}", t, w) for u, i, t, w in events],
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "weight": pl.Float32},
        orient="row",
    )


@SLOW
@given(
    EVENTS,
    st.sampled_from(["global-time", "leave-last-out", "per-user-ratio", "cold-items"]),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
    st.integers(0, 2**31),
)
def test_a_split_is_a_partition_in_time_order(
    events: list[tuple[int, int, int, float]], kind: str, valid: float, test: float, seed: int
) -> None:
    frame = frame_of(events)
    try:
        result = split_interactions(frame, kind=kind, valid=valid, test=test, time="utc", seed=seed)
    except DataError as error:
        assert "leaves no" in str(error) or "different timestamps" in str(error)
        return
    rows = result.frame.collect()
    columns = ["user_id", "item_id", "timestamp", "weight"]
    assert rows.select(columns).sort(columns).equals(frame.collect().sort(columns))
    assert set(rows["split"].to_list()) == {"train", "valid", "test"}
    checks = check_split(
        result.frame,
        kind=kind,
        time="utc",
        cutoff_time=result.cutoff_time,
        valid_cutoff_time=result.valid_cutoff_time,
        n_rows=len(events),
    )
    assert checks["partition"]["passed"]
    part = {name: rows.filter(pl.col("split") == name)["timestamp"].to_list() for name in ("train", "valid", "test")}
    if kind == "global-time":
        assert max(part["train"]) == result.cutoff_time < min(part["valid"])
        assert max(part["valid"]) == result.valid_cutoff_time < min(part["test"])
    if kind == "leave-last-out":
        for _, own in rows.group_by("user_id"):
            held = own.filter(pl.col("split") != "train")
            assert len(held) == (2 if len(own) >= 3 else 0)
    if kind == "per-user-ratio":
        assert rows.filter(pl.col("split") == "train")["user_id"].n_unique() == rows["user_id"].n_unique()
    if kind == "cold-items":
        items = {name: set(rows.filter(pl.col("split") == name)["item_id"].to_list()) for name in part}
        assert sum(map(len, items.values())) == rows["item_id"].n_unique()
        assert len(items["test"]) - len(items["valid"]) in (0, 1)


@pytest.mark.parametrize("kind", ["per-user-ratio", "cold-items"])
@SLOW
@given(EVENTS, st.randoms(use_true_random=False), st.integers(0, 1000))
def test_a_random_split_does_not_depend_on_the_order_of_rows(
    kind: str, events: list[tuple[int, int, int, float]], random: Random, seed: int
) -> None:
    unique = sorted(set(events))
    shuffled = list(unique)
    random.shuffle(shuffled)
    results: list[object] = []
    for rows in (unique, shuffled):
        try:
            split = split_interactions(frame_of(rows), kind=kind, valid=0.2, test=0.2, time="none", seed=seed)
            results.append(split.frame.collect().sort(pl.all()).rows())
        except DataError as error:
            results.append(str(error))
    assert results[0] == results[1]


@SLOW
@given(EVENTS, st.sampled_from([None, 2.0]), st.sampled_from(["keep", "first", "last", "sum"]), st.integers(0, 4))
def test_cleaning_counts_what_it_drops(
    events: list[tuple[int, int, int, float]], min_weight: float | None, duplicates: str, k_core: int
) -> None:
    try:
        frame, counts = clean_interactions(
            frame_of(events), min_weight=min_weight, duplicates=duplicates, k_core=k_core
        )
    except DataError as error:
        assert "cleaning leaves none" in str(error)
        return
    rows = frame.collect()
    assert len(rows) == counts["rows"] == len(events) - sum(counts[c] for c in counts if c.startswith("dropped"))
    for column in ("user_id", "item_id"):
        assert (rows.group_by(column).len()["len"] >= k_core).all()
    if duplicates != "keep":
        assert rows.select("user_id", "item_id").is_unique().all()
    if duplicates == "sum" and k_core < 2 and min_weight is None:
        assert rows["weight"].sum() == sum(w for *_, w in events)


@SLOW
@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.data())
def test_ids_round_trip(raws: list[str], data: st.DataObject) -> None:
    ids = IdMap(raws)
    assert ids.raw(ids.indices(raws)) == raws
    assert [ids.idx(raw) for raw in raws] == list(range(len(raws)))
    if raws:
        some = data.draw(st.lists(st.integers(0, len(raws) - 1)))
        assert ids.indices(ids.raw(np.array(some, dtype=np.int64))).tolist() == some


def _tables(ending: str) -> dict[str, bytes]:
    frames = {
        "interactions": pl.DataFrame(
            {"user_id": ["a", "b c", "d"], "item_id": ["x", "y", "x"], "timestamp": [10**9 + n for n in range(3)]}
        ),
        "items": pl.DataFrame({"item_id": ["x", "y"], "title": ['The "A"', "B, or C"], "year": [1990, None]}),
    }
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, frame in frames.items():
            path = Path(folder) / f"{name}.{ending}"
            if ending == "csv":
                frame.write_csv(path)
            elif ending == "tsv":
                frame.write_csv(path, separator="\t", quote_style="never")
            elif ending == "jsonl":
                frame.write_ndjson(path)
            else:
                frame.write_parquet(path)
            files[path.name] = path.read_bytes()
    return files


WORLDS: dict[str, tuple[Callable[[Path], NotedDataset], dict[str, bytes]]] = {
    "recbole": (
        import_recbole,
        {
            "m.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            b"1\t2\t3\t881250949\n2\t3\t4\t881250950\n",
            "m.item": b"item_id:token\ttitle:token_seq\tclass:token_seq\n2\tA B\tC D\n3\tE\tF\n",
            "m.kg": b"head_id:token\trelation_id:token\ttail_id:token\nm.1\tr\tm.2\n",
            "m.link": b"item_id:token\tentity_id:token\n2\tm.1\n",
        },
    ),
    "kgat": (
        import_kgat,
        {
            "train.txt": b"0 0 1 2\n1 0 2\n2 1\n",
            "test.txt": b"0 3\n1 1\n",
            "kg_final.txt": b"0 0 4\n1 1 4\n",
            "item_list.txt": b"org_id remap_id\na 0\nb c 1\nd 2\ne 3\n",
            "entity_list.txt": b"org_id remap_id\nm0 0\nm1 1\nm2 2\nm3 3\nm4 4\n",
        },
    ),
    "kgcn": (
        import_kgcn,
        {
            "ratings.csv": b'user,item,rating,timestamp\n1,"2",3.5,978300760\n2,3,4,978300761\n',
            "kg.txt": b"e2\tby\tg\ne3\tby\tg\n",
            "item_index2entity_id.txt": b"2\te2\n3\te3\n",
        },
    ),
    "movielens": (
        import_movielens,
        {
            "ratings.csv": b"userId,movieId,rating,timestamp\n1,10,4.5,978300760\n1,11,3.0,978300761\n",
            "movies.csv": b'movieId,title,genres\n10,"Tale, A (1990)",Crime|Drama\n11,No Year,(no genres listed)\n',
            "tags.csv": b"userId,movieId,tag,timestamp\n1,10,Dark,1\n2,10,noir,3\n",
        },
    ),
    "sequences": (
        import_sequences,
        {"T.txt": b"1 5 6 5\n2 7\n3 5\n", "T_item2attributes.json": b'{"5": [1, 2], "6": [3], "7": []}'},
    ),
    "csv": (import_tables, _tables("csv")),
    "tsv": (import_tables, _tables("tsv")),
    "jsonl": (import_tables, _tables("jsonl")),
    "parquet": (import_tables, _tables("parquet")),
}

MUTATION = st.tuples(
    st.sampled_from(["cut", "set", "insert", "delete", "swap", "repeat"]),
    st.floats(0, 1, exclude_max=True),
    st.one_of(
        st.binary(min_size=1, max_size=6),
        st.sampled_from(
            [b"\n", b"\r\n", b"\r", b'"', b"\t", b",", b" ", b"\0", b"\xff", b"\xef\xbb\xbf", b"-", b"1e99", b"{"]
        ),
    ),
)


def mutate(content: bytes, mutation: tuple[str, float, bytes]) -> bytes:
    how, where, what = mutation
    at = int(where * len(content))
    if how == "cut":
        return content[:at]
    if how == "set":
        return content[:at] + what + content[at + len(what) :]
    if how == "insert":
        return content[:at] + what + content[at:]
    if how == "delete":
        return content[:at] + content[at + len(what) :]
    if how == "swap":
        return content.replace(content[at : at + 1], what)
    return content + content[at:]


@pytest.mark.parametrize("world", sorted(WORLDS))
@SLOW
@given(data=st.data(), mutations=st.lists(MUTATION, min_size=1, max_size=3))
def test_loaders_read_or_refuse_broken_bytes(
    world: str, data: st.DataObject, mutations: list[tuple[str, float, bytes]]
) -> None:
    load, files = WORLDS[world]
    broken = data.draw(st.sampled_from(sorted(files)))
    content = files[broken]
    for mutation in mutations:
        content = mutate(content, mutation)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for name, original in files.items():
            (source / name).write_bytes(content if name == broken else original)
        try:
            dataset, _ = load(source)
        except DataError as error:
            assert str(error)
            return
        written = Path(folder) / "out"
        write_dataset(dataset, written)  # every lazy frame can be read to its end
        again, notes = read_dataset(written)
        rows = again.interactions.collect()
        assert len(rows) > 0 and rows["user_id"].null_count() == 0 and rows["item_id"].null_count() == 0
        assert set(rows["item_id"].to_list()) <= set(again.items.collect()["item_id"].to_list())
        assert not any("inferred" in note for note in notes)


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_the_unbroken_worlds_are_read(world: str, tmp_path: Path) -> None:
    load, files = WORLDS[world]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert load(tmp_path).dataset.interactions.collect().height >= 2


@SLOW
@example(name="stars", columns=["a", "*", "b", "c"], ids=["1"])
@example(name="pattern", columns=["a", "b", "c", "^.*$"], ids=["1"])
@given(
    name=st.text(max_size=20),
    columns=st.lists(st.text(min_size=1, max_size=8), min_size=4, max_size=4, unique=True),
    ids=st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5, unique=True),
)
def test_any_names_and_ids_are_written_and_read(name: str, columns: list[str], ids: list[str]) -> None:
    if {"item_id", "__row__"} & set(columns):
        return
    items: dict[str, list[object]] = {"item_id": [*ids], columns[0]: ["t"] * len(ids), columns[1]: ["c"] * len(ids)}
    items |= {columns[2]: [1.0] * len(ids), columns[3]: [["a", "b"]] * len(ids)}
    dataset = Dataset(
        name,
        pl.LazyFrame({"user_id": ids, "item_id": ids}),
        pl.LazyFrame(items),
        item_columns=ColumnKinds((columns[0],), (columns[1],), (columns[2],), (columns[3],)),
        time="none",
    )
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(dataset, Path(folder) / "out")
        if any(column == "*" or (column[0] == "^" and column[-1] == "$") for column in columns):
            with pytest.raises(DataError, match="a column cannot be called"):
                read_dataset(Path(folder) / "out")
            return
        again, _ = read_dataset(Path(folder) / "out")
        assert again.name == dataset.name and again.item_columns == dataset.item_columns
        assert again.items.collect().equals(dataset.items.collect())
        assert again.interactions.collect().equals(dataset.interactions.collect())

"""Importers: small worlds of every format, worked out by hand, and the real data sets."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from jobs.commands.import_data import import_data
from reckg.data.importers.kgat import import_kgat
from reckg.data.importers.kgcn import import_kgcn
from reckg.data.importers.movielens import import_movielens
from reckg.data.importers.recbole import import_recbole
from reckg.data.importers.sequences import import_sequences
from reckg.data.importers.tables import import_tables
from reckg.data.read import read_dataset
from reckg.data.schema import ColumnKinds, Dataset
from reckg.errors import DataError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu 1\ti1\t4\t1000000000\nu2\ti2\t3.5\t1000000001\n"


def put(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return folder


def rows(frame: pl.LazyFrame | None, *columns: str) -> list[tuple[object, ...]]:
    assert frame is not None
    return sorted(frame.select(columns).collect().rows(), key=repr)


def test_recbole(tmp_path: Path) -> None:
    folder = put(
        tmp_path / "rb",
        ml__inter=INTER,
        ml__item="item_id:token\tmovie_title:token_seq\tclass:token_seq\tyear:token\tprice:float\tvec:float_seq\n"
        "i1\tA Tale, 1\tCrime Drama\t1990\t2.5\t1 2\ni2\tB\t\t\t\t3\n",
        ml__user="user_id:token\tage:token\nu 1\t24\nu2\t33\n",
        ml__kg="head_id:token\trelation_id:token\ttail_id:token\nm.1\tby\tm.2\n",
        ml__link="item_id:token\tentity_id:token\ni1\tm.1\n",
    )
    dataset, notes = import_recbole(folder)
    assert dataset.name == "ml" and dataset.time == "utc"
    assert rows(dataset.interactions, "user_id", "item_id", "timestamp", "weight") == [
        ("u 1", "i1", 1_000_000_000, 4.0),
        ("u2", "i2", 1_000_000_001, 3.5),
    ]
    assert dataset.item_columns == ColumnKinds(
        text=("movie_title",), categorical=("year",), number=("price",), list=("class",)
    )
    assert rows(dataset.items, "item_id", "movie_title", "class", "year", "price") == [
        ("i1", "A Tale, 1", ["Crime", "Drama"], "1990", 2.5),
        ("i2", "B", None, None, None),
    ]
    assert any("'vec' of type float_seq left out" in note for note in notes)
    assert rows(dataset.triples, "head", "relation", "tail") == [("m.1", "by", "m.2")]
    assert rows(dataset.links, "item_id", "entity") == [("i1", "m.1")]


def test_recbole_stems_and_given_split(tmp_path: Path) -> None:
    folder = put(tmp_path / "rb", a__inter=INTER, b__train__inter=INTER, b__valid__inter=INTER)
    with pytest.raises(DataError, match=r"several data sets: a, b; choose one with --name"):
        import_recbole(folder)
    with pytest.raises(DataError, match=r"no c.inter; there is a, b"):
        import_recbole(folder, name="c")
    with pytest.raises(DataError, match=r"b.test.inter is missing"):
        import_recbole(folder, name="b")
    put(folder, b__test__inter=INTER, b__inter=INTER)
    dataset, notes = import_recbole(folder, name="b")
    assert sorted(dataset.interactions.collect()["split"].to_list()) == ["test"] * 2 + ["train"] * 2 + ["valid"] * 2
    assert any("b.inter was not read" in note for note in notes)
    put(folder, b__test__inter=INTER.replace("3.5", "good"))
    with pytest.raises(DataError, match=r"b.test.inter: 1 of 2 values of 'weight'.*line 3, 'good'"):
        import_recbole(folder, name="b")
    put(folder, b__test__inter="user_id:token\titem_id:token\na\tb\n")
    with pytest.raises(DataError, match=r"b.test.inter gives the columns 'user_id', 'item_id', 'split'"):
        import_recbole(folder, name="b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (INTER.replace("\t", ","), "separated by tabs"),
        (INTER.replace(":token", ""), "'user_id' in the header is no 'name:type'"),
        (INTER.replace("user_id:", "member:"), "no column 'user_id'; the columns are 'member'"),
        (INTER[:-12], r"1 of 2 lines have another number of fields than the 4.*line 3 has 3"),
        (INTER.replace("1000000001", "1000000001000"), "different units"),
        ("", "is empty"),
        (INTER.replace("item_id:token", "user_id:float"), "'user_id' is repeated in the header"),
    ],
)
def test_hostile_recbole(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        import_recbole(put(tmp_path / "rb", ml__inter=content))


def test_recbole_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder of RecBole"):
        import_recbole(tmp_path / "absent")
    with pytest.raises(DataError, match=r"holds no .inter file"):
        import_recbole(tmp_path)
    (tmp_path / "x.inter").mkdir()
    with pytest.raises(DataError, match=r"is a folder, expected a file"):
        import_recbole(tmp_path)


def kgat_folder(tmp_path: Path) -> Path:
    return put(
        tmp_path / "kgat",
        train__txt="".join(f"{u} " + " ".join(str(i) for i in range(4)) + "\n" for u in range(50)) + "50\n",
        test__txt="0 4\n1 4\n",
        kg_final__txt="0 0 5\n4 1 6\n5 1 6\n",
    )


def test_kgat_takes_a_seeded_validation_part_out_of_train(tmp_path: Path) -> None:
    folder = kgat_folder(tmp_path)
    dataset, notes = import_kgat(folder)
    assert dataset.time == "none"
    frame = dataset.interactions.collect()
    counts = dict(frame.group_by("split").len().rows())
    assert counts["test"] == 2 and counts["train"] + counts["valid"] == 200
    assert 8 <= counts["valid"] <= 35  # 20 are expected
    assert any(f"{counts['valid']} of 200 training interactions were taken" in note for note in notes)
    assert any("1 of 51 lines hold a user without items" in note for note in notes)
    assert import_kgat(folder).dataset.interactions.collect().sort(frame.columns).equals(frame.sort(frame.columns))
    assert (
        not import_kgat(folder, seed=1)
        .dataset.interactions.collect()
        .sort(frame.columns)
        .equals(frame.sort(frame.columns))
    )
    assert rows(dataset.triples, "head", "relation", "tail") == [("0", "0", "5"), ("4", "1", "6"), ("5", "1", "6")]
    assert ("4", "4") in rows(dataset.links, "item_id", "entity")


def test_kgat_lists_give_the_original_ids(tmp_path: Path) -> None:
    folder = put(
        kgat_folder(tmp_path),
        valid__txt="2 4\n",
        user_list__txt="org_id remap_id\n" + "".join(f"U{u} {u}\n" for u in range(51)),
        item_list__txt="org_id remap_id freebase_id\n" + "".join(f"item no {i} {i} m.{i}\n" for i in range(6)),
        entity_list__txt="org_id remap_id\n" + "".join(f"m.{i} {i}\n" for i in range(7)),
        relation_list__txt="org_id remap_id\nhttp://r/0 0\nhttp://r/1 1\n",
    )
    dataset, notes = import_kgat(folder)
    assert rows(dataset.interactions.filter(pl.col("split") == "test"), "user_id", "item_id") == [
        ("U0", "item no 4"),
        ("U1", "item no 4"),
    ]
    assert rows(dataset.interactions.filter(pl.col("split") == "valid"), "user_id") == [("U2",)]
    assert len(rows(dataset.items, "item_id")) == 6
    assert ("m.4", "http://r/1", "m.6") in rows(dataset.triples, "head", "relation", "tail")
    assert ("item no 5", "m.5") in rows(dataset.links, "item_id", "entity")
    put(folder, entity_list__txt="org_id remap_id\n" + "".join(f"m.{i} {i}\n" for i in range(6)))
    with pytest.raises(DataError, match=r"kg_final.txt: 2 values of 'tail' are not in entity_list.txt .first: line 2"):
        import_kgat(folder)
    put(folder, entity_list__txt="org_id remap_id\nm.0 0\nm.1\n")
    with pytest.raises(DataError, match=r"entity_list.txt: 1 of 2 lines are not 'org_id remap_id' .first: line 3"):
        import_kgat(folder)
    put(folder, entity_list__txt="org_id remap_id\nm.0 0\nm.0 1\n")
    with pytest.raises(DataError, match=r"entity_list.txt: 1 ids and 0 indices of 2 lines are repeated"):
        import_kgat(folder)
    assert notes


def test_hostile_kgat(tmp_path: Path) -> None:
    folder = kgat_folder(tmp_path)
    put(folder, kg_final__txt="0 0 5\n4 1\n")
    with pytest.raises(DataError, match=r"kg_final.txt: 1 of 2 lines have another number of fields"):
        import_kgat(folder)
    put(folder, train__txt="0 1\n0 2\n")
    with pytest.raises(DataError, match=r"train.txt: 1 of 2 lines repeat a user id .first: line 1, '0'"):
        import_kgat(folder)
    (folder / "test.txt").unlink()
    with pytest.raises(DataError, match=r"needs train.txt and test.txt"):
        import_kgat(folder)


def test_kgcn_raw_ratings(tmp_path: Path) -> None:
    folder = put(
        tmp_path / "kgcn",
        user_artists__dat="userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11690\n3\t51\t7\n",
        item_index2entity_id__txt="51\te51\n52\te52\n",
        kg__txt="e51\tmusic.genre\tg1\ne52\tmusic.genre\tg1\n",
    )
    dataset, notes = import_kgcn(folder)
    assert rows(dataset.interactions, "user_id", "item_id", "weight") == [
        ("2", "51", 13883.0),
        ("2", "52", 11690.0),
        ("3", "51", 7.0),
    ]
    assert rows(dataset.links, "item_id", "entity") == [("51", "e51"), ("52", "e52")]
    assert rows(dataset.triples, "head", "tail") == [("e51", "g1"), ("e52", "g1")]
    assert dataset.time == "none"
    assert any("userID, artistID, weight were taken as user_id, item_id, weight" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ratings.dat", "1::10::5::978300760\n2::11::3::978300761\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,10,5,978300760\n2,11,3,978300761\n"),
        ("ratings.csv", '"User";"Isbn";"Rating";"When"\n"1";"10";"5";"978300760"\n"2";"11";"3";"978300761"\n'),
        ("ratings.txt", "1 10 5 978300760\n2 11 3 978300761\n"),
        ("ratings.txt", "1\t10\t5\t978300760\n2\t11\t3\t978300761\n"),
    ],
)
def test_kgcn_ratings_of_every_shape(tmp_path: Path, name: str, content: str) -> None:
    folder = put(tmp_path / "kgcn", **{name.replace(".", "__"): content})
    dataset, notes = import_kgcn(folder)
    assert rows(dataset.interactions, "user_id", "item_id", "weight", "timestamp") == [
        ("1", "10", 5.0, 978300760),
        ("2", "11", 3.0, 978300761),
    ]
    assert any("no kg.txt and no item_index2entity_id.txt" in note for note in notes)


def test_kgcn_final_ratings_drop_sampled_negatives(tmp_path: Path) -> None:
    folder = put(
        tmp_path / "kgcn",
        ratings_final__txt="0\t0\t1\n0\t1\t0\n1\t1\t1\n",
        item_index2entity_id__txt="51\te51\n52\te52\n",
        kg__txt="e51\tby\tg1\n",
    )
    dataset, notes = import_kgcn(folder)
    assert rows(dataset.interactions, "user_id", "item_id") == [("0", "0"), ("1", "1")]
    assert "weight" not in dataset.interactions.collect_schema()
    assert any("1 of 3 lines have the label 0" in note for note in notes)
    assert rows(dataset.links, "item_id", "entity") == [("0", "e51"), ("1", "e52")]
    put(folder, kg_final__txt="0\t0\t2\n")
    dataset, _ = import_kgcn(folder)
    assert rows(dataset.links, "item_id", "entity") == [("0", "0"), ("1", "1")]
    put(folder, ratings_final__txt="0\t0\t1\n0\t1\n")
    with pytest.raises(DataError, match=r"ratings_final.txt: 1 of 2 lines"):
        import_kgcn(folder)
    with pytest.raises(DataError, match=r"holds none of ratings.txt"):
        import_kgcn(tmp_path)


def test_movielens(tmp_path: Path) -> None:
    folder = put(
        tmp_path / "ml-tiny",
        ratings__csv="userId,movieId,rating,timestamp\n1,10,4.5,978300760\n1,11,3.0,978300761\n",
        movies__csv='movieId,title,genres\n10,"Tale, A (1990)",Crime|Drama\n11,No Year,(no genres listed)\n',
        tags__csv="userId,movieId,tag,timestamp\n1,10,Dark,1\n2,10, dark ,2\n2,10,noir,3\n",
        links__csv="movieId,imdbId,tmdbId\n10,1,2\n",
    )
    dataset, notes = import_movielens(folder)
    assert rows(dataset.items, "item_id", "title", "year", "genre", "tag") == [
        ("10", "Tale, A", 1990.0, ["Crime", "Drama"], ["dark", "noir"]),
        ("11", "No Year", None, None, None),
    ]
    assert dataset.item_columns == ColumnKinds(text=("title",), number=("year",), list=("genre", "tag"))
    for said in ("1 of 2 titles have no year", "1 of 2 films have '(no genres", "3 tags became 2", "links.csv: 1 rows"):
        assert any(said in note for note in notes), said
    put(folder, ratings__csv="userId;movieId;rating;timestamp\n1;10;4.5;978300760\n")
    with pytest.raises(DataError, match=r"ratings.csv: no column 'userId'.*semicolons"):
        import_movielens(folder)
    with pytest.raises(DataError, match=r"holds no ratings.csv"):
        import_movielens(tmp_path)


def test_sequences(tmp_path: Path) -> None:
    put(tmp_path, Toy__txt="1 5 6 5\n2 7\n3\n", Toy_item2attributes__json='{"5": [1, 2], "6": ["a"], "9": []}')
    dataset, notes = import_sequences(tmp_path / "Toy.txt")
    assert dataset.time == "order" and dataset.name == "Toy"
    assert rows(dataset.interactions, "user_id", "item_id", "timestamp") == [
        ("1", "5", 0),
        ("1", "5", 2),
        ("1", "6", 1),
        ("2", "7", 0),
    ]
    assert rows(dataset.items, "item_id", "attribute") == [("5", ["1", "2"]), ("6", ["a"]), ("7", None), ("9", [])]
    for said in ("1 of 3 lines hold a user without items", "1 of 3 items occur in no sequence", "1 of 3 item_ids"):
        assert any(said in note for note in notes), said


@pytest.mark.parametrize(
    ("text", "attributes", "message"),
    [
        ("1 5\n1 6\n", "{}", "1 of 2 lines repeat a user id"),
        ("1,5,6\n2,7\n", "{}", "no line holds a user and an item separated by spaces"),
        ("1 5\n", "{", "is no JSON"),
        ("1 5\n", "[1]", "must be a JSON object"),
        ("1 5\n", "{}", "and not empty"),
        ("1 5\n", '{"5": [1], "5": [2]}', "1 item ids are repeated"),
        ("1 5\n", '{"5": 3}', "1 of 1 entries are no list"),
        ("1 5\n", '{"5": [' * 3000, "is no JSON"),
        ("1 5\n", '{"05": [1]}', "none of the 1 item_ids"),
        ("", "{}", "Toy.txt is empty"),
    ],
)
def test_hostile_sequences(tmp_path: Path, text: str, attributes: str, message: str) -> None:
    put(tmp_path, Toy__txt=text, Toy_item2attributes__json=attributes)
    with pytest.raises(DataError, match=message):
        import_sequences(tmp_path / "Toy.txt")


def test_tables_of_one_file(tmp_path: Path) -> None:
    put(tmp_path, log__csv="user_id,item_id,timestamp\na,x,1000000000\n")
    dataset, _ = import_tables(tmp_path / "log.csv")
    assert rows(dataset.interactions, "user_id", "item_id") == [("a", "x")]
    with pytest.raises(DataError, match=r"unknown ending"):
        import_tables(put(tmp_path, log__xls="x") / "log.xls")


def test_import_prints_every_counted_decision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # u1 and u2 share i1 and i2; u1's first i1 repeats; u2's i3 is light; u3's i1 is outside the 2-core.
    events = ["u1 i1 5 3", "u1 i1 4 4", "u1 i2 4 5", "u2 i1 4 6", "u2 i2 3 7", "u2 i3 1 8", "u3 i1 5 9"]
    content = "\n".join([INTER.split("\n")[0], *(event.replace(" ", "\t") for event in events), ""])
    folder = put(tmp_path / "rb", ml__inter=content)
    result = import_data("recbole", folder, tmp_path / "out", min_weight=2, k_core=2, duplicates="last")
    printed = capsys.readouterr().out
    for said in (
        "1 of 7 interactions weigh less than 2",
        "1 of 7 interactions repeat another",
        "1 of 7 interactions are outside the 2-core",
        "ml: 4 interactions of 2 users and 2 items",
    ):
        assert said in printed
    assert result["counts"]["interactions"] == 4
    assert rows(read_dataset(tmp_path / "out").dataset.interactions, "user_id", "item_id", "weight") == [
        ("u1", "i1", 4.0),
        ("u1", "i2", 4.0),
        ("u2", "i1", 4.0),
        ("u2", "i2", 3.0),
    ]


def test_import_refuses_before_it_reads(tmp_path: Path) -> None:
    put(tmp_path / "out", thing__txt="x")
    with pytest.raises(DataError, match=r"not empty"):
        import_data("recbole", tmp_path / "absent", tmp_path / "out")
    with pytest.raises(DataError, match=r"does not exist"):
        import_data("recbole", tmp_path / "absent", tmp_path / "new")
    with pytest.raises(DataError, match=r"unknown format 'netflix'"):
        import_data("netflix", tmp_path, tmp_path / "new")


def counts_of(dataset: Dataset) -> tuple[int, int, int]:
    frame = dataset.interactions.collect()
    return frame["user_id"].n_unique(), frame["item_id"].n_unique(), len(frame)


def test_real_split_of_movielens(shared_data: Path, tmp_path: Path) -> None:
    counts = import_data("recbole", shared_data / "ml-100k-split", tmp_path / "ds", name="ml-100k")["counts"]
    assert (counts["train"], counts["valid"], counts["test"]) == (44_287, 5_063, 5_063)
    assert (counts["triples"], counts["links"], counts["items"]) == (91_631, 1_598, 1_682)
    dataset, notes = read_dataset(tmp_path / "ds")
    assert counts_of(dataset)[:2] == (938, 1008)
    assert notes == ()
    assert dataset.item_columns == ColumnKinds(text=("movie_title",), categorical=("release_year",), list=("class",))
    first = dataset.items.filter(pl.col("item_id") == "1").collect().row(0, named=True)
    assert first == {
        "item_id": "1",
        "movie_title": "Toy Story",
        "release_year": "1995",
        "class": ["Animation", "Children's", "Comedy"],
    }


def test_real_movielens_has_times(shared_data: Path) -> None:
    dataset, _ = import_recbole(shared_data / "ml-100k")
    assert counts_of(dataset) == (943, 1682, 100_000)
    times = dataset.interactions.collect()["timestamp"]
    assert (times.min(), times.max()) == (874_724_710, 893_286_638)
    assert dataset.time == "utc"


def test_real_sequences(shared_data: Path) -> None:
    dataset, _ = import_sequences(shared_data / "amazon-beauty" / "Beauty.txt")
    assert counts_of(dataset) == (22_363, 12_101, 198_502)
    values = json.loads((shared_data / "amazon-beauty" / "Beauty_item2attributes.json").read_text())
    items = dataset.items.collect()
    assert dict(items.select("item_id", "attribute").rows())["83"] == [str(a) for a in values["83"]]
    assert len(items) == 12_101

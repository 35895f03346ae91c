"""Users and items that a bundle has never seen, through the batch job and the server: the same answers everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import polars as pl
import pytest

from jobs.cli import main
from jobs.commands.recommend import recommend_all
from proto.generate_stubs import ROOT
from reckg.bundle.bundle import Bundle
from reckg.bundle.manifest import manifest_text, read_manifest
from reckg.errors import ArtifactError, CannotEmbedError, DataError
from reckg.files.atomic_folder import describe_files
from reckg.live.add_items import with_items
from reckg.recommend.golden import open_bundle, save_with_golden
from reckg.recommend.recommender import Recommender
from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.client import RecommenderClient, command
from serving.worker.server import RunningServer, start_server
from tests import small_world
from tests.small_world import USER_IDS

LISTED = pl.DataFrame(
    {
        "user_id": ["u03", "new1", "new2", "u04", "new3", "new4"],
        "recent_item_ids": [["i01", "gone"], ["i07", "i02"], None, None, [], ["gone"]],
        "city": ["Oslo", None, "Rome", None, None, "Paris"],
        "age": [None, 24.0, None, None, None, None],
        "remark": ["a", "b", "c", "d", "e", "f"],
    }
)
NEW_ITEMS = pl.DataFrame(
    {"item_id": ["n1", "n2"], "title": ["dune the sea", None], "genres": [["x"], ["y", "odd"]], "author": ["Ann", None]}
)


@pytest.fixture(scope="module")
def bundle_path(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = small_world.world(tmp_path_factory.mktemp("world"), encoder=encoder, linear=True)
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    save_with_golden(small_world.bundle(made), path, extra_folders={"text_encoder": made.folder / "text_encoder"})
    return path


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return open_bundle(bundle_path)


def rows_of(frame: pl.DataFrame, user_id: str) -> list[tuple[str, float]]:
    return frame.filter(user_id=user_id).sort("rank").select("item_id", "score").rows()


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_list_with_histories_and_attributes_is_answered_as_single_requests(
    bundle: Bundle, bundle_path: Path, tmp_path: Path, suffix: str
) -> None:
    users = tmp_path / f"users.{suffix}"
    if suffix == "parquet":
        LISTED.write_parquet(users)
    else:
        LISTED.with_columns(pl.col("recent_item_ids").list.join("|")).write_csv(users)
    counts = recommend_all(bundle_path, tmp_path / "recs.parquet", k=8, users=users, block_users=4)
    frame = pl.read_parquet(tmp_path / "recs.parquet")
    for row in LISTED.iter_rows(named=True):
        given = {name: row[name] for name in ("city", "age") if row[name] is not None}
        recent = row["recent_item_ids"] or ()
        single = Recommender(bundle).recommend(row["user_id"], 8, recent_items=recent, attributes=given)
        assert rows_of(frame, row["user_id"]) == [(item.item_id, item.score) for item in single.items]
        assert set(frame.filter(user_id=row["user_id"])["fallback"]) == {single.fallback}
    assert frame.filter(fallback="popular")["user_id"].unique(maintain_order=True).to_list() == ["new3", "new4"]
    expected = {
        "users": 6,
        "unknown_users": 4,
        "folded_users": 4,
        "ignored_columns": ["remark"],
        "unknown_recent_items": 2,
        "unknown_recent_items_examples": ["gone", "gone"],
        "unknown_attributes": 1,
        "unknown_attributes_examples": ["city=Paris"],
    }
    assert {name: counts[name] for name in expected} == expected


def test_a_list_that_contradicts_itself_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    users = pl.DataFrame({"user_id": ["a", "a"], "recent_item_ids": [["i01"], ["i02"]]})
    users.write_parquet(tmp_path / "users.parquet")
    with pytest.raises(DataError, match="1 values of 'user_id' have rows that differ"):
        recommend_all(bundle_path, tmp_path / "recs.parquet", users=tmp_path / "users.parquet")


def test_new_items_are_recommended_by_the_command(
    bundle: Bundle, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    NEW_ITEMS.write_parquet(tmp_path / "items.parquet")
    out = tmp_path / "recs.parquet"
    words = ["recommend", str(bundle_path), "--out", str(out), "--k", "45", "--new-items"]
    assert main([*words, str(tmp_path / "items.parquet")]) == 0
    printed = capsys.readouterr().out
    assert "new items 2" in printed and "unknown of new items 2" in printed
    assert "author" in printed and "genres=odd" in printed
    frame = pl.read_parquet(out)
    assert {"n1", "n2"} <= set(frame["item_id"])
    grown = Recommender(with_items(bundle, NEW_ITEMS))
    for user_id in USER_IDS[:29]:
        items = grown.recommend(user_id, 45).items
        assert rows_of(frame, user_id) == [(item.item_id, item.score) for item in items]
        assert {"n1", "n2"} <= {item.item_id for item in items}
    NEW_ITEMS.with_columns(item_id=pl.Series(["n1", "i01"])).write_parquet(tmp_path / "clash.parquet")
    assert main([*words, str(tmp_path / "clash.parquet"), "--overwrite"]) == 2
    assert "1 of 2 new items are in the bundle already (first: 'i01')" in capsys.readouterr().err


def test_a_bundle_of_an_older_reckg_refuses_what_it_cannot(bundle: Bundle, tmp_path: Path) -> None:
    save_with_golden(replace(bundle, inductive=None), tmp_path / "old")
    LISTED.write_parquet(tmp_path / "users.parquet")
    with pytest.raises(CannotEmbedError, match="Run 'reckg bundle' again"):
        recommend_all(tmp_path / "old", tmp_path / "r.parquet", users=tmp_path / "users.parquet")
    LISTED.drop("recent_item_ids").write_parquet(tmp_path / "users.parquet")
    counts = recommend_all(tmp_path / "old", tmp_path / "r.parquet", users=tmp_path / "users.parquet")
    assert counts["ignored_columns"] == ["city", "age", "remark"] and counts["folded_users"] == 0


@pytest.fixture(scope="module")
def running(bundle: Bundle) -> Iterator[RunningServer]:
    running = start_server()
    running.ready(Recommender(bundle))
    yield running
    running.stop(0)


@pytest.fixture
def client(running: RunningServer) -> Iterator[RecommenderClient]:
    with RecommenderClient(running.address, timeout_s=20.0) as client:
        yield client


def test_the_server_answers_as_the_library_does(client: RecommenderClient, bundle: Bundle) -> None:
    offline = Recommender(bundle)
    for user_id, recent, attributes in (
        ("", ["i07", "i02"], {}),
        ("nobody", ["i07", "gone"], {"city": "Rome", "age": 24.0}),
        ("u03", ["i01"], {"city": ["Oslo"]}),
        ("", [], {"city": "Rome", "shoe": 41}),
        ("nobody", ["gone"], {}),
    ):
        response = client.recommend(user_id, 7, recent_items=recent, attributes=attributes)
        expected = offline.recommend(user_id or None, 7, recent_items=recent, attributes=attributes)
        assert [(i.item_id, i.score) for i in response.items] == [(i.item_id, i.score) for i in expected.items]
        assert tuple(response.unknown_recent_item_ids) == expected.unknown_recent_items
        assert tuple(response.unknown_attributes) == expected.unknown_attributes
        reasons = [pb.DegradedReason.Name(r).removeprefix("DEGRADED_REASON_") for r in response.degraded_reasons]
        assert [reason.lower() for reason in reasons] == list(expected.degraded)
        assert list(response.degraded_reasons) == sorted(response.degraded_reasons)
        assert (response.fallback == pb.FALLBACK_POPULAR) == (expected.fallback == "popular")
    seen = client.recommend("", 40, recent_items=["i07"], include_seen=True)
    assert "i07" in [item.item_id for item in seen.items]


def failure(call: object, *arguments: object, **named: object) -> tuple[grpc.StatusCode, str]:
    assert callable(call)
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, **named)
    return raised.value.code(), raised.value.details()


def test_limits_of_a_request(client: RecommenderClient, running: RunningServer, bundle: Bundle) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert failure(client.recommend) == (invalid, "user_id must not be empty")
    many = failure(client.recommend, "", recent_items=["i01"] * 501)
    assert many == (invalid, "recent_item_ids must be at most 500, got 501")
    assert len(client.recommend("", recent_items=["i01"] * 500).items) == 10
    assert failure(client.recommend, attributes={"": "x"}) == (invalid, "attributes.name must not be empty")
    twice = pb.RecommendRequest(attributes=[pb.UserAttribute(name="city")] * 2)
    with grpc.insecure_channel(running.address) as channel:
        code, message = failure(recommender_pb2_grpc.RecommenderServiceStub(channel).Recommend, twice, timeout=20)
    assert (code, message) == (invalid, "attributes.name must not repeat, got 'city' twice")
    running.ready(Recommender(replace(bundle, inductive=None)))
    code, message = failure(client.recommend, recent_items=["i01"])
    running.ready(Recommender(bundle))
    assert code == grpc.StatusCode.FAILED_PRECONDITION and message.endswith("Run 'reckg bundle' again.")


def test_the_client_takes_recent_items_and_prints_what_is_unknown(
    running: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([running.address, "--recent", "i07", "gone", "--k", "3"]) == 0
    printed = capsys.readouterr().out
    assert "(unknown: gone)" in printed and "DEGRADED_REASON_UNKNOWN_RECENT_ITEMS" in printed


def test_no_torch_is_loaded_for_users(bundle_path: Path) -> None:
    code = (
        f"import sys, reckg; r = reckg.load({str(bundle_path)!r}); r.recommend(recent_items=['i07']); "
        "r.recommend(attributes={'city': 'Rome'}); "
        "print([n for n in ('torch', 'transformers', 'dgl') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_bundle_with_another_text_encoder_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    """Its files are as its manifest says; only the model was trained with other ones."""
    copied = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    changed = copied / "text_encoder" / "config.json"
    changed.write_text(changed.read_text().replace("}", " }", 1))
    manifest = read_manifest(copied)
    manifest["files"]["text_encoder/config.json"] = describe_files(copied)["text_encoder/config.json"]
    (copied / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(ArtifactError, match="text_encoder is not the text encoder that the model was trained with"):
        open_bundle(copied)

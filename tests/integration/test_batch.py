"""Batch recommendations: the same as single ones, streamed to one Parquet file, nothing dropped silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import jobs.commands.recommend
from jobs.commands.recommend import recommend_all
from reckg.bundle.bundle import Bundle
from reckg.errors import ArtifactError, DataError
from reckg.recommend.golden import save_with_golden
from reckg.recommend.recommender import Recommender
from tests.small_bundle import small_bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def bundle_path(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batch") / "bundle"
    save_with_golden(bundle, path)
    return path


def rows_of(frame: pl.DataFrame, user_id: str) -> list[tuple[int, str, float]]:
    return frame.filter(user_id=user_id).select("rank", "item_id", "score").rows()


def test_every_user_gets_what_a_single_request_gives(bundle: Bundle, bundle_path: Path, tmp_path: Path) -> None:
    counts = recommend_all(bundle_path, tmp_path / "new" / "recs.parquet", k=10, block_users=7)
    frame = pl.read_parquet(tmp_path / "new" / "recs.parquet")
    assert frame.schema == {
        "user_id": pl.String, "rank": pl.Int32, "item_id": pl.String, "score": pl.Float32, "fallback": pl.String
    }  # fmt: skip
    assert frame["user_id"].unique(maintain_order=True).to_list() == bundle.user_ids.ids.to_list()
    recommender = Recommender(bundle)
    for user_id in bundle.user_ids.ids:
        items = recommender.recommend(user_id, 10).items
        expected = [(rank, item.item_id, item.score) for rank, item in enumerate(items, start=1)]
        assert rows_of(frame, user_id) == expected
    assert frame.filter(pl.col("fallback").is_not_null())["user_id"].unique().to_list() == ["u039"]
    assert {name: counts[name] for name in ("users", "unknown_users", "cold_users", "short_users", "rows")} == {
        "users": 40, "unknown_users": 0, "cold_users": 1, "short_users": 0, "rows": 400
    }  # fmt: skip
    assert counts["bundle_version"] == "test-1"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["recs.parquet"]


def test_users_with_fewer_items_than_k_are_counted(bundle: Bundle, bundle_path: Path, tmp_path: Path) -> None:
    counts = recommend_all(bundle_path, tmp_path / "recs.parquet", k=60)
    frame = pl.read_parquet(tmp_path / "recs.parquet")
    assert counts["rows"] == frame.height == 40 * 60 - len(bundle.history.item_idx)
    assert counts["short_users"] == 39  # all but the cold one


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl", "txt"])
def test_a_list_with_unknown_and_repeated_users(bundle: Bundle, bundle_path: Path, tmp_path: Path, suffix: str) -> None:
    listed = pl.DataFrame({"user_id": ["u007", "nobody", "u003", "u007", "007"]})
    path = tmp_path / f"users.{suffix}"
    match suffix:
        case "parquet":
            listed.write_parquet(path)
        case "jsonl":
            listed.write_ndjson(path)
        case "txt":
            path.write_text("\n".join(listed["user_id"]) + "\n")
        case _:
            listed.write_csv(path, separator="," if suffix == "csv" else "\t")
    counts = recommend_all(bundle_path, tmp_path / "recs.parquet", k=5, users=path, block_users=2)
    frame = pl.read_parquet(tmp_path / "recs.parquet")
    assert frame["user_id"].unique(maintain_order=True).to_list() == ["u007", "nobody", "u003", "007"]
    assert (counts["users"], counts["unknown_users"], counts["repeated_users"]) == (4, 2, 1)
    assert counts["unknown_examples"] == ["nobody", "007"]
    fallback = frame.filter(user_id="nobody")
    assert fallback["fallback"].to_list() == ["popular"] * 5
    assert fallback["item_id"].to_list() == bundle.item_ids.raw(bundle.features.popular[:5])
    assert frame.filter(user_id="u007")["fallback"].null_count() == 5


def test_a_list_that_cannot_be_read_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    for name, content, message in (
        ("a.csv", "user\nu001\n", "has no column user_id; it has user"),
        ("b.txt", "u001\n\nu002\n", "1 of 3 user ids are empty"),
        ("c.txt", "", "0 of 0 user ids are empty"),
        ("d.parquet", "no parquet", "cannot be read"),
        ("e.xlsx", "", r"not '\.xlsx'"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=message):
            recommend_all(bundle_path, tmp_path / "recs.parquet", users=tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        recommend_all(bundle_path, tmp_path / "recs.parquet", users=tmp_path / "absent.csv")
    assert not (tmp_path / "recs.parquet").exists()


def test_nothing_is_overwritten_unless_asked(bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"
    out.write_text("mine")
    with pytest.raises(ArtifactError, match="exists already"):
        recommend_all(bundle_path, out)
    assert out.read_text() == "mine"
    recommend_all(bundle_path, out, k=3, overwrite=True)
    assert pl.read_parquet(out).height == 120
    with pytest.raises(ValueError, match="k and block_users must be >= 1"):
        recommend_all(bundle_path, tmp_path / "other.parquet", k=0)


def test_a_run_that_fails_leaves_no_file(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = 0

    def fails_at_the_third(*arguments: object) -> pl.DataFrame:
        nonlocal blocks
        blocks += 1
        if blocks == 3:
            raise ArtifactError("stopped")
        return original(*arguments)  # type: ignore[arg-type]

    original = jobs.commands.recommend._recommend_block
    monkeypatch.setattr(jobs.commands.recommend, "_recommend_block", fails_at_the_third)
    with pytest.raises(ArtifactError, match="stopped"):
        recommend_all(bundle_path, tmp_path / "recs.parquet", block_users=4)
    assert list(tmp_path.iterdir()) == []


def test_memory_grows_with_the_block_not_with_the_users(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = jobs.commands.recommend.recommend_batch

    def watched(bundle: Bundle, user_idx: np.ndarray, *words: Any, **named: Any) -> Any:
        sizes.append(len(user_idx))
        return original(bundle, user_idx, *words, **named)

    monkeypatch.setattr(jobs.commands.recommend, "recommend_batch", watched)
    recommend_all(bundle_path, tmp_path / "recs.parquet", block_users=16)
    assert sizes == [16, 16, 8]


def test_without_reranking_the_order_is_retrieval_s(bundle: Bundle, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("u003\nnobody\n")
    for name, users in (("all", None), ("two", tmp_path / "users.txt")):
        recommend_all(bundle_path, tmp_path / name, k=30, rerank=False, users=users)
    every, two = pl.read_parquet(tmp_path / "all"), pl.read_parquet(tmp_path / "two")
    ordered, reranked = (Recommender(bundle).recommend("u003", 30, rerank=which).items for which in (False, True))
    assert ordered != reranked
    expected = [(rank, item.item_id, item.score) for rank, item in enumerate(ordered, start=1)]
    assert rows_of(every, "u003") == rows_of(two, "u003") == expected
    assert two.filter(user_id="nobody")["fallback"].to_list() == ["popular"] * 30

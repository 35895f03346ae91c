"""Which index is chosen for which catalogue, and that its recall is measured, reached, and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reckg.errors import ArtifactError, ConfigError
from reckg.retrieval.choose_index import choose_index, default_pq_bytes, index_bytes, meet_target, sample_queries
from reckg.retrieval.exact import exact_search
from reckg.retrieval.index import build_index
from reckg.retrieval.read_index import load_index
from tests.unit.retrieval.test_index import SMALL, unit_vectors


def test_auto_goes_by_size_and_memory() -> None:
    assert choose_index(100_000, 64) == ("flat", "none")
    assert choose_index(100_001, 64) == ("ivf", "none")
    assert choose_index(100_000, 64, memory_gb=0.01) == ("ivf", "sq8")  # flat takes 0.024 GiB, sq8 0.007
    million = [choose_index(1_000_000, 64, memory_gb=gb)[1] for gb in (0, 0.25, 0.1, 0.03)]
    assert million == ["none", "none", "sq8", "pq"]
    assert choose_index(1_000_000, 64, kind="hnsw", memory_gb=0.35) == ("hnsw", "sq8")
    assert choose_index(1_000_000, 64, kind="flat") == ("flat", "none")
    assert choose_index(50, 64, kind="hnsw", compression="pq") == ("hnsw", "pq")
    assert choose_index(50, 64, compression="sq8") == ("ivf", "sq8")


def test_what_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"memory_gb = 0\.01 is too little for 1_000_000 items .*0\.0224 GiB at least"
    ):
        choose_index(1_000_000, 64, memory_gb=0.01)
    with pytest.raises(ConfigError, match="'flat' is exact and takes no compression"):
        choose_index(10, 64, kind="flat", compression="pq")


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_the_bytes_are_about_those_of_the_file(kind: str, tmp_path: Path) -> None:
    build_index(unit_vectors(3000, 32, 0), **SMALL[kind]).save(tmp_path)
    size = (tmp_path / "index.faiss").stat().st_size
    assert size == pytest.approx(index_bytes(3000, 32, kind, "none", hnsw_m=8), rel=0.05)


def test_pq_bytes_divide_the_dimension() -> None:
    assert [default_pq_bytes(dim) for dim in (64, 50, 7, 1)] == [32, 25, 1, 1]


def test_queries_are_users_who_have_a_vector_or_else_items() -> None:
    users, items = np.zeros((6, 3), np.float32), np.ones((4, 3), np.float32)
    assert np.array_equal(sample_queries(users, items, 9, 0), items)
    users[[1, 4]] = [[1, 0, 0], [0, 1, 0]]
    assert np.array_equal(sample_queries(users, items, 9, 0), users[[1, 4]])
    assert len(sample_queries(users, items, 1, 0)) == 1


@pytest.mark.parametrize("name", list(SMALL))
def test_effort_rises_until_the_target_is_reached(name: str, tmp_path: Path) -> None:
    vectors, queries = unit_vectors(2000, 8, 0), unit_vectors(40, 8, 1)
    index = meet_target(build_index(vectors, **SMALL[name]), queries, 10, 0.97, {})
    exact, found = exact_search(queries, vectors, 10), index.search(queries, 10)
    by_hand = np.mean([np.isin(a, b).mean() for a, b in zip(exact.item_idx, found.item_idx, strict=True)])
    assert index.recall == {"recall": pytest.approx(by_hand), "k": 10, "target": 0.97, "queries": 40}
    assert by_hand >= 0.97
    index.save(tmp_path)
    assert load_index(tmp_path).recall == index.recall
    if name.startswith("ivf"):
        assert meet_target(index, queries, 10, 0.05, {}).settings != index.settings  # less effort is enough


@pytest.mark.parametrize(
    ("name", "fixed", "message"),
    [
        ("ivf", {"nprobe": 1}, r"index \(ivf\) finds 0\.\d+ of the 10 best items of 40 queries, under "
         r"index\.recall_target = 1: raise index\.nprobe \(now 1\) or leave it to be chosen, .*'flat' is exact"),
        ("ivf_pq", {"rescore": 1}, r"index \(ivf with pq\) finds .*raise index\.rescore \(now 1\).* lower the target"),
    ],
)  # fmt: skip
def test_a_target_that_is_not_reached_is_refused(name: str, fixed: dict[str, int], message: str) -> None:
    index = build_index(unit_vectors(2000, 8, 0), **SMALL[name] | {"pq_bytes": 1})
    with pytest.raises(ArtifactError, match=message):
        meet_target(index, unit_vectors(40, 8, 1), 10, 1.0, fixed)


def test_items_that_tie_with_the_last_count_as_found() -> None:
    vectors = np.repeat(unit_vectors(40, 8, 0), 50, axis=0)
    index = meet_target(build_index(vectors, kind="ivf", ivf_lists=8), unit_vectors(20, 8, 1), 30, 1.0, {})
    assert index.recall is not None and index.recall["recall"] == 1.0

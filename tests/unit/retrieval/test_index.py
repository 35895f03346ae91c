"""ItemIndex: FAISS flat equals exact search, HNSW keeps its promises, saving, loading, and what is refused."""

from __future__ import annotations

import gc
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reckg.arrays.ragged_rows import take_rows
from reckg.errors import ArtifactError, ConfigError, DataError
from reckg.retrieval import index as index_module
from reckg.retrieval.exact import exact_search
from reckg.retrieval.extended_index import ExtendedIndex
from reckg.retrieval.faiss_index import Device, Kind, count_gpus, import_faiss
from reckg.retrieval.index import BATCH, ItemIndex, build_index
from reckg.retrieval.read_index import load_index

SMALL: dict[str, dict[str, Any]] = {  # every kind, as quick as it can be built
    "flat": {},
    "ivf": {"kind": "ivf", "ivf_lists": 16},
    "ivf_sq8": {"kind": "ivf", "compression": "sq8", "ivf_lists": 16},
    "ivf_pq": {"kind": "ivf", "compression": "pq", "ivf_lists": 16, "pq_bytes": 4},
    "hnsw": {"kind": "hnsw", "hnsw_m": 8, "ef_construction": 40},
    "hnsw_sq8": {"kind": "hnsw", "compression": "sq8", "hnsw_m": 8, "ef_construction": 40},
    "hnsw_pq": {"kind": "hnsw", "compression": "pq", "hnsw_m": 8, "ef_construction": 40, "pq_bytes": 4},
}


def unit_vectors(n: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_seen(n: int, n_items: int, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    length = rng.integers(0, most, n)
    return np.concatenate([[0], np.cumsum(length)]), rng.integers(0, n_items, length.sum())


@pytest.mark.parametrize("n", [1, BATCH - 1, BATCH])
def test_flat_equals_exact_search(n: int) -> None:
    vectors, queries = unit_vectors(700, 16, 0), unit_vectors(n, 16, 1)
    seen = random_seen(n, 700, 200, 2)
    found, exact = build_index(vectors).search(queries, 50, seen), exact_search(queries, vectors, 50, seen)
    assert np.array_equal(found.item_idx, exact.item_idx)
    assert np.array_equal(found.score, exact.score)


def test_flat_equals_exact_search_in_scores_where_items_tie() -> None:
    vectors, queries = np.repeat(unit_vectors(40, 8, 0), 5, axis=0), unit_vectors(3, 8, 1)
    found, exact = build_index(vectors).search(queries, 12), exact_search(queries, vectors, 12)
    assert np.array_equal(found.score, exact.score)
    assert np.array_equal(found.item_idx // 5, exact.item_idx // 5)


def test_flat_answers_small_searches_through_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "search_checked", None)
    assert build_index(unit_vectors(50, 8, 0)).search(unit_vectors(4, 8, 1), 5).item_idx.shape == (4, 5)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("n", [1, 3])
def test_k_items_come_back_where_k_exist(kind: Kind, n: int) -> None:
    vectors, queries = unit_vectors(60, 8, 0), unit_vectors(n, 8, 1)
    row = np.arange(55)  # all but five items are seen
    seen = (np.arange(n + 1) * 110, np.tile(np.concatenate([row, row]), n))
    found = build_index(vectors, kind=kind, hnsw_m=4).search(queries, 10, seen)
    assert ((found.item_idx >= 0).sum(axis=1) == 5).all()
    assert (found.item_idx[:, :5] >= 55).all()
    assert (found.item_idx[:, 5:] == -1).all() and np.isneginf(found.score[:, 5:]).all()


def test_hnsw_finds_nearly_all_and_never_the_seen() -> None:
    vectors, queries = unit_vectors(3000, 16, 0), unit_vectors(20, 16, 1)
    seen = random_seen(20, 3000, 60, 2)
    found = build_index(vectors, kind="hnsw", ef_construction=80).search(queries, 20, seen)
    exact = exact_search(queries, vectors, 20, seen)
    share = np.mean([np.isin(a, b).mean() for a, b in zip(exact.item_idx, found.item_idx, strict=True)])
    assert share > 0.95
    for query in range(20):
        assert not np.isin(found.item_idx[query], seen[1][seen[0][query] : seen[0][query + 1]]).any()
    assert (np.diff(found.score, axis=1) <= 0).all()


class Forgetful:
    """Answers as FAISS does where it finds only the items 0 and 1."""

    def search(self, queries: np.ndarray, k: int, params: object) -> tuple[np.ndarray, np.ndarray]:
        found = np.full((len(queries), k), -1, dtype=np.int64)
        found[:, :2] = [0, 1]
        return np.zeros(found.shape, dtype=np.float32), found


def test_rows_that_hnsw_leaves_short_are_searched_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = unit_vectors(400, 8, 0), unit_vectors(3, 8, 1)
    index = build_index(vectors, kind="hnsw")
    monkeypatch.setattr(index, "_index", Forgetful())
    found, exact = index.search(queries, 7), exact_search(queries, vectors, 7)
    assert np.array_equal(found.item_idx, exact.item_idx)


def test_what_faiss_does_not_find_is_no_item(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, query = unit_vectors(40, 8, 0), unit_vectors(40, 8, 0)[-1:]  # the last item is the nearest
    index = build_index(vectors)
    monkeypatch.setattr(index, "_index", Forgetful())
    found = index.search(query, 3)
    assert sorted(found.item_idx[0, :2].tolist()) == [0, 1]
    assert found.item_idx[0, 2] == -1 and np.isneginf(found.score[0, 2])


@pytest.mark.parametrize("name", list(SMALL))
def test_save_and_load_answer_the_same(name: str, tmp_path: Path) -> None:
    vectors, queries = unit_vectors(900, 8, 0), unit_vectors(5, 8, 1)
    index = build_index(vectors, **SMALL[name])
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert loaded.description() == index.description()
    assert (loaded.n_items, loaded.dim) == (900, 8)
    assert np.array_equal(loaded.vectors(), vectors)
    assert np.array_equal(loaded.search(queries, 10).item_idx, index.search(queries, 10).item_idx)
    with pytest.raises(ValueError, match="read-only"):
        loaded.vectors()[0, 0] = 1
    loaded.save(tmp_path / "again")  # a mapped index can be written
    assert np.array_equal(load_index(tmp_path / "again").vectors(), vectors)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
@pytest.mark.parametrize("name", list(SMALL))
def test_a_loaded_index_is_mapped_not_read(name: str, tmp_path: Path) -> None:
    build_index(unit_vectors(900, 8, 0), **SMALL[name]).save(tmp_path)
    loaded = load_index(tmp_path)
    maps = Path("/proc/self/maps").read_text()
    assert str(tmp_path / "index.faiss") in maps
    assert (str(tmp_path / "vectors.npy") in maps) == (name not in ("flat", "hnsw"))
    assert (tmp_path / "vectors.npy").exists() == (name not in ("flat", "hnsw"))
    assert loaded.n_items == 900


@pytest.mark.parametrize("name", list(SMALL))
def test_saving_over_a_mapped_index_leaves_it_as_it_is(name: str, tmp_path: Path) -> None:
    vectors = unit_vectors(900, 8, 0)
    build_index(vectors, **SMALL[name]).save(tmp_path)
    loaded = load_index(tmp_path)
    build_index(unit_vectors(300, 8, 1), **SMALL[name]).save(tmp_path)
    assert np.array_equal(loaded.vectors(), vectors)
    assert loaded.search(vectors[7:8], 1).item_idx.tolist() == [[7]]
    assert load_index(tmp_path).n_items == 300


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("mapped", [False, True])
def test_more_vectors_are_found_behind_an_index(name: str, mapped: bool, tmp_path: Path) -> None:
    vectors, more = unit_vectors(900, 8, 0), unit_vectors(20, 8, 1)
    index = build_index(vectors, **SMALL[name])
    if mapped:
        index.save(tmp_path)
        index = load_index(tmp_path)
    grown = ExtendedIndex(index, more)
    assert (index.n_items, grown.n_items) == (900, 920)
    assert np.array_equal(grown.vectors(), np.concatenate([vectors, more]))
    assert grown.search(more, 1).item_idx[:, 0].tolist() == list(range(900, 920))
    with pytest.raises(ArtifactError, match="3 dimensions are added to an index of 8"):
        ExtendedIndex(index, unit_vectors(2, 3, 0))


@pytest.mark.parametrize("name", list(SMALL))
def test_the_vectors_outlive_the_index(name: str, tmp_path: Path) -> None:
    vectors = unit_vectors(2000, 8, 0)
    build_index(vectors, **SMALL[name]).save(tmp_path)
    kept = load_index(tmp_path).vectors()
    gc.collect()
    noise = [np.full((2000, 8), 7, np.float32) for _ in range(8)]  # takes the memory, had it been freed
    assert np.array_equal(kept, vectors)
    del noise


@pytest.mark.parametrize("name", list(SMALL))
def test_scores_are_exact_inner_products_in_every_kind(name: str) -> None:
    vectors, queries = unit_vectors(900, 8, 0), unit_vectors(6, 8, 1)
    found, exact = build_index(vectors, **SMALL[name]).search(queries, 10), exact_search(queries, vectors, 900)
    for row in range(6):
        by_item = dict(zip(exact.item_idx[row].tolist(), exact.score[row].tolist(), strict=True))
        assert [by_item[item] for item in found.item_idx[row].tolist()] == found.score[row].tolist()


@pytest.mark.parametrize("name", ["ivf", "ivf_pq", "hnsw_pq"])
def test_training_repeats_with_its_seed(name: str) -> None:
    vectors = unit_vectors(900, 8, 0)
    faiss = import_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # several add to hnsw in the order in which they come
    built = [faiss.serialize_index(build_index(vectors, **SMALL[name], seed=seed)._index) for seed in (3, 3, 4)]
    faiss.omp_set_num_threads(threads)
    assert np.array_equal(built[0], built[1]) and not np.array_equal(built[0], built[2])


def test_an_index_of_the_first_format_is_read(tmp_path: Path) -> None:
    build_index(unit_vectors(30, 4, 0), kind="hnsw").save(tmp_path)
    path = tmp_path / "index.json"
    new = json.loads(path.read_text())
    old = {key: new[key] for key in ("kind", "n_items", "dim", "settings", "sha256")}
    path.write_text(json.dumps(old | {"format_version": 1}))
    loaded = load_index(tmp_path)
    assert (loaded.kind, loaded.compression, loaded.recall) == ("hnsw", "none", None)


@cache
def small_index(name: str) -> ItemIndex:
    """Of unit_vectors(2000, 8, 0); it searches all of its lists."""
    return build_index(unit_vectors(2000, 8, 0), **SMALL[name], nprobe=16)


def random_mask(n_items: int, share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(n_items) < share


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("share", [0.004, 0.05, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("n", [3, BATCH])
def test_a_filter_gives_k_allowed_items_where_k_exist(name: str, share: float, n: int) -> None:
    vectors, queries = unit_vectors(2000, 8, 0), unit_vectors(n, 8, 1)
    allowed, seen = random_mask(2000, share, 2), random_seen(n, 2000, 300, 3)
    found = small_index(name).search(queries, 10, seen, allowed)
    for row in range(n):
        left = allowed.copy()
        left[seen[1][seen[0][row] : seen[0][row + 1]]] = False
        items = found.item_idx[row][found.item_idx[row] >= 0]
        assert len(items) == min(10, left.sum()) and len(set(items.tolist())) == len(items)
        assert left[items].all()
        best = exact_search(queries[row : row + 1], vectors[left], 10).item_idx[0]
        best = np.flatnonzero(left)[best[best >= 0]]
        assert np.isin(best, items).mean() >= (1.0 if name == "flat" else 0.7)


def test_a_filter_is_exact_where_few_are_allowed_and_goes_to_faiss_where_many_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, queries = build_index(unit_vectors(2000, 8, 0), **SMALL["ivf"]), unit_vectors(2, 8, 1)
    few, many = random_mask(2000, 0.02, 2), random_mask(2000, 0.5, 2)
    with monkeypatch.context() as patch:
        patch.setattr(index, "_index", None)
        assert few[index.search(queries, 5, allowed=few).item_idx].all()
    monkeypatch.setattr(index_module, "search_checked", None)
    assert many[index.search(queries, 5, allowed=many).item_idx].all()


@pytest.mark.parametrize("name", list(SMALL))
def test_a_batch_equals_single_searches(name: str) -> None:
    index, queries = build_index(unit_vectors(2000, 8, 0), **SMALL[name], nprobe=4), unit_vectors(70, 8, 1)
    seen = random_seen(70, 2000, 50, 2)
    for allowed in (None, random_mask(2000, 0.6, 3)):
        batch = index.search(queries, 10, seen, allowed)
        for row in range(70):
            alone = index.search(queries[row : row + 1], 10, take_rows(seen, np.array([row])), allowed)
            assert np.array_equal(alone.item_idx[0], batch.item_idx[row])
            assert np.array_equal(alone.score[0], batch.score[row])


def test_nothing_allowed_is_nothing_found() -> None:
    index = build_index(unit_vectors(20, 4, 0))
    assert (index.search(unit_vectors(2, 4, 1), 3, allowed=np.zeros(20, dtype=bool)).item_idx == -1).all()


needs_gpu = pytest.mark.skipif(count_gpus() == 0, reason="faiss finds no GPU (faiss-cpu, or no device)")


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=[pytest.mark.gpu, needs_gpu])])
@pytest.mark.parametrize("name", ["flat", "ivf", "ivf_sq8", "ivf_pq"])
def test_devices_answer_alike(name: str, device: Device, tmp_path: Path) -> None:
    vectors, queries = unit_vectors(2000, 8, 0), unit_vectors(9, 8, 1)
    efforts = {"nprobe": 16, "rescore": 8} if name.startswith("ivf") else {}
    index = build_index(vectors, **SMALL[name], **efforts, device=device)
    assert (index._gpu is not None) == (device == "gpu")
    seen, allowed = random_seen(9, 2000, 50, 2), random_mask(2000, 0.5, 3)
    index.save(tmp_path)  # in the CPU's form
    for some in (index, load_index(tmp_path), load_index(tmp_path, device)):
        for mask in (None, allowed):
            exact = exact_search(queries, vectors if mask is None else vectors * mask[:, None], 2000, seen)
            found = some.search(queries, 10, seen, mask)
            wanted = exact.item_idx[:, :10]
            share = np.mean([np.isin(a, b).mean() for a, b in zip(wanted, found.item_idx, strict=True)])
            assert share == 1 if name == "flat" else share > 0.9


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if count_gpus() == 0:
        with pytest.raises(ConfigError, match=r"index\.device is 'gpu', but this faiss .* finds no GPU"):
            build_index(unit_vectors(20, 4, 0), device="gpu")
    with pytest.raises(ConfigError, match="no HNSW on GPUs"):
        build_index(unit_vectors(20, 4, 0), kind="hnsw", device="gpu")
    assert build_index(unit_vectors(20, 4, 0), kind="hnsw", device="auto")._gpu is None


def test_an_index_without_items() -> None:
    found = build_index(np.zeros((0, 4), np.float32)).search(unit_vectors(2, 4, 0), 3)
    assert found.item_idx.tolist() == [[-1, -1, -1]] * 2


def test_what_is_refused_when_searching() -> None:
    index = build_index(unit_vectors(10, 4, 0))
    broken = unit_vectors(2, 4, 1)
    broken[1, 2] = np.nan
    with pytest.raises(DataError, match="row 1"):
        index.search(broken, 3)
    with pytest.raises(ArtifactError, match="4 dimensions"):
        index.search(unit_vectors(2, 5, 1), 3)
    with pytest.raises(ValueError, match="k must be"):
        index.search(unit_vectors(2, 4, 1), 0)
    with pytest.raises(DataError, match="seen items are not in"):
        index.search(unit_vectors(1, 4, 1), 3, (np.array([0, 1]), np.array([10])))
    with pytest.raises(ConfigError, match=r"flat, ivf, hnsw .*got 'tree'"):
        build_index(unit_vectors(2, 4, 1), kind="tree")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="flat' is exact and takes no compression"):
        build_index(unit_vectors(2, 4, 1), compression="sq8")
    with pytest.raises(ConfigError, match="divide and 256 items; there are 2 items of 4 dimensions"):
        build_index(unit_vectors(2, 4, 1), kind="ivf", compression="pq", pq_bytes=2)
    with pytest.raises(ConfigError, match=r"ivf_lists must be 1\.\.2"):
        build_index(unit_vectors(2, 4, 1), kind="ivf", ivf_lists=3)
    with pytest.raises(DataError, match="must be 10 bool"):
        index.search(unit_vectors(2, 4, 1), 3, allowed=np.ones(9, dtype=bool))


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    build_index(unit_vectors(30, 4, 0)).save(tmp_path)
    payload = (tmp_path / "index.faiss").read_bytes()
    (tmp_path / "index.faiss").write_bytes(payload[:-1] + bytes([payload[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="damaged"):
        load_index(tmp_path)
    (tmp_path / "index.faiss").unlink()
    with pytest.raises(ArtifactError, match=r"index\.faiss is missing"):
        load_index(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_items": 31}, "30 vectors of 4 dimensions, index.json says 31"),
        ({"kind": "hnsw", "settings": {"ef_search": 1}}, "IndexFlatIP, index.json says hnsw"),
        ({"kind": "tree"}, "kind 'tree'"),
        ({"kind": "ivf"}, "lacks settings.ivf_lists"),
        ({"vectors_sha256": "0"}, r"vectors\.npy is missing"),
        ({"format_version": 99}, "format 99"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    build_index(unit_vectors(30, 4, 0)).save(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=message):
        load_index(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_broken_description_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"index\.json"):
        load_index(tmp_path)


def test_a_missing_faiss_names_both_ways_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ArtifactError, match=r"reckg\[cpu\].*reckg\[gpu\]"):
        build_index(unit_vectors(3, 4, 0))

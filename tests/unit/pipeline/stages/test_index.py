"""The stage index over a run folder with vectors: what it chooses, measures, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reckg.config.run_config import parse_config
from reckg.errors import ArtifactError
from reckg.pipeline.stages import index as stage
from reckg.retrieval import choose_index as choose
from reckg.retrieval.faiss_index import import_faiss
from reckg.retrieval.read_index import load_index
from tests.unit.retrieval.test_index import unit_vectors


@pytest.fixture(autouse=True)
def vectors(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    users, items = unit_vectors(60, 8, 0), unit_vectors(1500, 8, 1)
    monkeypatch.setattr(stage, "read_embeddings", lambda run, state: (users, items))
    return users, items


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = import_faiss().omp_get_max_threads()
    yield
    import_faiss().omp_set_num_threads(before)


def run(folder: Path, **index: Any) -> dict[str, Any]:
    config = parse_config({"run": {"threads": 1}, "index": index, "rank": {"candidates": 20}}, "the test")
    return stage.index(config, folder, folder)


def test_a_small_catalogue_is_flat_and_its_recall_is_measured(tmp_path: Path) -> None:
    counts = run(tmp_path)
    assert (counts["kind"], counts["recall"], counts["k"], counts["queries"]) == ("flat", 1.0, 20, 60)


def grouped(n: int, seed: int) -> np.ndarray:
    """Unit vectors around 20 centres, far from each other."""
    rng = np.random.default_rng(seed)
    centre = np.eye(20, dtype=np.float32)[rng.integers(0, 20, n)]
    near = centre + rng.normal(scale=0.05, size=(n, 20)).astype(np.float32)
    return near / np.linalg.norm(near, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("exact_items", "index", "in_groups", "kind"),
    [
        (1000, {}, True, "ivf"),
        (1000, {"ivf_lists": 20}, True, "ivf"),
        (1000, {"nprobe": 1, "ivf_lists": 20}, True, "flat"),
        (1500, {}, True, "flat"),
        (1000, {}, False, "flat"),
        (1000, {"memory_gb": 1500 * 4 * 20 / 2**30}, True, "flat"),
        (1000, {"kind": "flat"}, True, "flat"),
        (1000, {"compression": "none"}, True, "flat"),
    ],
)
def test_a_middling_catalogue_is_ivf_where_that_is_nearly_exact(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exact_items: int,
    index: dict[str, Any],
    in_groups: bool,
    kind: str,
) -> None:
    vectors = grouped if in_groups else lambda n, seed: unit_vectors(n, 20, seed)
    monkeypatch.setattr(stage, "read_embeddings", lambda run, state: (vectors(60, 0), vectors(1500, 1)))
    monkeypatch.setattr(choose, "EXACT_ITEMS", exact_items)
    counts = run(tmp_path, **index)
    assert counts["kind"] == kind
    assert counts["recall"] >= 0.999
    if kind == "ivf":
        assert counts["nprobe"] <= 0.25 * counts["ivf_lists"] and counts["target"] == 0.999
    else:
        assert counts["target"] == 0.95


def test_settings_and_recall_are_written(tmp_path: Path) -> None:
    counts = run(tmp_path, kind="ivf", compression="sq8", recall_target=0.9, recall_queries=50, ivf_lists=20)
    written = json.loads((tmp_path / "index" / "index.json").read_text())
    assert (written["kind"], written["compression"], written["settings"]["ivf_lists"]) == ("ivf", "sq8", 20)
    assert written["recall"]["target"] == 0.9 and written["recall"]["queries"] == 50
    assert counts["recall"] == written["recall"]["recall"] >= 0.9
    assert load_index(tmp_path / "index").description() == {
        key: written[key] for key in load_index(tmp_path / "index").description()
    }


def test_a_build_under_its_target_fails_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"under index\.recall_target = 0\.99: raise index\.nprobe \(now 1\)"):
        run(tmp_path, kind="ivf", nprobe=1, recall_target=0.99)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("setting", [{"ef_search": 300}, {"ef_search": 20}])
def test_a_given_effort_is_kept(tmp_path: Path, setting: dict[str, int]) -> None:
    counts = run(tmp_path, kind="hnsw", hnsw_m=8, ef_construction=40, recall_target=0.1, **setting)
    assert counts["ef_search"] == setting["ef_search"]

"""The stage index over a run folder with vectors: what it chooses, measures, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import index as stage
from reckg.config import parse_config
from reckg.errors import ArtifactError
from reckg.retrieval.faiss_parts import faiss_module
from reckg.retrieval.index import load_index
from tests.unit.test_index import unit_vectors


@pytest.fixture(autouse=True)
def vectors(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    users, items = unit_vectors(60, 8, 0), unit_vectors(1500, 8, 1)
    monkeypatch.setattr(stage, "read_embeddings", lambda run, state: (users, items))
    return users, items


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = faiss_module().omp_get_max_threads()
    yield
    faiss_module().omp_set_num_threads(before)


def run(folder: Path, **index: Any) -> dict[str, Any]:
    config = parse_config({"run": {"threads": 1}, "index": index, "rank": {"candidates": 20}}, "the test")
    return stage.index(config, folder, folder)


def test_a_small_catalogue_is_flat_and_its_recall_is_measured(tmp_path: Path) -> None:
    counts = run(tmp_path)
    assert (counts["kind"], counts["recall"], counts["k"], counts["queries"]) == ("flat", 1.0, 20, 60)


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

"""A small bookshop with its items split, through every stage: what is trained, kept, reported and served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from jobs.cli import main
from reckg.data.bookshop.write import write_bookshop
from reckg.pipeline.run.folder import read_prepared
from reckg.pipeline.training.model_inputs import item_texts
from tests.small_model import plain_vectors

CONFIG = """
[run]
threads = 1

[split]
kind = "cold-items"
cold_share = 0.3

[text]
encoder = "{encoder}"
policy = "top-k"
learning_rate = 0.01
max_tokens = 32

[model]
embedding_dim = 8

[train]
epochs = 2
batch_size = 256

[evaluate]
bootstrap_samples = 100
"""


def test_a_run_with_new_items(
    encoder: Path, tmp_path: Path, no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    write_bookshop(data, users=80, items=60, seed=3, interactions_per_user=10)
    (tmp_path / "run.toml").write_text(CONFIG.format(encoder=encoder))
    assert main(["run", str(tmp_path / "run.toml"), "--data", str(data), "--out", str(run)]) == 0
    out = capsys.readouterr().out
    prepared = read_prepared(run)
    parts = prepared.interactions.group_by("item_idx").agg(pl.col("split").unique())
    assert parts["split"].list.len().max() == 1
    items = {part: parts.filter(pl.col("split").list.first() == part).height for part in ("train", "valid", "test")}
    n_cold = int(parts.height * 0.3 + 0.5)
    assert items == {"train": parts.height - n_cold, "valid": n_cold // 2, "test": n_cold - n_cold // 2}
    # The text vectors that the baseline has are the encoder's own, not what training made of it.
    kept = load_file(run / "embeddings" / "text.safetensors")["items"]
    texts = item_texts(prepared)
    np.testing.assert_allclose(kept, plain_vectors(encoder, texts), atol=2e-3)
    assert np.abs(plain_vectors(run / "embeddings" / "text_encoder", texts).numpy() - kept).max() > 0.01
    report = json.loads((run / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["cold_items"]["new_items"] == items["test"]
    assert {"reckg", "model", "random", "text_knn", "ease"} <= report["cold_items"]["systems"].keys()
    assert [check["name"] for check in report["leakage_checks"] if check["passed"] is False] == []
    assert "a cold-items split are new items alone" in out and f"among {items['test']} new items" in out
    # What is served knows everything, the held-out interactions of the new items too.
    assert main(["recommend", str(run / "bundle"), "--out", str(tmp_path / "recs.parquet"), "--k", "5"]) == 0
    assert pl.read_parquet(tmp_path / "recs.parquet")["user_id"].n_unique() == len(prepared.users)

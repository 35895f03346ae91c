"""Stage bundle: everything that is served, put together as of all interactions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.data.ids import IdMap
from reckg.files.file_hash import file_sha256
from reckg.inductive.files import load_inductive
from reckg.pipeline.ranking.table_inputs import feature_tables
from reckg.pipeline.run.folder import read_embeddings, read_prepared
from reckg.pipeline.run.state import StageCounts
from reckg.ranking.trees.ranker import load_ranker
from reckg.recommend.golden import save_with_golden
from reckg.retrieval.read_index import load_index


def bundle(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes bundle/. The metrics in its manifest are those of the validation part; the report has the test part.

    Args:
        config: of the run.
        data: dataset folder; not read.
        run: run folder with prepared/, embeddings/, model/, index/ and ranker/.
    Returns:
        Counts for the log.
    """
    prepared = read_prepared(run)
    users, items = read_embeddings(run, "serving")
    train = json.loads((run / "model" / "train.json").read_text(encoding="utf-8"))
    ranker = json.loads((run / "ranker" / "ranker.json").read_text(encoding="utf-8"))["info"]
    index = load_index(run / "index")
    digest = file_sha256(run / "prepared" / "interactions.parquet")
    made = Bundle(
        version=f"{prepared.info['name']}-{digest[:8]}-{_fingerprint(items)}",
        manifest={
            "name": prepared.info["name"],
            "config": config.model_dump(mode="json"),
            "data_hash": digest,
            "item_columns": prepared.info["item_columns"],
            "task": dict(prepared.info.get("task", {"target": prepared.target})),
            "metrics": {"valid_ndcg@10": train["valid_ndcg@10"]},
            "index": index.description(),
            "ranker": {"served": ranker["served"], "why": ranker["why"]},
        },
        user_ids=IdMap(prepared.users["user_id"], "user id"),
        item_ids=IdMap(prepared.items["item_id"], "item id"),
        items=prepared.items,
        user_vectors=users,
        item_vectors=items,
        index=index,
        history=prepared.history("serving", config),
        features=feature_tables(config, run, prepared, "serving"),
        ranker=load_ranker(run / "ranker"),
        inductive=load_inductive(run / "embeddings" / "inductive", prepared.items["item_id"].to_list()),
    )
    extra = {"model": run / "model"}
    if (run / "embeddings" / "text_encoder").is_dir():
        extra["text_encoder"] = run / "embeddings" / "text_encoder"
    manifest = save_with_golden(made, run / "bundle", extra_folders=extra, overwrite=True)
    size = sum(file["bytes"] for file in manifest["files"].values())
    return {"version": made.version, "files": len(manifest["files"]), "megabytes": round(size / 1e6, 1)}


def _fingerprint(items: np.ndarray) -> str:
    return hashlib.sha256(items.tobytes()).hexdigest()[:8]

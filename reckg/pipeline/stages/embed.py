"""Stage embed: the vectors of users and items as of training, of test time, and of service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from reckg.config.run_config import Config
from reckg.files.mapped_tensors import write_tensors
from reckg.inductive.embedder import ENCODER, USER_PREFIX
from reckg.inductive.files import write_inductive
from reckg.inductive.info import TextInfo
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.inductive_arrays import inductive_parts
from reckg.pipeline.run.folder import STATES, Prepared, read_prepared
from reckg.pipeline.run.state import StageCounts
from reckg.pipeline.training.model_inputs import load_graph, served_shares
from reckg.pipeline.training.refresh import refresh_model
from reckg.pipeline.training.trained_model import TrainedModel, build_untrained_model, load_weights


def embed(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes the unit vectors embeddings/{train,test,serving}.safetensors, embeddings/inductive/, and the text encoder.

    The three differ in the interactions that the graph holds; for test time and service the model is trained on over
    them (`refresh_model`). With texts, also embeddings/text.safetensors: the encoder's vectors of the items' texts
    before training, for ranking and the evaluation's text kNN.

    Args:
        config: of the run.
        data: dataset folder; not read.
        run: run folder with prepared/, graph/ and model/.
    Returns:
        Counts for the log.
    """
    prepared = read_prepared(run)
    shares = served_shares(run)
    trained_on = load_graph(run, prepared, config, "train", attention=shares)
    model = build_untrained_model(config, run, prepared, trained_on)
    folder = run / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    if model.text is not None:
        write_tensors(folder / "text.safetensors", {"items": model.text.vectors.cpu().numpy()})
    trained = load_weights(model, run)
    for name in STATES:
        graph = trained_on if name == "train" else load_graph(run, prepared, config, name, attention=shares)
        now = trained if name == "train" else refresh_model(config, run, prepared, trained, name)
        tensors = now.attend(graph)
        if name == "serving":
            if now.model.text is not None:
                now.model.text.save(folder / ENCODER)
            _write_inductive(config, run, prepared, now, tensors)
        embeddings = now.spectral.joined(now.model.embeddings(tensors), graph)
        write_tensors(folder / f"{name}.safetensors", {"users": embeddings.users, "items": embeddings.items})
    return {"users": model.n_users, "items": model.n_items, "dimensions": embeddings.items.shape[1]}


def embed_train(config: Config, run: Path) -> None:
    """Writes embeddings/train.safetensors alone, and the vectors of texts.

    Args:
        config: of the run.
        run: folder of a fold.
    """
    prepared = read_prepared(run)
    graph = load_graph(run, prepared, config, "train", attention=served_shares(run))
    model = build_untrained_model(config, run, prepared, graph)
    (run / "embeddings").mkdir(exist_ok=True)
    if model.text is not None:
        write_tensors(run / "embeddings" / "text.safetensors", {"items": model.text.vectors.cpu().numpy()})
    embeddings = load_weights(model, run).embeddings(graph)
    write_tensors(run / "embeddings" / "train.safetensors", {"users": embeddings.users, "items": embeddings.items})


def _write_inductive(
    config: Config, run: Path, prepared: Prepared, trained: TrainedModel, tensors: GraphTensors
) -> None:
    """Writes embeddings/inductive/, which embeds new items and users in service."""
    counts = json.loads((run / "graph" / "graph.json").read_text(encoding="utf-8"))["counts"]
    numbers: dict[str, Any] = {}
    for table, prefix in (("item", ""), ("user", USER_PREFIX)):
        columns = counts.get(f"{table}_attributes", {}).get("columns", {})
        numbers |= {prefix + name: column["bins"] for name, column in columns.items() if "bins" in column}
    model = trained.model
    known = prepared.known("serving", config)
    weight = np.bincount(known["item_idx"].to_numpy(), known["weight"].to_numpy(), minlength=model.n_items)
    text: TextInfo = {"max_tokens": config.text.max_tokens, "attributes": config.text.attributes}
    write_inductive(
        run / "embeddings" / "inductive",
        inductive_parts(model, trained.spectral, tensors, weight),
        {
            "n_users": model.n_users,
            "n_items": model.n_items,
            "relations": list(tensors.graph.relations[1:]),
            "aggregator": config.model.aggregator,
            "combine": config.model.combine,
            "interaction_share": served_shares(run).interaction_share,
            "half_life": served_shares(run).half_life,
            "item_columns": prepared.info["item_columns"],
            "user_columns": prepared.info["user_columns"],
            "numbers": numbers,
            "text": None if model.text is None else text,
        },
        pl.read_parquet(run / "graph" / "entities.parquet")["name"].to_list(),
    )

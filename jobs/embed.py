"""Stage embed: the vectors of users and items as of training, of test time, and of service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save_file

from jobs.model_files import build_model, load_graph, pick_device
from jobs.run_folder import STATES, n_threads, read_prepared
from reckg.config import Config
from reckg.model.checkpoint import load_tensors
from reckg.model.graph_tensors import GraphTensors
from reckg.model.train import load_trained_state


def embed(config: Config, data: Path, run: Path) -> dict[str, Any]:
    """Writes embeddings/{train,test,serving}.safetensors, unit vectors; and the text encoder, where there is one.

    The three differ in the interactions that the graph holds; the weights are those of training. Where the items are
    split, also embeddings/text.safetensors: what the encoder made of the items' texts before training, for the
    evaluation's text kNN.
    """
    torch.set_num_threads(n_threads(config))
    torch.manual_seed(config.run.seed)
    device = pick_device(config)
    prepared = read_prepared(run)
    trained_on = load_graph(run, prepared, config, "train")
    model = build_model(config, run, prepared, trained_on, device)
    folder = run / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    if model.text is not None and prepared.cold_items:
        save_file({"items": model.text.vectors.cpu().numpy()}, folder / "text.safetensors")
    state, _ = load_tensors(run / "model" / "model.safetensors")
    load_trained_state(model, state)
    for name in STATES:
        graph = trained_on if name == "train" else load_graph(run, prepared, config, name)
        tensors = GraphTensors(graph, device)
        model.update_attention(tensors)
        embeddings = model.embeddings(tensors)
        save_file({"users": embeddings.users, "items": embeddings.items}, folder / f"{name}.safetensors")
    if model.text is not None:
        model.text.save(folder / "text_encoder")
    return {"users": model.n_users, "items": model.n_items, "dimensions": embeddings.items.shape[1]}

"""How a run is to be trained within its memory: decided before the graph is read, and kept for a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from reckg.config.run_config import Config
from reckg.errors import ArtifactError
from reckg.model.joint.histories import LATEST
from reckg.model.text.encoder import locate_encoder
from reckg.model.training.memory import GB, Plan, Sizes, available_memory, choose_plan, held_memory
from reckg.pipeline.run.folder import Prepared, write_json
from reckg.pipeline.training.model_inputs import has_user_ids

FULL_SOFTMAX_ITEMS = 20_000


def training_plan(config: Config, run: Path, prepared: Prepared, device: torch.device, key: str) -> Plan:
    """Reads the plan of an unfinished training, or chooses the one that fits now and keeps it.

    Args:
        key: of the training; a plan of another key is replaced.
    Raises:
        ConfigError: nothing fits, see reckg.model.training.memory.
    """
    path = run / "model" / "plan.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("key") == key:
        return Plan(**kept["plan"])
    plan = fitting_plan(config, run, prepared, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, "plan": vars(plan)})
    return plan


def fitting_plan(config: Config, run: Path, prepared: Prepared, device: torch.device) -> Plan:
    """Chooses the plan that fits the memory now. Raises ConfigError if nothing fits."""
    cuda, budget = device.type == "cuda", int(config.train.memory_gb * GB)
    held = torch.cuda.memory_allocated(device) if cuda else held_memory()
    return choose_plan(
        training_sizes(config, run, prepared, cuda),
        propagation=config.train.propagation,
        held=held,
        budget=budget or held + (available_on(device) if cuda else available_memory()),
        softmax=config.train.loss == "softmax"
        or (config.train.loss == "auto" and len(prepared.items) <= FULL_SOFTMAX_ITEMS),
    )


def available_on(device: torch.device) -> int:
    """Counts the bytes of a CUDA device that are free, or that torch keeps without using them."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def training_loss(config: Config, n_items: int, plan: Plan) -> str:
    """Returns train.loss, or the loss that auto stands for.

    Args:
        n_items: items of the catalog.
        plan: of the training; a sampled graph rules the full softmax out.
    """
    if config.train.loss != "auto":
        return config.train.loss
    return "softmax" if n_items <= FULL_SOFTMAX_ITEMS and plan.propagation == "full" else "sampled-softmax"


def training_sizes(config: Config, run: Path, prepared: Prepared, cuda: bool = False) -> Sizes:
    """Reads the sizes that a training's memory depends on.

    Args:
        cuda: the memory is that of a CUDA device.
    Raises:
        ArtifactError: graph/ cannot be read.
    """
    try:
        graph = json.loads((run / "graph" / "graph.json").read_text(encoding="utf-8"))
        triples = int(graph["counts"]["triples"])
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{run / 'graph'} cannot be read ({error}). Run 'reckg build-graph' again.") from error
    lengths = np.bincount(prepared.known("train", config)["user_idx"].to_numpy(), minlength=len(prepared.users))
    interactions, items = int(lengths.sum()), len(prepared.items)
    entities = int(graph["n_entities"])
    capped = np.minimum(lengths, LATEST).astype(np.int64)
    before = (capped * (capped - 1) // 2 + (lengths - capped) * LATEST).sum()
    softmax = config.train.loss == "softmax" or (config.train.loss == "auto" and items <= FULL_SOFTMAX_ITEMS)
    texts = config.text.encoder != "none" and bool(prepared.info["item_columns"]["text"])
    return Sizes(
        users=len(prepared.users),
        items=items,
        entities=entities,
        edges=2 * (interactions + triples),
        interactions=interactions,
        id_rows=items + entities + (len(prepared.users) if has_user_ids(config, prepared) else 0),
        dim=config.model.embedding_dim,
        layers=config.model.layers,
        batch=config.train.batch_size,
        history=float(before / max(interactions, 1)) if prepared.in_order else 1.0,
        candidates=items if softmax else config.train.negatives,
        fanout=config.train.fanout,
        text_dim=_text_dim(config.text.encoder) if texts else 0,
        attention=config.model.attention,
        aggregator=config.model.aggregator,
        cuda=cuda,
    )


def _text_dim(encoder: str) -> int:
    """The dimension of the encoder's vectors, from its own description."""
    where = Path(locate_encoder(encoder)) / "config.json"
    known = json.loads(where.read_text(encoding="utf-8")) if where.is_file() else {}
    return int(known.get("hidden_size", 768))

"""The toy world as a graph, a tiny random text encoder, and models over both: for the tests of reckg/model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reckg.graph.knowledge_graph import KnowledgeGraph, build_knowledge_graph
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Histories
from reckg.model.joint.joint_model import JointModel, ModelSettings
from reckg.model.joint.kgat import Layers
from reckg.model.sparse.sampled_rows import CutRows
from reckg.model.text.encoder import EncoderSettings, TextEncoder
from reckg.model.training.batches import SeenItems
from reckg.model.training.objective import Objective
from reckg.model.training.train import Schedule
from tests import toy

CPU = torch.device("cpu")
TEXTS = ("emma a novel", "dune a desert", "solaris the sea", "", "ulysses a long day in a town")
SYMBOLS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def toy_graph(**changed: Any) -> KnowledgeGraph:
    """The toy world's graph: 4 users, 5 items, 3 genres; keywords replace arguments of build_knowledge_graph."""
    arguments: dict[str, Any] = {
        "n_users": toy.N_USERS,
        "n_items": toy.N_ITEMS,
        "n_entities": toy.N_ENTITIES,
        "relations": toy.RELATIONS,
        "triples": (toy.TRIPLE_HEAD, toy.TRIPLE_RELATION, toy.TRIPLE_TAIL),
        "user_idx": toy.USER_IDX,
        "item_idx": toy.ITEM_IDX,
        "interaction_share": 0.8,
    } | changed
    arguments.setdefault("recency", np.ones(len(arguments["user_idx"])))
    return build_knowledge_graph(**arguments)


def write_encoder(folder: Path, *, layers: int = 3, seed: int = 0) -> Path:
    """A BERT of random weights with 32 columns whose tokens are letters; saved as transformers saves one."""
    from transformers import BertConfig, BertModel, BertTokenizer

    pieces = [*SYMBOLS, *LETTERS, *("##" + letter for letter in LETTERS), "the", "sea", "novel", "town"]
    BertTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}).save_pretrained(folder)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,  # large enough that different texts have clearly different vectors
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    torch.set_rng_state(state)
    return folder


def text_encoder(encoder: Path, cache: Path, policy: str = "frozen", **changed: Any) -> TextEncoder:
    texts = changed.pop("texts", TEXTS)
    settings = {"policy": policy, "trainable_layers": 1, "lora_rank": 2, "max_tokens": 32}
    given = {name: changed.pop(name) for name in settings if name in changed}
    arguments: dict[str, Any] = {"cache": cache, "device": CPU} | changed
    return TextEncoder(str(encoder), texts, EncoderSettings(**settings | given), **arguments)


def plain_vectors(folder: str | Path, texts: Sequence[str], max_tokens: int = 32) -> torch.Tensor:
    """Mean over the tokens of one text at a time, normalised, by transformers alone; an empty text gives zeros."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        if not text:
            rows.append(torch.zeros(model.config.hidden_size))
            continue
        ids = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.no_grad():
            mean = model(**ids).last_hidden_state[0].mean(0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


def joint_model(graph: KnowledgeGraph, text: TextEncoder | None = None, *, seed: int = 0, **changed: Any) -> JointModel:
    """A small model whose weights the seed decides."""
    arguments: dict[str, Any] = {
        "embedding_dim": 8,
        "relation_dim": 4,
        "layers": 2,
        "aggregator": "sum",
        "combine": "mean",
        "attention": "uniform",
        "dropout": 0.0,
        "id_dropout": 0.0,
        "user_ids": True,
    } | changed
    torch.manual_seed(seed)
    return JointModel(graph, text, ModelSettings(**arguments))


def combine_layers(model: JointModel, layers: Layers[CutRows]) -> torch.Tensor:
    """(users and items, d): one vector each."""
    return model.propagation.combine_layers([nodes.values[: model.n_users + model.n_items] for nodes in layers.nodes])


def histories(tensors: GraphTensors, items: Sequence[Sequence[int]] = toy.HISTORY_ITEMS, **changed: Any) -> Histories:
    """Builds histories, oldest first; by default those of the toy world's users, without an order."""
    arguments: dict[str, Any] = {"ordered": False, "half_life": 0.0, "interaction_share": 0.8} | changed
    indptr = np.cumsum([0, *(len(row) for row in items)])
    return Histories(indptr, np.array([item for row in items for item in row], dtype=np.int64), tensors, **arguments)


def objective(tensors: GraphTensors, **changed: Any) -> Objective:
    """Softmax alone over the toy world's interactions; keywords replace fields."""
    known = changed.pop("histories", None) or histories(tensors)
    user, item = known.user.cpu(), known.item.cpu()  # random draws are made on the CPU
    count = torch.bincount(item, minlength=toy.N_ITEMS).float() + 1
    fields: dict[str, Any] = {
        "loss": "softmax",
        "temperature": 0.2,
        "negatives": 16,
        "popularity_correction": True,
        "kg_loss": "none",
        "kg_weight": 0.1,
        "text_weight": 0.0,
        "l2_weight": 0.0,
        "text_batch_tokens": 1024,
        "generator": torch.Generator().manual_seed(7),
        "histories": known,
        "seen": SeenItems(user, item, toy.N_USERS, toy.N_ITEMS),
        "popularity": count / count.sum(),
    } | changed
    return Objective(**fields)


def schedule(**changed: Any) -> Schedule:
    fields: dict[str, Any] = {
        "batch_size": 4,
        "learning_rate": 0.05,
        "text_learning_rate": 0.01,
        "weight_decay": 0.01,
        "warmup_steps": 3,
        "clip_norm": 5.0,
        "epochs": 4,
        "patience": 100,
        "validate_every": 1,
        "checkpoint_every": 1,
        "attention_every": 1,
        "refresh_every": 1,
    } | changed
    return Schedule(**fields)

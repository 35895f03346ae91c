"""The candidates that fit a request's time: counts of every source, chosen within a budget, and the time measured."""

from __future__ import annotations

import sys
import time
from typing import TypedDict

import numpy as np
from tqdm import tqdm

from reckg.config.run_config import Config
from reckg.ranking.features.extract import candidate_features
from reckg.ranking.sources.candidates import retrieve
from reckg.ranking.sources.depths import Choice, Cut
from reckg.ranking.trees.labels import LabelSet, depths_for
from reckg.ranking.trees.request_costs import measure_costs, one_thread
from reckg.ranking.trees.train import RankerResult

TIMED_REQUESTS = 100  # single requests over which the latency is taken


class MeasuredCosts(TypedDict):
    """Milliseconds of processor time: of every request, of each source beside it, and of each candidate."""

    shared: float
    sources: dict[str, float]
    candidate: float


class Latency(TypedDict, total=False):
    """The report's entries on a request's time; ``budget_ms`` is None without a budget, and then alone."""

    budget_ms: float | None
    expected_ms: float
    fits: bool
    costs_ms: MeasuredCosts
    cuts: list[Cut]


def choose_candidates(config: Config, valid: LabelSet) -> tuple[Choice, Latency]:
    """Chooses how many candidates each source gives, within rank.candidates and rank.latency_ms.

    Args:
        valid: labels of the validation part.
    """
    settings, seed = config.rank, config.run.seed
    if not settings.latency_ms:
        return depths_for(valid, settings.candidates, seed), {"budget_ms": None}
    costs = measure_costs(valid, settings.candidates, settings.trees, settings.leaves, seed)
    choice = depths_for(valid, settings.candidates, seed, costs, settings.latency_ms)
    expected = costs.of(choice)
    latency: Latency = {
        "budget_ms": settings.latency_ms,
        "expected_ms": round(expected, 2),
        "fits": expected <= settings.latency_ms,
        "costs_ms": {"shared": costs.shared, "sources": dict(costs.sources), "candidate": costs.candidate},
        "cuts": list(choice.cuts),
    }
    if choice.cuts:
        cuts = ", then ".join(cut["cut"] for cut in choice.cuts)
        outcome = "" if latency["fits"] else ", and does not fit even so: set rank.latency_ms or index.kind"
        tqdm.write(
            f"rank.latency_ms {settings.latency_ms:g}: {cuts}; a request is expected to cost {expected:.1f} ms of "
            f"processor time{outcome}",
            file=sys.stderr,
        )
    return choice, latency


def request_ms(result: RankerResult, labels: LabelSet) -> float:
    """Measures the processor time of a request's candidates, features and reranking on this machine.

    Args:
        result: with a ranker.
        labels: the first TIMED_REQUESTS users are asked for.
    Returns:
        Median milliseconds.
    """
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

"""Training of the ranker (LightGBM LambdaRank), and the guard that refuses one that does not help.

The trees start from a blend of the source scores (``blend.py``), which enters as ``init_score``. The final score is
blend plus trees. The number of trees is chosen over folds of users, and may be 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from reckg.metrics.significance import paired_difference
from reckg.ranking.features.extract import ALL_FEATURES, FEATURES
from reckg.ranking.sources.candidates import CandidateCounts
from reckg.ranking.trees.blend import HEAD, NoOrderError, fit_blend
from reckg.ranking.trees.queries import LARGEST_GRADE, K, Queries
from reckg.ranking.trees.ranker import SHORT, Ranker, write_description
from reckg.ranking.trees.ranker_info import GroupVerdict, GuardVerdict, Order, RankerInfo

GUARD_SAMPLES = 2000  # bootstrap samples of the label users
GUARD_P = 0.4  # the guard needs a better mean, with a two-sided p below this: in 8 of 10 samples
COLD_P = 0.05  # the same for users without a history, whose simple order is popularity: the ranker must clearly beat it
NEGATIVES = 60  # random candidates without hit of a query that trees are trained on
TREES_AT_ONCE, PATIENCE = 20, 80  # trees between two evaluations; most trees beyond the chosen number
SMALLEST_FOLD = 2  # queries with a hit
FEWEST = 30  # label users of a group that is judged by itself


@dataclass(frozen=True)
class TreeSettings:
    """Size of the ranker and speed of its training.

    Args:
        trees: most trees.
        leaves, learning_rate, min_data_in_leaf: of LightGBM.
    """

    trees: int = 200
    leaves: int = 15
    learning_rate: float = 0.05
    min_data_in_leaf: int = 50


@dataclass(frozen=True)
class RankerResult:
    """A ranker, or None if the guard refused it. ``info`` has the reason and the compared figures."""

    ranker: Ranker | None
    info: RankerInfo

    def save(self, folder: Path) -> None:
        """Writes the ranker, or the refusal and its reason."""
        if self.ranker is not None:
            self.ranker.save(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "ranker.txt").unlink(missing_ok=True)
            write_description(folder, served=False, info=self.info)


def train_ranker(
    queries: Queries,
    depths: CandidateCounts,
    settings: TreeSettings = TreeSettings(),
    *,
    seed: int = 0,
    folds: int = 5,
    threads: int = 1,
) -> RankerResult:
    """Trains a ranker, and refuses it unless users outside its training get better lists than from retrieval.

    Users are dealt into folds. Each fold is ranked by a model of the other folds, with as many trees as suit the
    others. NDCG@10 of these lists is compared with retrieval order over all label users. The returned ranker is trained
    on all users, with as many trees as suit the folds together, possibly none (the blend alone). Lists without a
    relevant candidate teach nothing; both orders score 0 on them.

    Args:
        queries: the label users' lists.
        depths: number of candidates by source.
        settings: of the trees.
        folds: >= 2.
        threads: of LightGBM; the result does not depend on it.
    Source: Burges 2010, From RankNet to LambdaRank to LambdaMART (MSR-TR-2010-82).
    """
    n, c = queries.hits.shape
    info: RankerInfo = {"served": False, **_label_counts(queries)}
    useful = int(queries.hits[:, :HEAD].any(axis=1).sum())
    if useful < SMALLEST_FOLD * folds:
        info["why"] = (
            f"only {useful} of {n + queries.without} label users have a relevant item among their first {min(HEAD, c)} "
            f"candidates; {folds} folds need {SMALLEST_FOLD * folds}"
        )
        return RankerResult(None, info)
    parameters = _parameters(settings, seed, threads)
    users = np.unique(queries.user)
    fold = (np.random.default_rng(seed).permutation(len(users)) % folds)[np.searchsorted(users, queries.user)]
    try:
        blended, ranked, best = _cross_fit(queries, fold, parameters, settings.trees, seed)
    except NoOrderError as error:
        info["why"] = str(error)
        return RankerResult(None, info)
    if not best:
        ranked = blended  # the blend would be served, so the guard judges the blend
    lists = {"retrieval": score_unranked(queries), "blend": blended, "ranker": ranked}
    ndcg = {name: np.append(queries.ndcg(score), np.zeros(queries.without)) for name, score in lists.items()}
    info = {**info, **guard_verdict(ndcg, seed), "trees": best}
    cold = np.append(queries.cold, np.zeros(queries.without, dtype=bool))
    if cold.sum() >= SMALLEST_FOLD * folds:
        info["cold_users"] = guard_verdict({name: values[cold] for name, values in ndcg.items()}, seed, COLD_P)
    if not info["served"]:
        return RankerResult(None, info)
    info["groups"] = _judge_groups(queries, lists, seed)
    blend = fit_blend(queries.features, queries.hits, queries.real)
    data = queries.dataset(blend, queries.sample(NEGATIVES, seed))
    booster = lgb.train(parameters, data, best) if best else lgb.Booster(parameters, data)
    gain = dict(zip(ALL_FEATURES, booster.feature_importance("gain").tolist(), strict=False))
    info |= {"blend": blend.weights, "gain": dict(sorted(gain.items(), key=lambda pair: -pair[1]))}
    return RankerResult(Ranker(booster.model_to_string(), blend, depths, info), info)


def _judge_groups(queries: Queries, lists: dict[str, np.ndarray], seed: int) -> dict[str, GroupVerdict]:
    """Judges the ranker for users with a short and with a long history, against the better of two simple orders.

    A group that has fewer than FEWEST label users is ranked, as all users together are. Popularity replaces the order
    of retrieval only where it is clearly better.

    Args:
        lists: (n, c) out-of-fold scores of retrieval, blend and ranker.
    """
    lengths = queries.history_length
    popular = queries.features[:, :, FEATURES.index("popular_score")]
    ndcg = {name: queries.ndcg(score) for name, score in (lists | {"popular": popular}).items()}
    found: dict[str, GroupVerdict] = {}
    for name, inside in (("short", (lengths > 0) & (lengths <= SHORT)), ("long", lengths > SHORT)):
        if inside.sum() < FEWEST:
            continue
        mine = {order: values[inside] for order, values in ndcg.items()}
        better = paired_difference(mine["popular"], mine["retrieval"], GUARD_SAMPLES, seed)
        simple: Order = "popular" if better["mean"] > 0 and better["p"] < COLD_P else "retrieval"
        verdict = guard_verdict(mine | {"retrieval": mine[simple]}, seed)
        found[name] = {**verdict, "order": "ranker" if verdict["served"] else simple}
    return found


def _label_counts(queries: Queries) -> RankerInfo:
    """Counts the label users and labels, for the report."""
    n = len(queries.hits)
    return {
        "label_users": n + queries.without,
        "label_users_without_relevant_candidate": queries.without,
        "labels_among_candidates": int(queries.hits.sum()),
        "candidates": round(float(queries.real.sum(axis=1).mean()), 1) if n else 0,
    }


def _parameters(settings: TreeSettings, seed: int, threads: int) -> dict[str, Any]:
    """Makes LightGBM's parameters."""
    return {
        "objective": "lambdarank",
        "metric": "none",
        "num_leaves": settings.leaves,
        "learning_rate": settings.learning_rate,
        "min_data_in_leaf": settings.min_data_in_leaf,
        "feature_fraction": 0.5,
        "lambdarank_truncation_level": K,
        "label_gain": list(range(LARGEST_GRADE + 1)),
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "verbose": -1,
    }


def _cross_fit(
    queries: Queries, fold: np.ndarray, parameters: dict[str, Any], trees: int, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores every list by models of the other folds.

    The folds' models grow side by side, TREES_AT_ONCE at a time, until ``trees``, or until PATIENCE further trees have
    not changed the choice.

    Args:
        fold: (n,) fold of each list.
        trees: most trees.
    Returns:
        (n, c) scores of the blend and of the ranker, and the number of trees that suits all folds best.
    """
    sampled = queries.sample(NEGATIVES, seed)
    models = [_Fold(queries, fold == number, sampled, parameters) for number in range(fold.max() + 1)]
    counts = [0]
    curves = np.array([[model.grow(0)] for model in models])  # NDCG of a fold's users with each of ``counts``
    while counts[-1] < trees and counts[-1] - counts[_fewest_trees(curves)] < PATIENCE:
        counts.append(min(counts[-1] + TREES_AT_ONCE, trees))
        curves = np.column_stack([curves, [model.grow(counts[-1] - counts[-2]) for model in models]])
    blended, ranked = (np.full(queries.hits.shape, -np.inf) for _ in range(2))
    for number, model in enumerate(models):
        few = counts[_fewest_trees(np.delete(curves, number, axis=0))]  # chosen without the users it is judged on
        blended[fold == number], ranked[fold == number] = model.scores(0), model.scores(few)
    return blended, ranked, counts[_fewest_trees(curves)]


class _Fold:
    """A ranker that grows over the users outside a fold, and the lists of the users inside."""

    def __init__(self, queries: Queries, inside: np.ndarray, sampled: np.ndarray, parameters: dict[str, Any]) -> None:
        """Splits the queries.

        Args:
            inside: (n,) bool: the fold's queries.
            sampled: (n, c) bool: the candidates that trees may learn from.
        """
        blend = fit_blend(queries.features[~inside], queries.hits[~inside], queries.real[~inside])
        self.booster = lgb.Booster(parameters, queries.dataset(blend, sampled & ~inside[:, None]))
        self.held = queries.take(np.flatnonzero(inside))
        self.rows = self.held.features[self.held.real]
        self.blended = self.sums = blend.scores(self.rows)

    def grow(self, trees: int) -> float:
        """Adds trees. Returns the sum of the held users' NDCG."""
        start = self.booster.current_iteration()
        for _ in range(trees):
            self.booster.update()
        self.sums = self.sums + self._trees(start, trees)
        return float(self.held.ndcg(self._lists(self.sums)).sum())

    def scores(self, trees: int) -> np.ndarray:
        """Scores the held lists with the blend and the first trees: (n, c)."""
        return self._lists(self.blended + self._trees(0, trees))

    def _trees(self, start: int, trees: int) -> Any:
        threads = self.booster.params["num_threads"]
        return self.booster.predict(self.rows, start, trees, raw_score=True, num_threads=threads) if trees else 0.0

    def _lists(self, score: np.ndarray) -> np.ndarray:
        lists = np.full(self.held.hits.shape, -np.inf)
        lists[self.held.real] = score
        return lists


def _fewest_trees(curves: np.ndarray) -> int:
    """Finds the fewest trees that are at most a standard error over the folds worse than the best number.

    With few labels the top of the curve is a matter of chance, and fewer trees are the safer choice. Source: Breiman et
    al. 1984, the one-standard-error rule.

    Args:
        curves: (folds, counts): the sum of a fold's NDCG with no trees, and with more and more.
    Returns:
        A place among the counts.
    """
    behind = curves[:, [curves.sum(axis=0).argmax()]] - curves
    error = behind.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.zeros(curves.shape[1])
    return int(np.argmax(behind.mean(axis=0) <= error))


def score_unranked(queries: Queries) -> np.ndarray:
    """Scores lists without a ranker: retrieval score, or popularity for users without history. (n, c)."""
    vectors, popular = (queries.features[:, :, FEATURES.index(name)] for name in ("retrieval_score", "popular_score"))
    return np.where(queries.cold[:, None], popular, vectors)


def guard_verdict(ndcg: dict[str, np.ndarray], seed: int, below: float = GUARD_P) -> GuardVerdict:
    """Judges out-of-fold NDCG@10 per user of retrieval, blend and ranker.

    Args:
        ndcg: (n,) by order; retrieval is popularity for users without a history.
        below: most p of a served ranker.
    """
    difference = paired_difference(ndcg["ranker"], ndcg["retrieval"], GUARD_SAMPLES, seed)
    served = difference["mean"] > 0 and difference["p"] < below
    means = {name: float(values.mean()) for name, values in ndcg.items()}
    verdict = "better than" if served else "not clearly better than"
    why = (
        f"out-of-fold NDCG@{K} {means['ranker']:.4f} is {verdict} retrieval's {means['retrieval']:.4f}: difference "
        f"{difference['mean']:+.4f}, 95% interval {difference['low']:+.4f} to {difference['high']:+.4f}, "
        f"p {difference['p']:.3f} (served below {below})"
    )
    return {"served": served, "why": why, "out_of_fold_ndcg@10": means, "difference": difference}

"""Stage rank: the ranker, trained on what users of the validation part took, and judged by its guard."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jobs.index import index_of
from jobs.questions import asked
from jobs.rank_files import feature_tables
from jobs.run_folder import n_threads, read_embeddings, read_prepared
from reckg.config import Config
from reckg.ranking.ranker import RankerResult, fit_ranker

NO_LABELS = (
    "not trained: the labels of a cold-items split are new items alone, and a ranker would learn that an item without "
    "interactions is what is wanted"
)


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
    result = fit_ranker(
        feature_tables(config, run, prepared, "train"),
        prepared.history("train", config),
        index_of(users, items, config),
        users,
        labels.users,
        labels.relevant,
        candidates=settings.candidates,
        seed=config.run.seed,
        trees=settings.trees,
        leaves=settings.leaves,
        learning_rate=settings.learning_rate,
        min_data_in_leaf=settings.min_data_in_leaf,
        folds=settings.folds,
        threads=n_threads(config),
    )
    result.save(folder)
    return {name: result.info[name] for name in ("served", "why", "label_users", "labels")}

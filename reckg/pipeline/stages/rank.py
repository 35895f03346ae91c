"""Stage rank: the sources of candidates and the ranker, trained on labels and judged by its guard."""

from __future__ import annotations

import shutil
from pathlib import Path

from tqdm import tqdm

from reckg.config.run_config import Config
from reckg.pipeline.ranking.index_choice import index_of
from reckg.pipeline.ranking.label_folds import fold_labels
from reckg.pipeline.ranking.latency import choose_candidates, request_ms
from reckg.pipeline.ranking.table_inputs import feature_tables
from reckg.pipeline.run.folder import n_threads, read_embeddings, read_prepared
from reckg.pipeline.run.held_out import held_out_part, label_weights
from reckg.pipeline.run.state import StageCounts
from reckg.ranking.trees.labels import LabelSet, label_queries
from reckg.ranking.trees.train import RankerResult, TreeSettings, train_ranker

NO_LABELS = (
    "not trained: the labels of a cold-items split are new items alone, and a ranker would learn that an item without "
    "interactions is what is wanted"
)


def rank(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes ranker/: the ranker, or the reason against one. Candidates and features are those of the training state.

    Args:
        config: of the run.
        data: dataset folder; not read.
        run: run folder with prepared/, graph/, embeddings/, folds/ and index/.
    Returns:
        Counts for the log.
    """
    settings = config.rank
    folder = run / "ranker"
    shutil.rmtree(folder, ignore_errors=True)
    prepared = read_prepared(run)
    if not settings.enabled or prepared.cold_items:
        why = NO_LABELS if settings.enabled else "switched off by rank.enabled"
        result = RankerResult(None, {"served": False, "why": why})
        result.save(folder)
        return dict(result.info)
    users, items = read_embeddings(run, "train")
    labels = held_out_part(prepared, "valid").sample(settings.max_users, config.run.seed)
    valid = LabelSet(
        tables=feature_tables(config, run, prepared, "train"),
        history=prepared.history("train", config),
        index=index_of(users, items, config),
        vectors=users,
        users=labels.users,
        relevant=labels.relevant,
        excluded=labels.excluded,
        weight=label_weights(prepared, "valid", labels),
    )
    choice, latency = choose_candidates(config, valid)
    depths, recall = choice.depths, choice.recall
    sets = [valid, *fold_labels(config, run)]
    with tqdm(total=sum(len(each.users) for each in sets), desc="candidates", unit="user", leave=False) as bar:
        queries = label_queries(sets, depths, bar.update)
    result = train_ranker(
        queries,
        depths,
        TreeSettings(
            trees=settings.trees,
            leaves=settings.leaves,
            learning_rate=settings.learning_rate,
            min_data_in_leaf=settings.min_data_in_leaf,
        ),
        seed=config.run.seed,
        folds=settings.folds,
        threads=n_threads(config),
    )
    info = result.info
    info |= {"label_sets": len(sets), "depths": depths, "candidate_recall": recall, "latency": latency}
    if result.ranker is not None:
        info["request_ms"] = request_ms(result, valid)
    result.save(folder)
    counts: StageCounts = {"served": info["served"], "why": info["why"], "label_users": info["label_users"]}
    return counts | {
        "labels_among_candidates": info["labels_among_candidates"],
        "candidate_recall": recall["union"],
        "candidate_recall_of_vectors": recall["vectors alone"],
    }

"""Choices that validation makes: the half-life and the graph's share that are served, and the linear part's share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from reckg.config.run_config import Config
from reckg.metrics.choice import clearly_best
from reckg.metrics.ranking import ranking_metrics
from reckg.model.embeddings import Embeddings
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from reckg.model.linear.spectral import choose_shares, fit_spectral
from reckg.pipeline.run.folder import Prepared
from reckg.pipeline.run.held_out import held_out_part, new_items
from reckg.pipeline.training.model_inputs import GraphShares, load_graph, training_shares
from reckg.retrieval.exact import exact_search

Validate = Callable[[Embeddings], np.ndarray]  # the scores (n,) of validation users
VALIDATION_USERS = 5000  # at most; drawn by seed
HALF_LIFE_TIMES = (0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)  # of the training's half-life that are tried
NO_GRAPH = 1.0  # share of interactions with which nodes that have some hear no attribute and no outside fact
SHARES = (0.9, 0.95, NO_GRAPH)  # shares of interactions that are tried beside the configured one


class LinearFit(TypedDict):
    """The linear part's shares, and their figures on validation.

    Args:
        new_share: share for new items.
        valid: validation score with these shares.
        earned: see earned_by_new_items.
        content_weights: of relations and texts.
    """

    share: float
    new_share: float
    valid: float
    earned: float | None
    content_weights: dict[str, float]


def choose_shares_of_graph(
    config: Config, run: Path, model: JointModel, prepared: Prepared, validate: Validate
) -> GraphShares:
    """Chooses the attention on interactions at inference: as in training, unless another choice is clearly better.

    The half-life is chosen first, then the share of interactions. A share of NO_GRAPH takes the graph's facts from all
    nodes with interactions.

    Args:
        validate: scores (n,) of the validation users.
    """
    usual = training_shares(config, prepared)

    def score(shares: GraphShares) -> np.ndarray:
        graph = load_graph(run, prepared, config, "train", attention=shares)
        tensors = GraphTensors(graph, model.embedding.device)
        model.update_attention(tensors)
        return validate(model.embeddings(tensors))

    tried = HALF_LIFE_TIMES if usual.half_life and config.model.recency_half_life is None else (1.0,)
    half_lives = {times: score(replace(usual, half_life=usual.half_life * times)) for times in tried}
    best = replace(usual, half_life=usual.half_life * clearly_best(half_lives, 1.0))
    if config.model.interaction_share is not None or prepared.cold_items:
        return best
    shares = {share: score(replace(best, interaction_share=share)) for share in (usual.interaction_share, *SHARES)}
    return replace(best, interaction_share=clearly_best(shares, usual.interaction_share))


def fit_linear_part(
    config: Config, run: Path, model: JointModel, tensors: GraphTensors, prepared: Prepared, validate: Validate
) -> LinearFit:
    """Fits the linear part beside the best epoch's vectors and writes model/spectral.safetensors.

    Args:
        tensors: the graph of the state train.
        validate: scores (n,) of the validation users, which choose the share.
    """
    model.update_attention(tensors)
    embeddings = model.embeddings(tensors)
    text = None if model.text is None else model.text.vectors.cpu().numpy()
    fitted = fit_spectral(tensors.graph, config.model.linear_rank, text)
    earned = None if prepared.cold_items else earned_by_new_items(prepared, fitted.known)
    spectral, share, new_share, valid = choose_shares(
        fitted, embeddings, tensors.graph, validate, new_items=prepared.cold_items, earned=earned
    )
    spectral.save(run / "model" / "spectral.safetensors")
    weights = {} if spectral.content is None else spectral.content.weights
    return {"share": share, "new_share": new_share, "valid": valid, "earned": earned, "content_weights": weights}


def earned_by_new_items(prepared: Prepared, known: np.ndarray) -> float | None:
    """Measures the share of the validation part's items that an item without training interactions has, on average.

    Args:
        known: (n_items,) bool: with training interactions.
    Returns:
        None if all items have some.
    """
    wanted = held_out_part(prepared, "valid").relevant[1]
    n_new = int((~known).sum())
    return None if not n_new else float((np.count_nonzero(~known[wanted]) + 0.5) / (len(wanted) + 1) / n_new)


def validation_score(prepared: Prepared, config: Config) -> Validate:
    """Makes the function that scores embeddings by NDCG@10 (n,) of at most VALIDATION_USERS validation users.

    Rankings are full, without the training items. If the split keeps items out of training, the part's new items alone
    are ranked.
    """
    sample = held_out_part(prepared, "valid").sample(VALIDATION_USERS, config.run.seed)
    candidates = new_items(prepared, "valid") if prepared.cold_items else None

    def validate(embeddings: Embeddings) -> np.ndarray:
        users = embeddings.users[sample.users]
        if candidates is None:
            listed = sample.nearest_items(users, embeddings.items, 10).item_idx
        else:
            place = exact_search(users, embeddings.items[candidates], 10).item_idx
            listed = np.append(candidates, -1)[place]  # -1 takes the last: it stays -1
        return ranking_metrics(listed, sample.relevant, (10,))["ndcg@10"]

    return validate

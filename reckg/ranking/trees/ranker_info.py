"""What is known of a ranker, for ranker.json and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from reckg.metrics.significance import Difference
from reckg.ranking.sources.candidates import CandidateCounts

GuardVerdict = TypedDict(
    "GuardVerdict",
    {
        "served": bool,
        "why": str,
        "out_of_fold_ndcg@10": dict[str, float],  # of retrieval, blend and ranker
        "difference": Difference,  # ranker minus retrieval
    },
    total=False,
)


Order = Literal["ranker", "retrieval", "popular"]


class GroupVerdict(GuardVerdict, total=False):
    """The verdict over a group of users, and the order that its lists have."""

    order: Order


class RankerInfo(GuardVerdict, total=False):
    """What is known of a ranker, served or refused.

    Args:
        labels_among_candidates: relevant items among the candidates of the label users.
        candidates: of a label user, on average.
        trees: chosen number.
        cold_users: the verdict over users without a history.
        groups: the verdicts over users with a short and with a long history.
        blend: weights by feature.
        gain: of the trees, by feature.
        label_sets: sets of label users: the validation part and the label folds.
        depths: candidates by source.
        candidate_recall: by source, of the union, and of the vectors alone.
        latency: budget, expected and measured costs, and cuts.
        request_ms: measured processor time of a request.
    """

    label_users: int
    label_users_without_relevant_candidate: int
    labels_among_candidates: int
    candidates: float
    trees: int
    cold_users: GuardVerdict
    groups: dict[str, GroupVerdict]
    blend: dict[str, float]
    gain: dict[str, float]
    label_sets: int
    depths: CandidateCounts
    candidate_recall: dict[str, float]
    latency: Mapping[str, object]
    request_ms: float

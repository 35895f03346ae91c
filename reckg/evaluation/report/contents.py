"""The content of report.json. Every interval is 95% over users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from reckg.evaluation.cold_items import ColdItems
from reckg.evaluation.comparison import Comparisons, SystemSection
from reckg.evaluation.index_curve import IndexSection
from reckg.evaluation.leakage import Check
from reckg.evaluation.protocol import SystemSettings
from reckg.evaluation.ranker_explained import RankerShap
from reckg.evaluation.samples import Sample
from reckg.evaluation.slices import Slice, WorstRow
from reckg.metrics.significance import Difference, Interval
from reckg.ranking.trees.ranker_info import RankerInfo


class Protocol(TypedDict):
    """How the figures were made.

    Args:
        words: sentences; the first is the question.
        target: new, any or repeat.
        target_event: event types that are predicted; None for data without types.
        history, excluded: split parts in a user's history, and those whose items are never listed, joined by "+".
        candidates: items.
        k: cut-offs.
        tuning_settings: settings that every baseline could try; 0: no tuning.
        test: counts of users and held-out items.
    """

    words: list[str]
    target: str
    target_event: str | None
    ranking: str
    split: str
    history: str
    excluded: str
    candidates: int
    k: list[int]
    primary_metric: str
    bootstrap_samples: int
    seed: int
    tuning_settings: int
    test: dict[str, int]


class ProviderRow(TypedDict):
    """A provider's share of items, of held-out items, and of the places of each system's lists."""

    name: str
    catalogue: float
    held_out: float
    systems: dict[str, Interval]


class BeyondSection(TypedDict):
    """How the figures beside accuracy were made, and the exposure of providers, if a column is configured.

    Args:
        k: cut-off.
        likeness: how the likeness of items was measured.
        column: whose values make the mix of a list.
    """

    k: int
    likeness: str
    column: str | None
    provider_column: NotRequired[str]
    exposure: NotRequired[list[ProviderRow]]


Ranking = Literal["test", "all"]  # among the candidates, and for new items in the ranking of all
DiversityFigure = Literal["ndcg", "price", "diversity", "miscalibration", "exposure"]


class DiversityGain(TypedDict):
    """Figures that a strategy is for.

    Args:
        diversity: None: no list has two items.
        miscalibration: None: the items have no column for it.
        exposure: Gini index of the providers' places; None without providers.
    """

    diversity: Interval | None
    miscalibration: Interval | None
    exposure: Interval | None


class DiversityRow(DiversityGain):
    """Lists of a strategy at a strength.

    Args:
        price: difference in NDCG to the ranking as it is, on the same users.
        places_over_limit: places of a provider limit that had to give way; None for other strategies.
        served: whether these are the settings of the run.
    """

    strategy: str
    settings: SystemSettings
    ndcg: Interval
    price: Difference
    places_over_limit: int | None
    served: bool


class DiversitySection(TypedDict):
    """Effect and price of reranking for diversity. The first row is the ranking as it is."""

    k: int
    words: list[str]
    rows: list[DiversityRow]


class Timing(TypedDict):
    """Seconds of a stage, and the peak memory of the process up to its end."""

    seconds: float
    peak_memory_mb: float


class Report(TypedDict):
    """A report as it is built.

    Args:
        systems, comparisons: by system; differences are reckg minus the system.
        worst: groups where reckg does worst.
        cold_items: the ranking among new items, if whole items are kept from training.
        training: a row for each epoch.
        data: source, split, hash and counts.
        configuration: the run's, by section.
    """

    systems: dict[str, SystemSection]
    comparisons: Comparisons
    protocol: Protocol
    name: NotRequired[str]
    created: NotRequired[str]
    version: NotRequired[str]
    cold_items: NotRequired[ColdItems]
    beyond: NotRequired[BeyondSection]
    slices: NotRequired[dict[str, Slice]]
    worst: NotRequired[list[WorstRow]]
    leakage_checks: NotRequired[list[Check]]
    samples: NotRequired[list[Sample]]
    ranker: NotRequired[RankerInfo]
    shap: NotRequired[RankerShap]
    index: NotRequired[IndexSection]
    diversity: NotRequired[DiversitySection]
    training: NotRequired[Sequence[Mapping[str, Any]]]
    data: NotRequired[dict[str, Any]]
    configuration: NotRequired[dict[str, Any]]
    timing: NotRequired[dict[str, Timing]]


class WrittenReport(Report):
    """A report as it is written: with its format, and its findings in front.

    Args:
        verdict: a sentence.
        mood: 1: reckg is clearly better than the best baseline; -1: clearly worse, or a leakage check failed; else 0.
    """

    format: int
    verdict: str
    mood: int
    best_baseline: str

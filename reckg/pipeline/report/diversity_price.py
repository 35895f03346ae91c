"""The price of diversity after ranking, in accuracy, and its gain: every strategy at several strengths."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
from scipy import sparse

from reckg.arrays.ragged_rows import take_rows
from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.evaluation.beyond_accuracy import gini_interval, intra_list_diversity, miscalibration
from reckg.evaluation.protocol import HeldOut, SystemSettings
from reckg.evaluation.report.contents import DiversityGain, DiversityRow, DiversitySection
from reckg.metrics.ranking import ranking_metrics
from reckg.metrics.significance import Interval, bootstrap_interval, paired_difference
from reckg.pipeline.report.beyond import has_values
from reckg.ranking.diversity import (
    Diversity,
    ItemTraits,
    diversify,
    history_mix,
    item_traits,
    limit_share,
    places_over_limit,
)
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import NO_DIVERSITY, Wanted
from reckg.retrieval.scored_items import ScoredItems

K = 10
MAX_USERS = 10_000
WEIGHTS = (0.1, 0.3, 0.5, 0.7)
LIMITS = (1, 2, 3)


@dataclass(frozen=True)
class _Lists:
    """Lists (n, K) of a strategy with its settings, and the places beyond its limit."""

    strategy: str
    settings: SystemSettings
    item_idx: np.ndarray
    over: int | None = None
    served: bool = False


def diversity_price(bundle: Bundle, held: HeldOut, config: Config) -> DiversitySection:
    """Builds the report's section on diversity: rows of strategies and strengths, and how to read them.

    All start from the same ranked candidates. Strategies that need a column take the configured one; else calibration
    takes the first list column, or categorical one, and the provider is the first categorical column. Where the items
    have none, these rows are missing.

    Args:
        bundle: as of test time.
    """
    sample = held.sample(MAX_USERS, config.run.seed)
    columns = _columns(bundle, config)
    traits = item_traits(bundle.items, bundle.item_vectors, columns)
    lists = _all_lists(bundle, sample, config, columns, traits)
    plain = ranking_metrics(lists[0].item_idx, sample.relevant, (K,))[f"ndcg@{K}"]
    rows: list[DiversityRow] = []
    samples, seed = config.evaluate.bootstrap_samples, config.run.seed
    for entry in lists:
        ndcg = ranking_metrics(entry.item_idx, sample.relevant, (K,))[f"ndcg@{K}"]
        rows.append(
            {
                "strategy": entry.strategy,
                "settings": entry.settings,
                "ndcg": bootstrap_interval(ndcg, samples, seed),
                "price": paired_difference(ndcg, plain, samples, seed),
                **_bought(entry.item_idx, bundle, sample.users, traits, config),
                "places_over_limit": entry.over,
                "served": entry.served,
            }
        )
    return {"k": K, "words": _words(len(sample.users), len(held.users), bundle, columns), "rows": rows}


def _columns(bundle: Bundle, config: Config) -> Diversity:
    """The configured diversity, with columns where it names none and the items have some."""
    kinds = {
        kind: [name for name in names if has_values(bundle.items[name])]
        for kind, names in bundle.manifest.get("item_columns", {}).items()
        if kind in ("list", "categorical")
    }
    text = [name for name in kinds.get("categorical", []) if bundle.items.schema[name] == pl.String]
    mixed = [name for name in kinds.get("list", []) if bundle.items.schema[name] == pl.List(pl.String)] + text
    given = config.diversity
    return Diversity(
        given.strategy,
        given.weight,
        given.column or next(iter(mixed), ""),
        given.provider_column or next(iter(text), ""),
        given.max_per_provider,
    )


def _settings(columns: Diversity, traits: ItemTraits) -> list[Diversity]:
    """Every strategy that the items allow, at every strength; the configured one last, where it is none of these."""
    settings = [NO_DIVERSITY, *(Diversity("mmr", weight) for weight in WEIGHTS)]
    if traits.values is not None:
        settings += [Diversity("calibrated", weight, columns.column) for weight in WEIGHTS]
    if traits.provider is not None:
        settings += [Diversity("provider", 0.0, "", columns.provider_column, limit) for limit in LIMITS]
    served = [_shown(each) for each in settings]
    return settings if _shown(columns) in served else [*settings, columns]


def _shown(diversity: Diversity) -> SystemSettings:
    """The settings that a strategy reads, and its name."""
    read = {
        "none": (),
        "mmr": ("weight",),
        "calibrated": ("weight", "column"),
        "provider": ("max_per_provider", "provider_column"),
    }[diversity.strategy]
    return {name: value for name, value in asdict(diversity).items() if name == "strategy" or name in read}


def _all_lists(bundle: Bundle, held: HeldOut, config: Config, columns: Diversity, traits: ItemTraits) -> list[_Lists]:
    """The lists of every setting, and of a limit on the share that one provider has of all lists."""
    strategies = _settings(columns, traits)
    n, width = len(held.users), min(bundle.candidates, len(bundle.item_ids))
    found = ScoredItems(np.empty((n, width), dtype=np.int64), np.empty((n, width), dtype=np.float32))
    for start in range(0, n, config.evaluate.block_users):
        block = np.arange(start, min(start + config.evaluate.block_users, n))
        exclude = take_rows(held.excluded, block)
        ranked = recommend_batch(
            bundle, held.users[block], Wanted(width, exclude_seen=False, left_out=exclude, diversity=NO_DIVERSITY)
        )
        found.item_idx[block], found.score[block] = ranked.item_idx, ranked.score
    out = []
    for strategy in strategies:
        lists = diversify(found, K, width, strategy, traits, bundle.history, held.users).item_idx
        over = None
        if strategy.strategy == "provider":
            assert traits.provider is not None
            over = int(places_over_limit(lists, traits.provider, strategy.max_per_provider).sum())
        settings = {name: value for name, value in _shown(strategy).items() if name != "strategy"}
        out.append(_Lists(strategy.strategy, settings, lists, over, _shown(strategy) == _shown(columns)))
    if traits.provider is not None:
        exposure = _exposure(out[0].item_idx, traits.provider)
        share = round(float(exposure.max(initial=0)) / (2 * n * K), 4)
        limited, places = limit_share(found, K, traits.provider, share)
        settings = {"max_share": share, "provider_column": columns.provider_column}
        out.append(_Lists("provider share", settings, limited.item_idx, places))
    return out


def _bought(lists: np.ndarray, bundle: Bundle, users: np.ndarray, traits: ItemTraits, config: Config) -> DiversityGain:
    """Measures diversity, miscalibration and exposure of lists, with intervals."""
    real = lists >= 0
    indptr = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
    shape = (len(lists), len(bundle.item_ids))
    listed = sparse.csr_matrix((np.ones(int(indptr[-1])), lists[real], indptr), shape=shape)
    length = np.linalg.norm(bundle.item_vectors, axis=1, keepdims=True)
    unit = bundle.item_vectors.astype(np.float64) / np.where(length > 0, length, 1)
    found: DiversityGain = {
        "diversity": _interval(intra_list_diversity(listed, unit), config),
        "miscalibration": None,
        "exposure": None,
    }
    if traits.values is not None:
        mix = history_mix(bundle.history, users, traits.values)
        found["miscalibration"] = _interval(miscalibration(mix, (listed @ traits.values).tocsr()), config)
    if traits.provider is not None:
        owners = np.where(real, traits.provider[lists], -1)
        found["exposure"] = gini_interval(owners, int(traits.provider.max(initial=-1)) + 1)
    return found


def _exposure(lists: np.ndarray, provider: np.ndarray) -> np.ndarray:
    """The places that every provider of the catalogue has."""
    owner = provider[lists[lists >= 0]]
    return np.bincount(owner[owner >= 0], minlength=int(provider.max(initial=-1)) + 1)


def _interval(values: np.ndarray, config: Config) -> Interval | None:
    """Bootstraps the interval of the mean over the users with a value."""
    known = values[~np.isnan(values)]
    return bootstrap_interval(known, config.evaluate.bootstrap_samples, config.run.seed) if len(known) else None


def _words(users: int, of: int, bundle: Bundle, columns: Diversity) -> list[str]:
    sample = f"{users:,} users" if users == of else f"{users:,} of the {of:,} users, drawn at random"
    served = ", ".join(f"{name} {value}" for name, value in _shown(columns).items() if name != "strategy")
    words = [
        f"The first {K} places, chosen anew among each user's {bundle.candidates} ranked candidates; {sample}, as of "
        f"test time. Served: {columns.strategy}{f' ({served})' if served else ''}.",
        f"Price: NDCG@{K} minus that of the ranking as it is, on the same users; below 0 it costs accuracy. Its p is "
        "not corrected for the number of rows.",
        "Diversity: mean of 1 - cosine of the vectors over a list's pairs.",
    ]
    if columns.column:
        words.append(
            f"Miscalibration: divergence of the list's mix of {columns.column} from that of the user's history, in "
            "nats; 0 is the user's own mix."
        )
    if columns.provider_column:
        words.append(
            f"Exposure: how unequally the places are shared among all values of {columns.provider_column} (Gini); 0 is "
            "equal shares. 'provider share' bounds one provider's share of all lists together to half of what the "
            "ranking gives the largest."
        )
    return words

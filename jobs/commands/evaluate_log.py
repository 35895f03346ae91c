"""Evaluation from logs: the reward that the run's system would earn, and the winner among served variants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

import reckg
from reckg.bundle.bundle import Bundle
from reckg.config.run_config import Config
from reckg.data.history import latest_time
from reckg.errors import ConfigError
from reckg.evaluation.logs.counterfactual import effective_sample_size, estimate, importance_weights, top_weight_share
from reckg.evaluation.logs.interleaving import preference, rewards_apart
from reckg.evaluation.logs.reward_model import cross_fitted
from reckg.evaluation.logs.served_log import ServedLog, read_served_log
from reckg.evaluation.report.log import (
    ALWAYS,
    ASSUMPTIONS,
    Counterfactual,
    Interleaving,
    LogReport,
    Match,
    Variants,
    comparisons,
    estimates_table,
    log_markdown,
    log_verdict,
    log_warnings,
)
from reckg.files.atomic_folder import write_atomically
from reckg.pipeline.run.folder import read_prepared, write_json
from reckg.recommend.golden import open_bundle
from reckg.recommend.known_users import recommend_batch
from reckg.recommend.wanted import Wanted

FORMAT = 1
FOLDS = 5  # of the reward model
PAIRS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Shown:
    """The rows that the estimates rest on, n in all; requests in a row, by position.

    user_idx, item_idx (-1: unknown to the bundle), position (from 1), request, cluster (from 0, without gaps) (n,)
    int64; reward, propensity (n,) float64.
    """

    user_idx: np.ndarray
    item_idx: np.ndarray
    position: np.ndarray
    request: np.ndarray
    cluster: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray


def evaluate_log(
    config: Config,
    run: Path,
    log: Path,
    *,
    events: Path | None = None,
    window_s: int = 86_400,
    match: Match = "place",
    clip: float | None = None,
) -> LogReport:
    """Estimates the reward of the run's bundle from a log of another system, and compares the log's variants.

    Args:
        log, events, window_s: as read_served_log.
        match: the event of a propensity: the item at its ``place``, or anywhere in the ``list``.
        clip: weights are at most this; None: as they are.
    Returns:
        The content of report/log.json of the run; report/log.md has it in words and tables.
    Raises:
        DataError: the log breaks its contract. ArtifactError: the run has no bundle. ConfigError: clip is not above 0.
    """
    if clip is not None and not clip > 0:
        raise ConfigError(f"--log-clip must be above 0, got {clip:g}.")
    served = read_served_log(log, events, window_s)
    bundle = open_bundle(run / "bundle")
    info = read_prepared(run).info
    newest = latest_time(bundle.history.timestamp) if info["time"] == "utc" else None
    rows = with_clusters(served.rows)
    chosen, counts = usable(rows, bundle, newest)
    interleaving, variants = compare_variants(rows, config, served.notes)
    report: LogReport = {
        "format": FORMAT,
        "name": info.get("name", ""),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": f"reckg {reckg.__version__}",
        "bundle_version": bundle.version,
        "served_by": requests_by_bundle(served),
        "match": match,
        "assumptions": [ASSUMPTIONS[match], *ALWAYS],
        "counts": served.counts | counts,
        "notes": served.notes,
        "time_is_known": newest is not None,
        "counterfactual": None,
        "interleaving": interleaving,
        "variants": variants,
        "warnings": [],
        "verdict": "",
    }
    if len(chosen):
        report["counterfactual"] = counterfactual(collect_shown(chosen, bundle), bundle, match, clip, config)
    if report["counterfactual"] is None:
        report["no_estimate"] = "no request is left" if not len(chosen) else "all requests are of one user"
    report["warnings"] = log_warnings(report)
    report["verdict"] = log_verdict(report)
    (run / "report").mkdir(exist_ok=True)
    write_json(run / "report" / "log.json", report)
    write_atomically(run / "report" / "log.md", log_markdown(report))
    return report


def with_clusters(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with ``cluster``: the user where any user has several requests, else the request."""
    known = rows.filter(pl.col("user_id").is_not_null())
    several = known["request_id"].n_unique() > known["user_id"].n_unique()
    name = pl.coalesce("u" + pl.col("user_id"), "r" + pl.col("request_id")) if several else pl.col("request_id")
    return rows.with_columns(cluster=name, by_user=pl.lit(several)).sort("request_id", "position")


def usable(rows: pl.DataFrame, bundle: Bundle, newest: int | None) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows of requests that can be judged, and counts of the others, each by its first reason."""
    users = pl.DataFrame({"user_id": bundle.user_ids.ids}).with_row_index("user_idx")
    items = pl.DataFrame({"item_id": bundle.item_ids.ids}).with_row_index("item_idx")
    rows = rows.join(users, on="user_id", how="left", maintain_order="left")
    rows = rows.join(items, on="item_id", how="left", maintain_order="left")
    none, zero = pl.col("propensity").is_null(), (pl.col("propensity") == 0).fill_null(False)
    early = pl.lit(False) if newest is None else pl.col("timestamp") <= newest
    reasons = {
        "requests_unknown_user": pl.col("user_idx").is_null(),
        "requests_too_early": early,
        "requests_without_propensity": none | zero,
    }
    counts = {"rows_without_propensity": 0, "rows_zero_propensity": 0}
    for name, holds in reasons.items():
        bad = rows.filter(holds)
        if name == "requests_without_propensity":
            counts["rows_without_propensity"] = len(rows.filter(none))
            counts["rows_zero_propensity"] = len(rows.filter(zero))
        counts[name] = bad["request_id"].n_unique()
        rows = rows.join(bad.select("request_id").unique(), on="request_id", how="anti", maintain_order="left")
    counts["requests_used"], counts["rows_used"] = rows["request_id"].n_unique(), len(rows)
    counts["rows_unknown_item"] = rows["item_idx"].null_count()
    return rows, counts


def collect_shown(rows: pl.DataFrame, bundle: Bundle) -> Shown:
    return Shown(
        user_idx=rows["user_idx"].cast(pl.Int64).to_numpy(),
        item_idx=rows["item_idx"].cast(pl.Int64).fill_null(-1).to_numpy(),
        position=rows["position"].to_numpy(),
        request=codes(rows["request_id"]),
        cluster=codes(rows["cluster"]),
        reward=rows["reward"].to_numpy(),
        propensity=rows["propensity"].to_numpy(),
    )


def codes(names: pl.Series) -> np.ndarray:
    """(n,) int64 from 0 without gaps, equal where the names are."""
    return (names.rank("dense").cast(pl.Int64) - 1).to_numpy()


def counterfactual(
    shown: Shown, bundle: Bundle, match: Match, clip: float | None, config: Config
) -> Counterfactual | None:
    """Computes the estimates and their basis; None for a single cluster."""
    clusters = int(shown.cluster.max()) + 1
    if clusters < 2:
        return None
    wanted, target = system_items(shown, bundle, match, config.evaluate.block_users)
    whole = importance_weights(target, shown.propensity)
    weight = importance_weights(target, shown.propensity, clip)
    by_place = match == "place"
    of_shown, of_wanted = cross_fitted(
        pair_features(bundle, shown.user_idx, shown.item_idx, shown.position if by_place else None),
        shown.reward,
        pair_features(bundle, shown.user_idx, wanted, shown.position if by_place else None),
        shown.cluster,
        FOLDS,
        config.run.seed,
    )
    of_wanted[wanted < 0] = 0.0
    samples, seed = config.evaluate.bootstrap_samples, config.run.seed
    requests = int(shown.request.max()) + 1
    models = of_shown, of_wanted, shown.cluster, samples, seed
    estimates = estimate(shown.reward, weight, *models)
    if clip is not None:  # the check of the propensities uses unclipped weights
        estimates["mean_weight"] = estimate(shown.reward, whole, *models)["mean_weight"]
    return {
        "estimates": estimates,
        "rows": len(weight),
        "matched_rows": int((target > 0).sum()),
        "items_per_request": len(weight) / requests,
        "cluster": "request" if clusters == requests else "user",
        "clusters": clusters,
        "effective_sample_size": effective_sample_size(weight),
        "top_weight_share": top_weight_share(weight),
        "largest_weight": float(weight.max()),
        "clip": clip,
        "clipped_rows": int((whole > weight).sum()),
        "bootstrap_samples": samples,
        "seed": seed,
    }


def system_items(shown: Shown, bundle: Bundle, match: Match, block_users: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of n rows: the item that the system has in its stead (-1: none), and whether it shows the row's item.

    With ``list``, the system's list is as long as the request's, and the l-th row stands for its l-th item.
    """
    starts = np.flatnonzero(np.diff(shown.request, prepend=-1))
    place = np.arange(len(shown.request)) - starts[shown.request]
    length = np.diff(np.append(starts, len(shown.request)))[shown.request]
    at = shown.position - 1 if match == "place" else place
    users, row = np.unique(shown.user_idx, return_inverse=True)
    k = min(int(at.max()) + 1, len(bundle.item_ids))
    lists = np.full((len(users), k), -1, dtype=np.int32)
    for start in range(0, len(users), block_users):
        block = slice(start, start + block_users)
        lists[block] = recommend_batch(bundle, users[block], Wanted(k)).item_idx
    wanted = np.where(at < k, lists[row, np.minimum(at, k - 1)], -1).astype(np.int64)
    if match == "place":
        return wanted, ((wanted == shown.item_idx) & (wanted >= 0)).astype(np.float64)
    inside = np.zeros(len(at), dtype=bool)
    step = max(1, PAIRS_AT_ONCE // k)
    for start in range(0, len(at), step):
        part = slice(start, start + step)
        same = (lists[row[part]] == shown.item_idx[part, None]) & (np.arange(k) < length[part, None])
        inside[part] = same.any(axis=1) & (shown.item_idx[part] >= 0)
    return wanted, inside.astype(np.float64)


def pair_features(
    bundle: Bundle, user_idx: np.ndarray, item_idx: np.ndarray, position: np.ndarray | None
) -> np.ndarray:
    """Builds the reward model's (n, f) features of a user and an item, and of the place; 0 for no item."""
    score = np.empty(len(user_idx))
    step = max(1, PAIRS_AT_ONCE // bundle.item_vectors.shape[1])
    for start in range(0, len(score), step):
        part = slice(start, start + step)
        vectors = bundle.user_vectors[user_idx[part]], bundle.item_vectors[item_idx[part]]
        score[part] = np.einsum("nd,nd->n", *vectors)
    columns = [score, bundle.features.popular_score[item_idx]]
    columns = [np.where(item_idx >= 0, column, 0.0) for column in columns] + [(item_idx >= 0).astype(np.float64)]
    if position is not None:
        columns += [1.0 / np.log2(position + 1.0), (position == 1).astype(np.float64)]
    return np.column_stack(columns)


def requests_by_bundle(served: ServedLog) -> dict[str, int]:
    """How many requests each version of a bundle served, and how many do not say."""
    counted = served.rows.group_by(pl.col("bundle_version").fill_null("not logged"), maintain_order=True).agg(
        pl.col("request_id").n_unique()
    )
    return dict(zip(*counted.to_dict(as_series=False).values(), strict=True))


def compare_variants(
    rows: pl.DataFrame, config: Config, notes: list[str]
) -> tuple[Interleaving | None, Variants | None]:
    """Compares two variants: by requests that show items of both, and by requests that show items of one."""
    named = rows.filter(pl.col("variant").is_not_null())
    counted = named.group_by("request_id").agg(teams=pl.col("variant").n_unique())
    named = named.join(counted, on="request_id", how="left", maintain_order="left")
    both, one = named.filter(pl.col("teams") > 1), named.filter(pl.col("teams") == 1)
    mixed, single = two_variants(both, "interleaving", notes), two_variants(one, "variants", notes)
    return compare_interleaved(both, mixed, config) if mixed else None, compare_apart(
        one, single, config
    ) if single else None


def two_variants(rows: pl.DataFrame, key: str, notes: list[str]) -> list[str]:
    """Names the two variants of rows; none, with a note, if there are more."""
    names = sorted(rows["variant"].unique().to_list())
    if len(names) > 2:
        notes.append(f"{key}: the log has {len(names)} variants ({', '.join(names[:5])}); two are compared alone.")
    return names if len(names) == 2 else []


def _cluster(rows: pl.DataFrame) -> str:
    return "user" if rows["by_user"][0] else "request"


def compare_interleaved(rows: pl.DataFrame, names: list[str], config: Config) -> Interleaving:
    """Finds the preferred variant of requests that show items of both."""
    team = (rows["variant"] == names[1]).cast(pl.Int64).to_numpy()
    request, cluster = codes(rows["request_id"]), codes(rows["cluster"])
    samples = config.evaluate.bootstrap_samples
    found = preference(request, team, rows["reward"].to_numpy(), cluster, samples, config.run.seed)
    return {"names": names, "cluster": _cluster(rows), **found}


def compare_apart(rows: pl.DataFrame, names: list[str], config: Config) -> Variants:
    """Compares the rewards of two variants that served different requests."""
    requests = rows.group_by("request_id", maintain_order=True).agg(
        pl.col("reward").sum(), pl.col("variant").first(), pl.col("cluster").first()
    )
    mine = (requests["variant"] == names[1]).to_numpy()
    reward, cluster = requests["reward"].to_numpy(), codes(requests["cluster"])
    samples = config.evaluate.bootstrap_samples
    counts = [int((~mine).sum()), int(mine.sum())]
    found = rewards_apart(reward, mine, cluster, samples, config.run.seed)
    return {"names": names, "cluster": _cluster(rows), "requests": counts, **found}


def log_summary(run: Path, report: LogReport) -> str:
    """Summarizes the report for the terminal."""
    found = report["counterfactual"]
    lines = [] if found is None else [*estimates_table(found), ""]
    if found is not None:
        lines.append(
            f"effective sample size {found['effective_sample_size']:,.0f} of {found['rows']:,} shown items, "
            f"{found['items_per_request']:.1f} a request"
        )
    lines += [f"{title.lower()}: {line}" for title, found in comparisons(report).items() for line in found]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join([*lines, f"verdict: {report['verdict']}", f"report: {run / 'report' / 'log.md'}"])

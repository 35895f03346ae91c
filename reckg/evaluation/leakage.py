"""Checks that nothing from the test part was known before the test. The report shows each with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import polars as pl

from reckg.evaluation.protocol import HeldOut, SystemResult, valid_precedes_test


class Check(TypedDict):
    """A check of the report.

    Args:
        passed: None: a remark, without a verdict.
    """

    name: str
    passed: bool | None
    detail: str


def leakage_checks(
    interactions: pl.DataFrame,
    triples: pl.DataFrame | None,
    held: HeldOut,
    parts: Sequence[str],
    results: Mapping[str, SystemResult],
    n_users: int,
    n_items: int,
) -> list[Check]:
    """Makes all checks that the prepared data and the lists allow.

    Args:
        interactions: columns user_idx, item_idx, split and, if known, timestamp.
        triples: columns head, tail of the knowledge graph (users 0..n_users-1, then the items), or None.
        held: the test part.
        parts: split parts in a user's history at test time.
        results: system -> its result.
    """
    row = np.repeat(held.users, np.diff(held.relevant[0]))
    targets = row * n_items + held.relevant[1]
    checks = [_edges(interactions, targets, n_items, held)]
    if triples is not None:
        checks.append(_triples(triples, targets, n_users, n_items))
    checks += _times(interactions, parts)
    if not held.excluded_parts:
        return checks
    shown = {name: result.excluded_items for name, result in results.items()}
    wrong = [f"{name}: {count}" for name, count in shown.items() if count]
    checks.append(
        {
            "name": "No list holds an item of the user's "
            + " or ".join({"train": "training", "valid": "validation"}[part] for part in held.excluded_parts)
            + " part",
            "passed": not wrong,
            "detail": "; ".join(wrong) or f"{len(shown)} systems, {len(held.users):,} lists each",
        }
    )
    return checks


def checks_from_preparation(checks: Any) -> list[Check]:
    """Converts the checks that the preparation stage recorded to the report's form.

    Args:
        checks: name -> {"passed": bool or None, "bad": int, "of": int, "says": str}; or None.
    """
    return [
        {
            "name": f"Preparation: {name.replace('_', ' ')}",
            "passed": check["passed"],
            "detail": f"{check['bad']:,} of {check['of']:,} {check['says']}",
        }
        for name, check in (checks or {}).items()
    ]


def _edges(interactions: pl.DataFrame, targets: np.ndarray, n_items: int, held: HeldOut) -> Check:
    train = interactions.filter(pl.col("split") == "train")
    if "taken" in train.columns:
        train = train.filter("taken")
    edges = train["user_idx"].to_numpy() * n_items + train["item_idx"].to_numpy()
    shared = int(np.isin(targets, edges).sum())
    if held.target != "new":
        return {
            "name": "Items that come again",
            "passed": None,
            "detail": f"{shared:,} of {len(targets):,} targets are items that the user took in training: the question "
            f"is {held.target} items",
        }
    return {
        "name": "No test target is among the training graph's interactions",
        "passed": shared == 0,
        "detail": f"{shared:,} of {len(targets):,} targets among {len(edges):,} interactions",
    }


def _triples(triples: pl.DataFrame, targets: np.ndarray, n_users: int, n_items: int) -> Check:
    head, tail = triples["head"].to_numpy(), triples["tail"].to_numpy()
    user = np.concatenate([head, tail])
    item = np.concatenate([tail, head]) - n_users
    joins = (user < n_users) & (item >= 0) & (item < n_items)
    shared = int(np.isin(targets, user[joins] * n_items + item[joins]).sum())
    return {
        "name": "No test target is among the knowledge graph's triples",
        "passed": shared == 0,
        "detail": f"{shared:,} of {len(targets):,} targets among {len(triples):,} triples, "
        f"{int(joins.sum()):,} of which join a user and an item",
    }


def _times(interactions: pl.DataFrame, parts: Sequence[str]) -> list[Check]:
    """Checks that a user's history at test time is older than the test items."""
    if "timestamp" not in interactions.columns:
        remark = "the interactions have no times: the order of training and test is unknown"
        return [{"name": "Histories are older than the test", "passed": None, "detail": remark}]
    test = interactions.filter(pl.col("split") == "test").group_by("user_idx").agg(first=pl.col("timestamp").min())
    known = interactions.filter(pl.col("split").is_in(list(parts))).join(test, on="user_idx")
    late = int((known["timestamp"] > known["first"]).sum())
    if not late:
        detail = f"none of {len(known):,} interactions in the tested users' histories is later than the user's test"
        checks: list[Check] = [{"name": "Histories are older than the test", "passed": True, "detail": detail}]
    else:
        detail = (
            f"{late:,} of {len(known):,} interactions in the tested users' histories are later than the user's first "
            "test interaction: the split is not by time, and the figures do not tell how well the future is foretold"
        )
        checks = [{"name": "Histories are older than the test", "passed": None, "detail": detail}]
    if "valid" in parts:
        passed = valid_precedes_test(interactions)
        detail = "validation interactions are in the histories at test time; each is older than the user's test"
        late_detail = "validation interactions are in the histories at test time, and some are later than the test"
        checks.append(
            {
                "name": "Validation comes before test",
                "passed": passed,
                "detail": detail if passed else late_detail,
            }
        )
    return checks

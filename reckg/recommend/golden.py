"""Golden requests: a few requests with their answers, kept in a bundle and replayed when it is loaded.

They find differences that hashes cannot find: another library version, processor or code that answers otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np

from reckg.bundle.bundle import Bundle
from reckg.bundle.check import check_bundle
from reckg.bundle.manifest import GOLDEN, Manifest
from reckg.bundle.read import load_bundle
from reckg.bundle.write import save_bundle
from reckg.errors import ArtifactError, ReckgError
from reckg.recommend.answers import Recommendations
from reckg.recommend.recommender import Recommender

K = 10
USERS, ITEMS = 8, 3
TOLERANCE = 1e-5  # of the answer's largest score, and at least of 1


class GoldenRequest(TypedDict, total=False):
    """A request as it stands in golden.jsonl: for similar items if it has an item_id, else for recommendations."""

    user_id: str
    recent_items: list[str]
    item_id: str
    k: int
    exclude_seen: bool


class GoldenAnswer(TypedDict):
    """An answer as it stands in golden.jsonl; scores in the order of item_ids."""

    item_ids: list[str]
    scores: list[float]
    fallback: str | None
    degraded: list[str]


def save_with_golden(
    bundle: Bundle, path: Path, *, extra_folders: Mapping[str, Path] | None = None, overwrite: bool = False
) -> Manifest:
    """Writes a bundle with golden requests, and replays them on the bundle as read back.

    Args, Returns, Raises: as ``save_bundle``; also ArtifactError if the bundle as read back answers otherwise.
    """
    check_bundle(bundle)
    golden = golden_lines(bundle)
    return save_bundle(
        bundle,
        path,
        golden,
        check=lambda read: replay_golden(read, golden),
        extra_folders=extra_folders,
        overwrite=overwrite,
    )


def open_bundle(path: Path, verify: bool = True) -> Bundle:
    """Reads a bundle and, with ``verify``, replays its golden requests.

    Args:
        path: the bundle's folder.
        verify: as of ``load_bundle``.
    Raises:
        ArtifactError: as ``load_bundle`` and ``replay_golden_file``.
    """
    bundle = load_bundle(path, verify)
    if verify:
        replay_golden_file(bundle, Path(path) / GOLDEN)
    return bundle


def golden_lines(bundle: Bundle) -> str:
    """Answers requests spread over the bundle's users and items.

    Returns:
        One JSON object with request and answer per line.
    """
    recommender = Recommender(bundle)
    lines = []
    for request in _requests(bundle):
        answer = _answer(recommender, request)
        found: GoldenAnswer = {
            "item_ids": [item.item_id for item in answer.items],
            "scores": [item.score for item in answer.items],
            "fallback": answer.fallback,
            "degraded": list(answer.degraded),
        }
        lines.append(json.dumps({"request": request, "answer": found}, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)


def replay_golden(bundle: Bundle, lines: str) -> int:
    """Replays the golden requests on a bundle and compares the answers.

    Scores must agree within TOLERANCE. Items must agree too, but items with scores within TOLERANCE may change places.

    Args:
        lines: as ``golden_lines`` returns them.
    Returns:
        The number of requests.
    Raises:
        ArtifactError: a line is no request, there is no line, or an answer differs. The message names the request and
            the difference.
    """
    recommender = Recommender(bundle)
    n = 0
    for n, line in enumerate(lines.splitlines(), start=1):
        try:
            golden = json.loads(line)
            request, expected = golden["request"], golden["answer"]
            answer = _answer(recommender, request)
            difference = _difference(answer, expected)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"golden.jsonl: line {n} is no golden request: {error!r}.") from error
        except ReckgError as error:
            raise ArtifactError(f"golden.jsonl: request {n} of {request} failed: {error}") from error
        if difference:
            raise ArtifactError(
                f"golden.jsonl: the answer to request {n} {request} differs: {difference}. The bundle's files are "
                "whole, so this installation computes otherwise than the one that wrote it: see library_versions in "
                "manifest.json."
            )
    if n == 0:
        raise ArtifactError("golden.jsonl holds no request.")
    return n


def replay_golden_file(bundle: Bundle, path: Path) -> int:
    """Replays the golden requests of a file.

    Args:
        path: golden.jsonl.
    Returns:
        The number of requests.
    Raises:
        ArtifactError: the file cannot be read, or as ``replay_golden``.
    """
    try:
        lines = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    return replay_golden(bundle, lines)


def _requests(bundle: Bundle) -> list[GoldenRequest]:
    """Chooses users and items at equal distances, an unknown user, and a history."""
    n_users, n_items = len(bundle.user_ids), len(bundle.item_ids)
    users = bundle.user_ids.raw(np.unique(np.linspace(0, n_users - 1, min(USERS, n_users)).astype(np.int64)))
    items = bundle.item_ids.raw(np.unique(np.linspace(0, n_items - 1, min(ITEMS, n_items)).astype(np.int64)))
    unknown = "unknown user"
    while unknown in bundle.user_ids:
        unknown += "?"
    requests: list[GoldenRequest] = [{"user_id": user, "k": K, "exclude_seen": True} for user in [*users, unknown]]
    if users:
        requests.append({"user_id": users[0], "k": K, "exclude_seen": False})
    if bundle.inductive is not None:
        requests.append({"recent_items": items, "k": K, "exclude_seen": True})
    similar: list[GoldenRequest] = [{"item_id": item, "k": K} for item in items]
    return requests + similar


def _answer(recommender: Recommender, request: GoldenRequest) -> Recommendations:
    """Answers a golden request. Raises KeyError if a field is missing."""
    if "item_id" in request:
        return recommender.similar_items(request["item_id"], request["k"])
    recent = request.get("recent_items", ())
    return recommender.recommend(request.get("user_id"), request["k"], request["exclude_seen"], recent_items=recent)


def _difference(answer: Recommendations, expected: GoldenAnswer) -> str:
    """Describes the first difference between two answers; empty without one."""
    if answer.fallback != expected["fallback"]:
        return f"fallback {answer.fallback!r}, expected {expected['fallback']!r}"
    if list(answer.degraded) != expected["degraded"]:
        return f"degraded {list(answer.degraded)!r}, expected {expected['degraded']!r}"
    ids, wanted_ids = [item.item_id for item in answer.items], expected["item_ids"]
    if len(ids) != len(wanted_ids) or len(wanted_ids) != len(expected["scores"]):
        return f"{len(ids)} items, expected {len(wanted_ids)}"
    scores, wanted = np.array([item.score for item in answer.items]), np.array(expected["scores"], dtype=np.float64)
    tolerance = TOLERANCE * max(1.0, float(np.abs(wanted).max(initial=0.0)))
    for place in range(len(ids)):
        if not abs(scores[place] - wanted[place]) <= tolerance:
            return f"score {scores[place]:.6g} at place {place + 1}, expected {wanted[place]:.6g}"
        tied = {wanted_ids[other] for other in np.flatnonzero(np.abs(wanted - wanted[place]) <= tolerance)}
        beyond = abs(wanted[place] - wanted[-1]) <= tolerance  # may be tied with the first item that was cut off
        if ids[place] != wanted_ids[place] and ids[place] not in tied and not beyond:
            return f"item {ids[place]!r} at place {place + 1}, expected {wanted_ids[place]!r}"
    return ""

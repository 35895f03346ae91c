"""A probe of the index's recall: now and then one user's vector is also searched exactly."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from reckg.bundle.bundle import Bundle
from reckg.retrieval.exact import exact_search
from serving.monitoring.metrics import INDEX_RECALL

REMEMBERED = 100  # latest probes in the mean


def probe(bundle: Bundle, user_idx: int) -> float:
    """Computes the share of a user's best candidates that the index finds.

    An item that scores as the last candidate counts as found.

    Args:
        bundle: the served bundle.
        user_idx: index of the user.
    """
    query, k = bundle.user_vectors[[user_idx]], min(bundle.candidates, len(bundle.item_ids))
    best = exact_search(query, bundle.item_vectors, k).score[0]
    found = bundle.index.search(query, k).item_idx[0]
    score = bundle.item_vectors[found[found >= 0]] @ query[0]
    return float((score >= best[-1] - 1e-6 * abs(best[-1])).sum() / k)


class RecallProbe:
    """A thread that probes a random user at regular times until it is closed.

    Args:
        current: returns the served bundle, or None before there is one.
        every_s: seconds between two probes.
        report: called with the mean of the latest probes.
    """

    def __init__(
        self, current: Callable[[], Bundle | None], every_s: float, report: Callable[[float], None] = INDEX_RECALL.set
    ) -> None:
        self._current, self._every_s, self._report = current, every_s, report
        self._found: deque[float] = deque(maxlen=REMEMBERED)
        self._version = ""
        self._chance = np.random.default_rng(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recall-probe", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            bundle = self._current()
            if bundle is None or not len(bundle.user_ids):
                continue
            if bundle.version != self._version:
                self._found.clear()
                self._version = bundle.version
            user_idx = int(self._chance.integers(len(bundle.user_ids)))
            if bundle.user_vectors[user_idx].any():
                self._found.append(probe(bundle, user_idx))
                self._report(float(np.mean(self._found)))

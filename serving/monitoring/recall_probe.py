"""Does the index still find the best items? Now and then one user's vector is searched exactly as well."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from reckg.bundle.bundle import Bundle
from reckg.retrieval.exact import exact_search
from serving.monitoring.metrics import INDEX_RECALL

REMEMBERED = 100  # probes whose mean is told


def probe(bundle: Bundle, user_idx: int) -> float:
    """The share of one user's best candidates that the index finds; an item that scores as the last is one of them."""
    query, k = bundle.user_vectors[[user_idx]], min(bundle.candidates, len(bundle.item_ids))
    best = exact_search(query, bundle.item_vectors, k).score[0]
    found = bundle.index.search(query, k).item_idx[0]
    score = bundle.item_vectors[found[found >= 0]] @ query[0]
    return float((score >= best[-1] - 1e-6 * abs(best[-1])).sum() / k)


class RecallProbe:
    """Probes a random user every so many seconds, in a thread of its own, until it is closed.

    current: the bundle that is served at the moment; None: none yet.
    """

    def __init__(
        self, current: Callable[[], Bundle | None], every_s: float, tell: Callable[[float], None] = INDEX_RECALL.set
    ) -> None:
        self._current, self._every_s, self._tell = current, every_s, tell
        self._found: deque[float] = deque(maxlen=REMEMBERED)
        self._version = ""
        self._chance = np.random.default_rng(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recall-probe", daemon=True)
        self._thread.start()

    def close(self) -> None:
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
                self._tell(float(np.mean(self._found)))

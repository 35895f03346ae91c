"""A load generator for a recommendation server, with an open loop as of independent users.

    python -m serving.client.load 127.0.0.1:50051 --users users.txt --rate 200 --seconds 30

Requests leave at random moments at a given rate (Poisson), whether or not earlier requests are answered. Latency counts
from the moment when a request should have left, so that a slow server cannot slow its own load down. Run it on another
machine or core than the server, and compare the printed rate with the wanted rate.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from reckg.v1 import recommender_pb2 as pb
from serving.client.client import RecommenderClient
from serving.client.command import add_connection_arguments, connection
from serving.client.connections import CHANNELS

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
METHOD = "/reckg.v1.RecommenderService/Recommend"


@dataclass
class Outcome:
    """The outcome of a run.

    Attributes:
        seconds: duration of the sending.
        sent: number of requests.
        statuses: number of requests by gRPC status.
        latencies_ms: of answered requests, from the intended moment of sending.
        rejected_ms: of requests that ended with RESOURCE_EXHAUSTED, from the real moment of sending.
        versions: number of answers by bundle version.
        late_ms: delay of the real moment of sending after the intended moment.
    """

    seconds: float = 0.0
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    rejected_ms: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    late_ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Returns rates, percentiles in milliseconds and the share of each status, ready for JSON."""
        answered = self.statuses["OK"]
        return {
            "sent_per_s": self.sent / self.seconds,
            "answered_per_s": answered / self.seconds,
            "latency_ms": {f"p{p:g}": percentile(self.latencies_ms, p) for p in PERCENTILES},
            "rejected_p99_ms": percentile(self.rejected_ms, 99.0),
            "late_p99_ms": percentile(self.late_ms, 99.0),
            "statuses": {name: count / max(self.sent, 1) for name, count in self.statuses.most_common()},
            "versions": dict(self.versions),
        }


def percentile(values: Sequence[float], p: float) -> float | None:
    """Returns the smallest value that p percent of the values do not exceed, or None without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * p / 100) - 1)] if ordered else None


def run_load(
    client: RecommenderClient,
    user_ids: Sequence[str],
    *,
    rate: float,
    seconds: float,
    k: int = 10,
    timeout_s: float = 2.0,
    seed: int = 0,
    count_versions: bool = False,
) -> Outcome:
    """Sends Recommend at a rate, and then waits for the calls under way.

    Args:
        client: connected to the server.
        user_ids: raw ids; each request takes a random one.
        rate: requests a second, over all connections of the client.
        seconds: duration of the sending.
        k: number of items of each request.
        timeout_s: deadline of each request.
        seed: of moments and users.
        count_versions: whether replies are parsed for their bundle version, which takes the client more time.
    """
    chance, outcome, lock = random.Random(seed), Outcome(), threading.Lock()
    start = client.raw_call(METHOD)
    requests = [pb.RecommendRequest(user_id=user, max_item_count=k).SerializeToString() for user in user_ids]
    under_way = threading.Semaphore(0)

    def finished(call: Any, intended: float, left: float) -> None:
        now = time.perf_counter()
        code = call.code()
        answered = code == grpc.StatusCode.OK
        response = pb.RecommendResponse.FromString(call.result()) if answered and count_versions else None
        with lock:
            outcome.statuses[code.name] += 1
            if answered:
                outcome.latencies_ms.append((now - intended) * 1000)
            if response is not None:
                outcome.versions[response.bundle_version] += 1
            elif code == grpc.StatusCode.RESOURCE_EXHAUSTED:
                outcome.rejected_ms.append((now - left) * 1000)
        under_way.release()

    began = intended = time.perf_counter()
    while intended < began + seconds:
        pause = intended - time.perf_counter()
        if pause > 0:
            time.sleep(pause)
        left = time.perf_counter()
        call = start(chance.choice(requests), timeout_s)
        call.add_done_callback(lambda done, when=intended, left=left: finished(done, when, left))
        outcome.sent += 1
        outcome.late_ms.append((left - intended) * 1000)
        intended += chance.expovariate(rate)
    outcome.seconds = time.perf_counter() - began
    for _ in range(outcome.sent):
        under_way.acquire()
    return outcome


def format_outcome(figures: dict[str, Any]) -> str:
    """Formats the figures for people."""
    latency = ", ".join(f"{name} {_ms(value)}" for name, value in figures["latency_ms"].items())
    statuses = ", ".join(f"{name} {share:.2%}" for name, share in figures["statuses"].items())
    return (
        f"sent {figures['sent_per_s']:.1f}/s, answered {figures['answered_per_s']:.1f}/s\nlatency: {latency}\n"
        f"statuses: {statuses}\nsent late by (p99): {_ms(figures['late_p99_ms'])}"
    )


def _ms(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f} ms"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Send recommendation requests at a given rate and print the outcome.")
    parser.add_argument("address", help="host:port, as the server prints it")
    parser.add_argument("--users", type=Path, required=True, help="file of user ids, one a line")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="(default: %(default)s)")
    parser.add_argument("--k", type=int, default=10, help="number of items (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=2.0, help="deadline of a request, seconds (default: %(default)s)"
    )
    parser.add_argument("--channels", type=int, default=CHANNELS, help="connections (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of moments and users (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines for people")
    add_connection_arguments(parser)
    options = parser.parse_args(arguments)
    if options.rate <= 0 or options.seconds <= 0:
        parser.error(f"--rate and --seconds must be above 0, got {options.rate} and {options.seconds}")
    try:
        user_ids = [line.strip() for line in options.users.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"{options.users} cannot be read: {error}")
    if not user_ids:
        parser.error(f"{options.users} holds no user id")
    with RecommenderClient(options.address, channels=options.channels, **connection(options)) as client:
        outcome = run_load(
            client,
            user_ids,
            rate=options.rate,
            seconds=options.seconds,
            k=options.k,
            timeout_s=options.timeout,
            seed=options.seed,
            count_versions=True,
        )
    print(json.dumps(outcome.figures()) if options.json else format_outcome(outcome.figures()))
    return 0 if outcome.statuses["OK"] else 1


if __name__ == "__main__":
    sys.exit(main())

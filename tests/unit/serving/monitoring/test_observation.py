"""What a worker tells of its calls."""

from __future__ import annotations

from typing import Any

import grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from reckg.recommend.deadline import Deadline
from serving.calls.call import Call
from serving.errors import RefusedError
from serving.monitoring.observation import Observation, Ticker
from serving.monitoring.tracing import start_tracing
from serving.settings import TracingSettings
from tests.waiting import wait_until

METHOD = "/reckg.v1.RecommenderService/Recommend"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def call_of(clock: Clock) -> Call:
    call = Call(METHOD, clock.now)
    clock.now += 0.004
    call.began = clock.now
    deadline = Deadline(clock=clock)
    for stage, seconds in (("retrieve", 0.002), ("rerank", 0.003)):
        deadline.begin(stage)  # type: ignore[arg-type]
        clock.now += seconds
    deadline.end()
    call.report.deadlines.append(deadline)
    call.report.degraded.append("no_events")
    call.report.request_id = "r1"
    return call


def test_a_call_is_counted_and_timed() -> None:
    clock = Clock()
    names = {
        "requests": ("reckg_requests_total", {"method": "Recommend", "code": "OK"}),
        "seconds": ("reckg_request_seconds_sum", {"method": "Recommend"}),
        "queue": ("reckg_queue_seconds_sum", {}),
        "rerank": ("reckg_stage_seconds_sum", {"stage": "rerank"}),
        "degraded": ("reckg_degraded_total", {"reason": "no_events"}),
    }
    before = {key: value(name, **labels) for key, (name, labels) in names.items()}
    Observation(clock=clock)(call_of(clock), grpc.StatusCode.OK)
    added = {key: round(value(name, **labels) - before[key], 6) for key, (name, labels) in names.items()}
    assert added == {"requests": 1, "seconds": 0.009, "queue": 0.004, "rerank": 0.003, "degraded": 1}


def test_a_refused_call_is_counted_by_its_reason_and_not_timed() -> None:
    before = value("reckg_rejected_total", reason="queue"), value("reckg_request_seconds_count", method="Recommend")
    call = Call(METHOD, 0.0)
    call.refuse(RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", reason="queue"))
    Observation()(call, grpc.StatusCode.RESOURCE_EXHAUSTED)
    after = value("reckg_rejected_total", reason="queue"), value("reckg_request_seconds_count", method="Recommend")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 0)


def test_a_call_is_traced_with_its_stages() -> None:
    clock, exporter = Clock(), InMemorySpanExporter()
    observation = Observation(start_tracing(TracingSettings(sample_share=1.0), exporter), clock)
    observation(call_of(clock), grpc.StatusCode.OK)
    observation.close()
    spans: dict[str, Any] = {span.name: span for span in exporter.get_finished_spans()}
    call, rerank = spans[METHOD.removeprefix("/")], spans["rerank"]
    assert round((call.end_time - call.start_time) / 1e6) == 9
    assert round((rerank.start_time - call.start_time) / 1e6) == 6
    assert round((rerank.end_time - rerank.start_time) / 1e6) == 3
    assert call.attributes["reckg.request_id"] == "r1"


def test_gauges_are_told_again_and_again() -> None:
    ticks: list[int] = []
    ticker = Ticker(lambda: ticks.append(1), every_s=0.001)
    wait_until(lambda: len(ticks) > 2)
    ticker.close()

"""Spans of calls and their stages, under the caller's trace."""

from __future__ import annotations

import builtins
import threading
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reckg.errors import ConfigError
from serving.monitoring.tracing import start_tracing
from serving.settings import TracingSettings

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METHOD = "reckg.v1.RecommenderService/Recommend"


def record(share: float, *metadata: tuple[str, str], code: str = "OK") -> list[Any]:
    exporter = InMemorySpanExporter()
    tracer = start_tracing(TracingSettings(sample_share=share), exporter)
    assert tracer is not None
    stages = [("retrieve", 1_100, 1_500), ("rerank", 1_500, 1_900)]
    tracer.record(METHOD, metadata, 1_000, 2_000, code=code, stages=stages, attributes={"reckg.request_id": "r1"})
    tracer.close()
    return list(exporter.get_finished_spans())


def test_a_call_is_part_of_the_callers_trace() -> None:
    retrieve, rerank, call = record(0.0, ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("authorization", "Bearer secret"))
    assert (call.name, call.start_time, call.end_time) == (METHOD, 1_000, 2_000)
    assert f"{call.context.trace_id:032x}" == TRACE and f"{call.parent.span_id:016x}" == PARENT
    assert [(s.name, s.start_time, s.end_time) for s in (retrieve, rerank)] == [
        ("retrieve", 1_100, 1_500),
        ("rerank", 1_500, 1_900),
    ]
    assert retrieve.parent.span_id == rerank.parent.span_id == call.context.span_id
    assert call.attributes["reckg.request_id"] == "r1" and call.attributes["rpc.grpc.status_code"] == 0
    assert "secret" not in str([span.to_json() for span in (retrieve, rerank, call)])


def test_the_caller_decides_what_is_sampled() -> None:
    assert record(1.0, ("traceparent", f"00-{TRACE}-{PARENT}-00")) == []
    assert record(0.0) == []
    assert len(record(1.0)) == 3


def test_a_failure_is_marked() -> None:
    assert record(1.0, code="INTERNAL")[-1].status.status_code.name == "ERROR"
    assert record(1.0, code="INVALID_ARGUMENT")[-1].status.status_code.name == "UNSET"


class Silent(InMemorySpanExporter):
    """A collector that does not answer until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def shutdown(self) -> None:
        self.go_on.wait(60)


def test_a_collector_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.monitoring.tracing.CLOSE_S", 0.1)
    exporter = Silent()
    tracer = start_tracing(TracingSettings(), exporter)
    assert tracer is not None
    ending = threading.Thread(target=tracer.close)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()
    exporter.go_on.set()


def test_without_an_endpoint_there_are_no_traces() -> None:
    assert start_tracing(TracingSettings()) is None


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'reckg\[tracing\]'"):
        start_tracing(TracingSettings(endpoint="http://127.0.0.1:4317"))

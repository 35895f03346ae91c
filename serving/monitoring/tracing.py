"""OpenTelemetry traces: a span a call and one for each of its stages, under the trace that the caller is in.

The caller's context comes in the metadata `traceparent` (https://www.w3.org/TR/trace-context/). Spans are made when the
call has ended and only where it is sampled, so that a request pays nothing else. They hold the method, the status, the
request id, the bundle's version and the stages, and nothing of who asked for what.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from reckg.errors import ConfigError
from serving.settings import TracingSettings

CLOSE_S = 2.0


@dataclass(frozen=True)
class Tracer:
    """Records calls; ``start_tracing`` makes one."""

    provider: Any
    tracer: Any
    propagator: Any

    def record(
        self,
        method: str,
        metadata: Iterable[tuple[str, str | bytes]],
        began_ns: int,
        ended_ns: int,
        *,
        code: str,
        stages: Iterable[tuple[str, int, int]] = (),
        attributes: Mapping[str, str | int] | None = None,
    ) -> None:
        """One call that ended.

        Args:
            method: as "reckg.v1.RecommenderService/Recommend".
            metadata: of the call.
            began_ns, ended_ns: since the epoch; stages: name, began_ns, ended_ns.
            code: the name of the gRPC status.
        """
        from opentelemetry import trace

        carrier = {key: value for key, value in metadata if key in ("traceparent", "tracestate")}
        parent = self.propagator.extract(carrier)
        service, _, name = method.rpartition("/")
        said = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": name,
            "rpc.grpc.status_code": grpc.StatusCode[code].value[0],
        }
        span = self.tracer.start_span(
            method,
            parent,
            kind=trace.SpanKind.SERVER,
            start_time=began_ns,
            attributes={**said, **(attributes or {})},
        )
        if span.is_recording():
            inside = trace.set_span_in_context(span, parent)
            for stage, start, end in stages:
                self.tracer.start_span(stage, inside, start_time=start).end(end)
            if code in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
                span.set_status(trace.StatusCode.ERROR, code)
        span.end(ended_ns)

    def close(self) -> None:
        """Sends what is left and ends; a collector that does not answer is not waited for longer than CLOSE_S."""
        ending = threading.Thread(target=self.provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(CLOSE_S)


def start_tracing(settings: TracingSettings, exporter: Any = None) -> Tracer | None:
    """A tracer that sends to the collector, or to ``exporter``; None where no endpoint is set and none is given.

    Raises:
        ConfigError: the extra `tracing` is not installed.
    """
    if not settings.endpoint and exporter is None:
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(settings.endpoint, insecure=settings.endpoint.startswith("http://"))
    except ImportError as error:
        raise ConfigError(
            "tracing.endpoint is set, and OpenTelemetry is missing; install it with: pip install 'reckg[tracing]'"
        ) from error
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample_share)),
        resource=Resource.create({"service.name": "reckg"}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider, provider.get_tracer("reckg.serving"), TraceContextTextMapPropagator())

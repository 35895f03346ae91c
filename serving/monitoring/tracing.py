"""OpenTelemetry traces: a span for each call and for each of its stages, as children of the caller's trace.

The caller's context comes in the metadata `traceparent` (https://www.w3.org/TR/trace-context/). Spans are made after a
sampled call has ended, so that other requests pay nothing. They hold the method, the status, the request id, the
bundle's version and the stages. They hold no user and no item.
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
    """A recorder of calls. ``start_tracing`` makes one."""

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
        """Records a call that ended.

        Args:
            method: full name, as "reckg.v1.RecommenderService/Recommend".
            metadata: of the call.
            began_ns: start in nanoseconds since the epoch.
            ended_ns: end in nanoseconds since the epoch.
            code: name of the gRPC status.
            stages: name, start and end of each stage.
            attributes: further attributes of the call's span.
        """
        from opentelemetry import trace

        carrier = {key: value for key, value in metadata if key in ("traceparent", "tracestate")}
        parent = self.propagator.extract(carrier)
        service, _, name = method.rpartition("/")
        rpc_attributes = {
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
            attributes={**rpc_attributes, **(attributes or {})},
        )
        if span.is_recording():
            call_context = trace.set_span_in_context(span, parent)
            for stage, start, end in stages:
                self.tracer.start_span(stage, call_context, start_time=start).end(end)
            if code in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
                span.set_status(trace.StatusCode.ERROR, code)
        span.end(ended_ns)

    def close(self) -> None:
        """Sends the spans that are left, within CLOSE_S."""
        ending = threading.Thread(target=self.provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(CLOSE_S)


def start_tracing(settings: TracingSettings, exporter: Any = None) -> Tracer | None:
    """Starts tracing.

    Args:
        settings: endpoint of the collector and share of traced requests.
        exporter: takes the spans in place of the collector.

    Returns:
        A tracer, or None without endpoint and exporter.

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
            "tracing.endpoint is set, but OpenTelemetry is missing; install it with: pip install 'reckg[tracing]'"
        ) from error
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample_share)),
        resource=Resource.create({"service.name": "reckg"}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider, provider.get_tracer("reckg.serving"), TraceContextTextMapPropagator())

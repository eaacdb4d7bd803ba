"""A span for each Check call, through the OpenTelemetry SDK (extra `otel`), configured by its OTEL_* variables.

Spans are made after the fact, in a thread of their own, so that a call costs no more than it does with a decision log.
"""

from __future__ import annotations

import os

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extauthz._version import __version__
from extauthz.decision import Decision
from extauthz.server.background import GATHER_SECONDS, Background
from extauthz.server.metrics import NO_LABELS, Snapshot
from extauthz.server.observation import Observation
from extauthz.server.transport import CHECK_METHOD, CHECK_SERVICE

_NAME = CHECK_METHOD.removeprefix("/")
_FLUSH_MILLISECONDS = 1000


class Spans(Background[Observation]):
    """An observer (`observation.Observer`) that makes a span of each decision; sampling is the SDK's.

    `processor` is where spans go, by default to the OTLP endpoint of the OTEL_* variables.
    """

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        super().__init__(name="spans", gather=GATHER_SECONDS)
        name = os.environ.get("OTEL_SERVICE_NAME", "extauthz")
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name, SERVICE_VERSION: __version__}))
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("extauthz", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def wants(self, decision: Decision) -> bool:
        """All of them."""
        return True

    def work(self, batch: list[Observation]) -> None:
        """Make the spans of a batch."""
        for seen in batch:
            decision = seen.decision
            span = self._tracer.start_span(
                _NAME,
                context=self._propagator.extract({"traceparent": seen.trace_parent}),
                kind=SpanKind.SERVER,
                start_time=seen.began,
                attributes={
                    "rpc.system": "grpc",
                    "rpc.service": CHECK_SERVICE,
                    "rpc.method": "Check",
                    "http.request.method": seen.method,
                    "url.path": seen.path,
                    "server.address": seen.host,
                    "extauthz.decision": "allow" if decision.allowed else "deny",
                    "extauthz.reason": decision.reason,
                },
            )
            span.end(seen.ended)

    def end(self) -> None:
        """Send what waits."""
        self._provider.force_flush(_FLUSH_MILLISECONDS)
        self._provider.shutdown()

    def snapshot(self) -> Snapshot:
        """Spans that were dropped before they were made."""
        return {"spans_dropped": {NO_LABELS: self.dropped}}

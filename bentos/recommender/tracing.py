"""OpenTelemetry spans of answered requests, when `traces` says where to: one for the request, one for each stage.

They are made after the answer is out, from the times that the stages have noted anyway; with `traces = "off"` nothing
of this is loaded. A request that brings a W3C `traceparent` becomes part of that trace, and is kept when that one is. A
span says which rung answered and which request it was, and nothing of who asked.
"""

import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bentos.recommender.types import Query, Slate

log = logging.getLogger("streamrec.traces")
EXPORT_S = 5.0
KINDS = {SpanKind.INTERNAL: 1, SpanKind.SERVER: 2}  # as OTLP numbers them
_W3C = TraceContextTextMapPropagator()


class Tracing:
    """
    Args:
        where: `log`, or the address of an OTLP collector (`http://127.0.0.1:4318`).
        share: of requests without a `traceparent` that are kept.
    """

    def __init__(self, where: str, share: float, bento: str, exporter: SpanExporter | None = None) -> None:
        # `serve` sets this for BentoML, whose own instruments cost more than a recommendation.
        os.environ.pop(OTEL_SDK_DISABLED, None)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource({"service.name": "streamrec", "service.version": bento}),
            shutdown_on_exit=False,
        )
        made = exporter or (LogExporter() if where == "log" else OtlpJson(where))
        self._provider.add_span_processor(BatchSpanProcessor(made))
        self._tracer = self._provider.get_tracer("streamrec")

    def record(self, query: Query, slate: Slate, began: float, traceparent: bytes | None) -> None:
        """began: `perf_counter` seconds. Off the response path."""
        to_epoch_ns = time.time_ns() - time.perf_counter_ns()

        def ns(seconds: float) -> int:
            return to_epoch_ns + int(seconds * 1e9)

        parent = None
        if traceparent is not None:
            parent = _W3C.extract({"traceparent": traceparent.decode("latin-1")})
        span = self._tracer.start_span(
            "recommend", parent, SpanKind.SERVER, start_time=ns(began), record_exception=False
        )
        if span.is_recording():
            span.set_attributes(
                {
                    "streamrec.request_id": query.request_id,
                    "streamrec.degradation": slate.degradation,
                    "streamrec.ranked_by": slate.ranked_by,
                    "streamrec.aim": query.aim,
                    "streamrec.k": query.k,
                }
            )
            inside = trace.set_span_in_context(span)
            for name, (start, end) in slate.trace.moments() if slate.trace else ():
                self._tracer.start_span(name, inside, start_time=ns(start)).end(ns(end))
        span.end(ns(time.perf_counter()))

    def close(self) -> None:
        """Send what is left. Blocks for as long as the collector takes."""
        self._provider.shutdown()


class LogExporter(SpanExporter):
    """A line a span."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            document = _span(span)
            ms = (int(document["endTimeUnixNano"]) - int(document["startTimeUnixNano"])) / 1e6
            fields = {"trace_id": document["traceId"], "span_id": document["spanId"], "ms": ms}
            fields |= dict(span.attributes or {})
            log.info("span %s %.3f ms of trace %s", span.name, ms, fields["trace_id"], extra={"fields": fields})
        return SpanExportResult.SUCCESS


class OtlpJson(SpanExporter):
    """OTLP 1.x over HTTP, in its JSON encoding. The SDK's own exporter would bring protobuf and gRPC's types into every
    Bento, and its versions do not fit those that mlflow holds."""

    def __init__(self, address: str) -> None:
        self._url = address.rstrip("/") + "/v1/traces"
        self._problem = ""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        scope = {"scope": {"name": "streamrec"}, "spans": [_span(span) for span in spans]}
        resource = {"attributes": _attributes(spans[0].resource.attributes)}
        body = msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})
        request = urllib.request.Request(  # noqa: S310 - the operator's address
            self._url, body, {"content-type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=EXPORT_S):  # noqa: S310
                self._problem = ""
                return SpanExportResult.SUCCESS
        except (OSError, urllib.error.HTTPError) as error:
            if str(error) != self._problem:  # once, not for each batch
                log.warning("spans cannot be sent to %s: %s", self._url, error)
            self._problem = str(error)
            return SpanExportResult.FAILURE


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.context
    document: dict[str, Any] = {
        "traceId": trace.format_trace_id(context.trace_id),
        "spanId": trace.format_span_id(context.span_id),
        "name": span.name,
        "kind": KINDS.get(span.kind, 1),
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
    }
    if span.parent is not None:
        document["parentSpanId"] = trace.format_span_id(span.parent.span_id)
    return document


def _attributes(values: Any) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
        for key, value in values.items()
    ]

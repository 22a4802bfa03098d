"""Metrics and spans for OpenTelemetry, by its GenAI conventions."""

from __future__ import annotations

from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from streamguard.sinks.deferred import Deferred
from streamguard.sinks.measures import (
    INSTRUMENTS,
    MAX_SERIES,
    Instrument,
    Measures,
    error_type,
    operation,
)
from streamguard.sinks.schema import flatten, identifier
from streamguard.usage import UsageEvent

_ENDED = frozenset({"settled", "released", "refused", "retry_refused", "cached"})


class OtelSink:
    """Records metrics, and a span for every call, which joins the trace of the request around it.

    ::

        guard = Guard(limits, sinks=[OtelSink()])

    Without providers the global ones are used. ``emit`` only notes the event and the current
    trace; a thread records it within a quarter of a second, with the call's own times. A span
    holds the figures of ``streamguard.sinks.schema``, never text.
    """

    def __init__(
        self,
        *,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
        max_series: int = MAX_SERIES,
    ) -> None:
        meter = metrics.get_meter("streamguard", meter_provider=meter_provider)
        self._tracer = trace.get_tracer("streamguard", tracer_provider=tracer_provider)
        self._measures = Measures(max_series)
        self._record = {one.name: _recorder(meter, one) for one in INSTRUMENTS}
        self._deferred = Deferred(self._tell, "streamguard-otel")

    @property
    def dropped(self) -> int:
        """Events that came faster than they could be recorded, or could not be."""
        return self._deferred.dropped

    def emit(self, event: UsageEvent) -> None:
        """Note the event and the trace it belongs to."""
        self._deferred.put(event, otel_context.get_current())

    async def close(self) -> None:
        """Record what waits. Flushing the providers is for the one who set them up."""
        await self._deferred.close()

    def _tell(self, event: UsageEvent, context: Context) -> None:
        for instrument, value, labels in self._measures.points(event):
            known = zip(instrument.labels, labels, strict=True)
            attributes = {name: label for name, label in known if label}
            self._record[instrument.name](value, attributes, context)
        if event.event in _ENDED:
            self._span(event, context)

    def _span(self, event: UsageEvent, context: Context) -> None:
        name, provider = operation(event.endpoint)
        attributes = flatten(event)
        attributes |= {"gen_ai.operation.name": name, "gen_ai.provider.name": provider}
        if event.conversation is not None:
            attributes["gen_ai.conversation.id"] = event.conversation
        span = self._tracer.start_span(
            f"{name} {identifier(event.model)}" if event.model else name,
            context,
            SpanKind.CLIENT,
            attributes,
            start_time=_nanoseconds(event.at - (event.duration or 0.0)),
        )
        error = error_type(event)
        if error is not None:
            span.set_attribute("error.type", identifier(error))
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(event.at))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _recorder(meter: metrics.Meter, instrument: Instrument) -> Any:
    given = {"unit": instrument.unit, "description": instrument.meaning}
    if instrument.kind == "histogram":
        buckets = instrument.buckets
        return meter.create_histogram(
            instrument.name, **given, explicit_bucket_boundaries_advisory=buckets
        ).record
    if instrument.kind == "counter":
        return meter.create_counter(instrument.name, **given).add
    return meter.create_gauge(instrument.name, **given).set

"""Metrics for Prometheus to scrape."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector

from streamguard.errors import ConfigurationError
from streamguard.sinks.deferred import Deferred
from streamguard.sinks.measures import INSTRUMENTS, MAX_SERIES, Instrument, Measures
from streamguard.usage import UsageEvent

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own variable: where processes that share a page keep their figures."""

_KINDS: dict[str, Any] = {
    "counter": Counter,
    "gauge": partial(Gauge, multiprocess_mode="mostrecent"),
}
_SUFFIX = {"s": "_seconds", "1": "_ratio"}


class PrometheusSink:
    """Counts what happens; ``app`` is an ASGI app that shows it.

    ::

        metrics = PrometheusSink()
        guard = Guard(limits, sinks=[metrics])
        app.mount("/metrics", metrics.app)

    The page names tenants and features: keep it off the public internet. Names are those of
    OpenTelemetry's Prometheus exporters, with ``_`` for ``.``. ``max_series`` bounds the label
    combinations of each metric. Every process counts for itself, unless the environment variable
    ``PROMETHEUS_MULTIPROC_DIR`` names an empty folder: then each page shows all of them.
    """

    def __init__(
        self, *, registry: CollectorRegistry | None = None, max_series: int = MAX_SERIES
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._measures = Measures(max_series)
        self._metrics = {one.name: _metric(one, self.registry) for one in INSTRUMENTS}
        self._series: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._deferred = Deferred(self._count, "streamguard-prometheus")
        self._page = make_asgi_app(_shown(self.registry))

    @property
    def dropped(self) -> int:
        """Events that came faster than they could be counted, or could not be."""
        return self._deferred.dropped

    def emit(self, event: UsageEvent) -> None:
        """Note the event; it is counted before the next scrape."""
        self._deferred.put(event)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI app that answers with the text format, or OpenMetrics for who asks for it."""
        await anyio.to_thread.run_sync(self._deferred.flush)
        await self._page(scope, receive, send)

    async def close(self) -> None:
        """Count what waits."""
        await self._deferred.close()

    def _count(self, event: UsageEvent, _note: None) -> None:
        for instrument, value, labels in self._measures.points(event):
            key = (instrument.name, labels)
            record = self._series.get(key)
            if record is None:
                record = _recorder(instrument, self._metrics[instrument.name].labels(*labels))
                self._series[key] = record
            record(value)


def _shown(registry: CollectorRegistry) -> CollectorRegistry:
    """What the page shows: all processes' figures where they are kept in a folder.

    Raises:
        ConfigurationError: there is no such folder.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return registry
    if not Path(folder).is_dir():
        raise ConfigurationError(f"{FOLDER}={folder!r} is no folder; make it before the start")
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


def _metric(instrument: Instrument, registry: CollectorRegistry) -> Any:
    name = _plain(instrument.name) + _SUFFIX.get(instrument.unit, "")
    labels = [_plain(label) for label in instrument.labels]
    if instrument.kind == "histogram":
        buckets = (*instrument.buckets, float("inf"))
        return Histogram(name, instrument.meaning, labels, buckets=buckets, registry=registry)
    return _KINDS[instrument.kind](name, instrument.meaning, labels, registry=registry)


def _recorder(instrument: Instrument, child: Any) -> Any:
    name = {"histogram": "observe", "counter": "inc", "gauge": "set"}[instrument.kind]
    return getattr(child, name)


def _plain(name: str) -> str:
    return name.replace(".", "_")

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from support.events import START, refused, settled
from support.servers import serve

from streamguard import ConfigurationError, Guard, Identity, Limit, StreamGuardMiddleware, Usage
from streamguard.sinks import deferred
from streamguard.sinks.deferred import Deferred
from streamguard.sinks.measures import INSTRUMENTS, OTHER, Measures, error_type, operation
from streamguard.sinks.otel import OtelSink
from streamguard.sinks.prometheus import PrometheusSink

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana-dashboard.json"


def admitted(number=0, **other):
    event = settled(number, limit_name="day", limit=1_000, used=250, **other)
    return dataclasses.replace(event, event="preflight", outcome=None, charged=None)


EVENTS = [
    admitted(0),
    settled(1, tokens=120),
    settled(2, tokens=240, outcome="cut"),
    settled(3, tokens=60, within="sg-2"),
    dataclasses.replace(
        settled(4), event="released", charged=Usage(0, 0), outcome="upstream_error"
    ),
    refused(5),
    dataclasses.replace(refused(6, code="request_budget_exceeded"), event="retry_refused"),
]


class Otel:
    """A sink on an SDK of its own that keeps what it exports."""

    def __init__(self, **given):
        self.reader, self.exporter = InMemoryMetricReader(), InMemorySpanExporter()
        self.tracing = TracerProvider()
        self.tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.metering = MeterProvider([self.reader])
        self.sink = OtelSink(meter_provider=self.metering, tracer_provider=self.tracing, **given)

    def feed(self, *events):
        for event in events:
            self.sink.emit(event)
        asyncio.run(self.sink.close())

    @property
    def points(self):
        data = self.reader.get_metrics_data()
        (scope,) = data.resource_metrics[0].scope_metrics
        return {metric.name: list(metric.data.data_points) for metric in scope.metrics}

    def only(self, name, **labels):
        (point,) = [
            point
            for point in self.points[name]
            if all(
                point.attributes.get(key.replace("__", ".")) == value
                for key, value in labels.items()
            )
        ]
        return point

    def close(self):
        self.metering.shutdown()
        self.tracing.shutdown()


@pytest.fixture
def otel():
    given = Otel()
    yield given
    given.close()


def test_token_usage_and_times_are_otels_genai_metrics(otel):
    otel.feed(*EVENTS)
    made = otel.only("gen_ai.client.token.usage", gen_ai__token__type="output")
    assert (made.count, made.sum) == (2, 20 + 40)
    assert made.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.token.type": "output",
    }
    assert made.explicit_bounds[:3] == (1, 4, 16)
    taken = otel.only("gen_ai.client.token.usage", gen_ai__token__type="input")
    assert taken.sum == 100 + 200
    fine, failed = sorted(
        otel.points["gen_ai.client.operation.duration"], key=lambda point: -point.count
    )
    assert (fine.count, fine.sum) == (2, 3.0)
    assert "error.type" not in fine.attributes
    assert failed.attributes["error.type"] == "upstream_error"
    assert otel.only("gen_ai.client.operation.time_to_first_chunk").sum == 0.75


def test_names_are_those_of_the_conventions_package():
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics as names

    assert [one.name for one in INSTRUMENTS[:3]] == [
        names.GEN_AI_CLIENT_TOKEN_USAGE,
        names.GEN_AI_CLIENT_OPERATION_DURATION,
        names.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
    ]


def test_budgets_and_refusals_are_seen(otel):
    otel.feed(admitted(0), admitted(1, identity=Identity("other")))
    labels = {"streamguard__limit__name": "day", "streamguard__tenant": "acme"}
    assert otel.only("streamguard.budget.utilization", **labels).value == 0.25
    otel.feed(*EVENTS[1:])
    assert otel.only("streamguard.budget.utilization", **labels).value == 0.8
    assert otel.only("streamguard.budget.limit", **labels).value == 1_000
    assert otel.only("streamguard.budget.used", **labels).value == 800
    assert otel.only("streamguard.refusals", error__type="budget_exceeded").value == 1
    assert otel.only("streamguard.requests", streamguard__outcome="refused").value == 2
    assert otel.only("streamguard.requests", streamguard__outcome="cut").value == 1
    otel.feed(dataclasses.replace(settled(9), event="cached"))
    assert otel.only("streamguard.requests", streamguard__outcome="cached").value == 1
    assert otel.only("streamguard.cost.usd").value == pytest.approx(0.00036)
    assert otel.only("streamguard.tokens", gen_ai__token__type="input").value == 300


def test_a_budget_of_nothing_is_full_and_an_unknown_one_is_not_shown(otel):
    zero = dataclasses.replace(admitted(0), limit=0, used=0)
    otel.feed(zero, dataclasses.replace(admitted(1), limit_name=None))
    assert otel.only("streamguard.budget.utilization").value == 1.0


def test_every_call_is_a_span_with_its_own_times(otel):
    otel.feed(*EVENTS)
    spans = otel.exporter.get_finished_spans()
    assert [span.attributes["streamguard.request_id"] for span in spans] == [
        f"sg-{number}" for number in range(1, 7)
    ]
    first = spans[0]
    assert (first.name, first.kind) == ("chat gpt-4o", SpanKind.CLIENT)
    assert first.end_time == (START + 1) * 1e9
    assert first.end_time - first.start_time == 1.5e9
    assert first.attributes["gen_ai.usage.output_tokens"] == 20
    assert first.attributes["gen_ai.conversation.id"] == "c1"
    assert first.status.status_code is StatusCode.UNSET
    assert spans[4].status.status_code is StatusCode.ERROR
    assert spans[4].attributes["error.type"] == "budget_exceeded"


def test_a_span_without_a_model_is_named_by_its_operation(otel):
    otel.feed(dataclasses.replace(settled(1), model=None, conversation=None, duration=None))
    (span,) = otel.exporter.get_finished_spans()
    assert span.name == "chat"
    assert span.start_time == span.end_time


def guarded(sinks, tracing=None):
    """An app behind the middleware, inside a span of the app's own when there is tracing."""

    async def answer(_request):
        return PlainTextResponse("some words", headers={"content-type": "text/plain"})

    guard = Guard([Limit(tokens=10_000, per="day", scope=("tenant",))], sinks=sinks)
    routes = [Route("/v1/chat/completions", answer, methods=["POST"])]
    inner = StreamGuardMiddleware(
        Starlette(routes=routes), guard=guard, identify=lambda _scope: Identity("acme", "ann")
    )

    async def app(scope, receive, send):
        if tracing is None or scope["type"] != "http":
            await inner(scope, receive, send)
            return
        with tracing.get_tracer("app").start_as_current_span("request"):
            await inner(scope, receive, send)

    return app


BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


def test_spans_join_the_trace_of_the_request_under_a_real_server(otel):
    with serve(guarded([otel.sink], otel.tracing)) as base:
        for _ in range(2):
            httpx2.post(f"{base}/v1/chat/completions", json=BODY)
    asyncio.run(otel.sink.close())
    spans = otel.exporter.get_finished_spans()
    outer = {span.context.span_id: span for span in spans if span.name == "request"}
    calls = [span for span in spans if span.name == "chat gpt-4o"]
    assert len(outer) == len(calls) == 2
    for call in calls:
        assert call.parent.span_id in outer
        assert call.context.trace_id == outer[call.parent.span_id].context.trace_id
        assert call.attributes["streamguard.tenant"] == "acme"


def test_the_global_providers_are_the_default():
    sink = OtelSink()
    sink.emit(settled(1))
    asyncio.run(sink.close())
    assert sink.dropped == 0
    assert not trace.get_current_span().is_recording()


def scraped(base, **headers):
    answer = httpx2.get(f"{base}/metrics/", headers=headers)
    assert answer.status_code == 200
    return answer.text


def samples(text, parse=families):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    (only,) = [
        number
        for (known, pairs), number in found.items()
        if known == name and labels.items() <= dict(pairs).items()
    ]
    return only


@pytest.mark.parametrize(
    ("accept", "parse"),
    [("text/plain", families), ("application/openmetrics-text;version=1.0.0", open_families)],
)
def test_prometheus_own_parser_reads_what_a_real_server_shows(accept, parse):
    sink = PrometheusSink()
    with serve(Starlette(routes=[Mount("/metrics", app=sink.app)])) as base:
        for event in EVENTS:
            sink.emit(event)
        found = samples(scraped(base, accept=accept), parse)
    asyncio.run(sink.close())
    assert value(found, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 60
    assert (
        value(found, "gen_ai_client_token_usage_bucket", gen_ai_token_type="output", le="64.0") == 2
    )
    assert value(found, "gen_ai_client_operation_duration_seconds_count", error_type="") == 2
    assert value(found, "streamguard_requests_total", streamguard_outcome="cut") == 1
    assert value(found, "streamguard_refusals_total", error_type="budget_exceeded") == 1
    assert value(found, "streamguard_cost_usd_total") == pytest.approx(0.00036)
    assert value(found, "streamguard_budget_utilization_ratio") == 0.8


def test_the_middleware_is_seen_in_the_metrics():
    sink = PrometheusSink()
    with serve(guarded([sink])) as base:
        httpx2.post(f"{base}/v1/chat/completions", json=BODY)
    asyncio.run(sink.close())
    text = "".join(
        f"{sample.name} {sample.labels}"
        for family in sink.registry.collect()
        for sample in family.samples
    )
    assert "streamguard_budget_limit" in text
    assert "hello" not in text


@given(
    st.lists(
        st.tuples(st.text(max_size=200), st.text(max_size=200), st.text(max_size=200)), max_size=40
    )
)
def test_the_number_of_series_is_bounded_and_nothing_is_lost(names):
    measures = Measures(max_series=5)
    series, total = {}, 0
    for number, (tenant, model, feature) in enumerate(names):
        event = settled(number, identity=Identity(tenant, "u", feature), model=model, tokens=12)
        total += 12
        for instrument, amount, labels in measures.points(event):
            assert len(labels) == len(instrument.labels)
            by_labels = series.setdefault(instrument.name, {})
            by_labels[labels] = by_labels.get(labels, 0) + amount
    for by_labels in series.values():
        assert len(by_labels) <= 6
        assert all(label.isprintable() and len(label) <= 128 for one in by_labels for label in one)
    assert sum(series.get("streamguard.tokens", {}).values()) == total


def test_what_is_over_the_bound_is_added_up_under_one_name():
    measures = Measures(max_series=1)
    list(measures.points(refused(1)))
    labels = {one[2] for one in measures.points(refused(2, identity=Identity("new")))}
    assert labels == {(OTHER,) * 3, (OTHER,) * 2}


@pytest.mark.parametrize(
    ("endpoint", "known"),
    [
        (None, ("chat", "openai")),
        ("/v1/chat/completions", ("chat", "openai")),
        ("/v1/completions", ("text_completion", "openai")),
        ("/v1/embeddings", ("embeddings", "openai")),
        ("/v1/messages", ("chat", "anthropic")),
        ("/v1beta/models/gemini-3:streamGenerateContent", ("generate_content", "gcp.gemini")),
        ("/v1beta/models/gemini-3:generateContent", ("generate_content", "gcp.gemini")),
        ("/api/chat", ("chat", "ollama")),
        ("/api/generate", ("text_completion", "ollama")),
        ("/my/route", ("chat", "openai")),
    ],
)
def test_operations_by_endpoint(endpoint, known):
    assert operation(endpoint) == known


@pytest.mark.parametrize(
    ("figures", "error"),
    [
        ({"outcome": "completed"}, None),
        ({"outcome": "cut"}, None),
        ({"outcome": None}, None),
        ({"outcome": "disconnected"}, "disconnected"),
        ({"outcome": "completed", "status": 503}, "503"),
        ({"code": "budget_exceeded"}, "budget_exceeded"),
    ],
)
def test_why_a_call_failed(figures, error):
    assert error_type(settled(1, **figures)) == error


def test_unknown_figures_add_nothing():
    blank = {"duration": None, "first_token": None, "cost_nano_usd": None}
    measures = Measures()
    known = [point[0].name for point in measures.points(settled(1, charged=Usage(), **blank))]
    assert known == ["streamguard.requests"]
    assert len(list(measures.points(settled(1, charged=None, **blank)))) == 1
    assert list(measures.points(dataclasses.replace(settled(1), event="started"))) == []


def test_deferred_work_survives_an_error_and_counts_it():
    done = []

    def work(event, note):
        if note == "bad":
            raise ValueError(note)
        done.append(event.request_id)

    queue = Deferred(work, "test")
    for number, note in enumerate(["", "bad", ""]):
        queue.put(settled(number), note)
    asyncio.run(queue.close())
    assert done == ["sg-0", "sg-2"]
    assert queue.dropped == 1


def test_deferred_work_happens_by_itself_and_after_a_close_again():
    done = threading.Event()
    queue = Deferred(lambda *_: done.set(), "test")
    for _ in range(2):
        queue.put(settled(1))
        assert done.wait(10)
        asyncio.run(queue.close())
        done.clear()


def test_too_many_waiting_events_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr(deferred, "WAITING", 2)
    monkeypatch.setattr(Deferred, "_run", lambda _self: None)
    sink = PrometheusSink()
    for number in range(5):
        sink.emit(settled(number))
    asyncio.run(sink.close())
    assert sink.dropped == 3


def test_closing_what_never_started_is_fine():
    asyncio.run(PrometheusSink().close())


def test_every_metric_of_the_dashboard_exists():
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    sink = PrometheusSink()
    for event in EVENTS:
        sink.emit(event)
    asyncio.run(sink.close())
    known = {sample.name for family in sink.registry.collect() for sample in family.samples}
    used = {
        name for query in queries for name in re.findall(r"\b(?:streamguard|gen_ai)_\w+", query)
    }
    labels = {label.replace(".", "_") for instrument in INSTRUMENTS for label in instrument.labels}
    assert len(queries) >= 8
    assert used - labels <= known
    assert len(used & known) >= 6


def test_a_folder_for_processes_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", f"{tmp_path}/none")
    with pytest.raises(ConfigurationError, match=r"PROMETHEUS_MULTIPROC_DIR='.*none' is no folder"):
        PrometheusSink()


SHARED = """
import asyncio
from support.events import settled
from streamguard.sinks.prometheus import PrometheusSink
sink = PrometheusSink()
sink.emit(settled(1, tokens=120))
asyncio.run(sink.close())
"""


def test_processes_that_name_a_folder_show_what_all_of_them_counted(tmp_path):
    """Each in a process of its own: prometheus_client looks for the folder when it is imported."""
    page = SHARED + "from prometheus_client import generate_latest\n"
    page += "from streamguard.sinks.prometheus import _shown\n"
    page += "print(generate_latest(_shown(sink.registry)).decode())\n"
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": path}
    for code in (SHARED, page):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
    found = {one.name: one for one in families(done.stdout)}
    assert sum(sample.value for sample in found["streamguard_requests"].samples) == 2

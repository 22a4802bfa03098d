"""``[tell]``: alerts, metrics and traces of ``streamguard serve``."""

from __future__ import annotations

import base64
import json
import os
import sys

import httpx2
import pytest
import standardwebhooks
from prometheus_client.parser import text_string_to_metric_families as families
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from support.gateways import served
from support.servers import serve, wait_until

from streamguard.errors import ConfigurationError
from streamguard.gateway import serving, telling
from streamguard.gateway.config import GatewayConfig, read_gateway

CHAT = "/v1/chat/completions"
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "the quick fox"}]}
AUTH = ("prometheus", "correct-horse")
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
CONFIG = """
store = "sqlite:///budgets.db"

[[upstreams]]
url = "{url}"

[[limits]]
name = "three calls"
requests = 3
per = "day"

{tell}
"""


@pytest.fixture
def config(tmp_path, upstream_url):
    def write(tell):
        path = tmp_path / "gateway.toml"
        path.write_text(CONFIG.format(url=upstream_url, tell=tell))
        return str(path)

    return write


def ask(url):
    return httpx2.post(url + CHAT, json=ASK, headers={"authorization": "Bearer sk-mine"})


def samples(text):
    """The page as Prometheus reads it: values by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families(text)
        for sample in family.samples
    }


def total(url, name, **labels):
    reply = httpx2.get(f"{url}/metrics", auth=AUTH)
    assert reply.is_success
    found = samples(reply.text)
    return sum(
        value
        for (called, *pairs), value in found.items()
        if called == name and labels.items() <= dict(pairs).items()
    )


REQUESTS = "streamguard_requests_total"


def test_prometheus_reads_the_page_with_its_password(tmp_path, config):
    path = config('[tell]\nprometheus = "env:METRICS_PASSWORD"')
    with served(tmp_path, "--config", path, METRICS_PASSWORD=AUTH[1]) as one:
        assert [ask(one.url).status_code for _ in range(4)] == [200, 200, 200, 429]
        page = f"{one.url}/metrics"
        denied = httpx2.get(page)
        assert denied.status_code == 401
        assert 'realm="streamguard metrics"' in denied.headers["www-authenticate"]
        assert "the metrics page's password" in httpx2.get(page, auth=("", "wrong-one")).text
        reply = httpx2.get(page, auth=AUTH)
        assert reply.headers["content-type"].startswith("text/plain; version=")
        ended = {"streamguard_outcome": "completed"}
        wait_until(lambda: total(one.url, REQUESTS, **ended) == 3, "not counted")
        assert (
            total(one.url, "streamguard_refusals_total", streamguard_limit_name="three calls") == 1
        )
        assert total(one.url, "gen_ai_client_operation_duration_seconds_count") == 3
        assert total(one.url, "streamguard_budget_used", streamguard_limit_name="three calls") > 0
        assert AUTH[1] not in one.told()
        for secret in ("sk-mine", "quick fox", AUTH[1]):
            assert secret not in reply.text


def test_without_a_password_the_page_is_for_this_machine(tmp_path, config):
    with served(tmp_path, "--config", config("[tell]\nprometheus = true")) as one:
        assert httpx2.get(f"{one.url}/metrics").is_success
        through = httpx2.get(f"{one.url}/metrics", headers={"x-forwarded-for": "192.0.2.1"})
        assert through.status_code == 403
        assert "the metrics page is served to this machine only" in through.text
        assert f"metrics={one.url}/metrics" in one.told()


def test_there_is_no_page_unless_it_is_asked_for(run):
    with run("[tell]\nprometheus = false\n").client() as client:
        assert client.get("/metrics").status_code == 403


def test_each_worker_shows_what_all_of_them_did(tmp_path, config):
    path = config('[tell]\nprometheus = "correct-horse"')
    with served(tmp_path, "--config", path, "--workers", "2") as one:
        wait_until(lambda: one.told().count("Application startup complete") == 2, "not both")
        assert [ask(one.url).status_code for _ in range(4)] == [200, 200, 200, 429]
        for _ in range(6):  # a connection each: both workers are asked
            wait_until(lambda: total(one.url, REQUESTS) == 4, "the other's calls are missing")
        assert total(one.url, "streamguard_budget_limit", streamguard_limit_name="three calls") == 3
        one.terminate()
        assert one.ended() == 0


def test_workers_without_a_page_need_no_folder_for_it(monkeypatch):
    monkeypatch.delenv(serving.METRICS_FOLDER, raising=False)
    for tell, folder in (({}, False), ({"prometheus": True}, True)):
        with serving.shared_metrics(GatewayConfig((), tell=tell)):
            assert (serving.METRICS_FOLDER in os.environ) is folder
    monkeypatch.setenv(serving.METRICS_FOLDER, "mine")
    with serving.shared_metrics(GatewayConfig((), tell={"prometheus": True})):
        assert os.environ[serving.METRICS_FOLDER] == "mine"


def test_a_refusal_is_told_to_a_webhook(tmp_path, config):
    got = []

    async def hook(request):
        got.append((await request.body(), dict(request.headers)))
        return Response(status_code=204)

    with serve(Starlette(routes=[Route("/hook", hook, methods=["POST"])])) as receiver:
        path = config(
            '[[tell.alerts.webhooks]]\nurl = "env:HOOK"\nsecrets = ["env:HOOK_SECRET"]\n'
            "allow_private = true"
        )
        env = {"HOOK": f"{receiver}/hook", "HOOK_SECRET": SECRET}
        with served(tmp_path, "--config", path, "--json", **env) as one:
            assert [ask(one.url).status_code for _ in range(4)] == [200, 200, 200, 429]
            wait_until(lambda: got, "no alert came")
            assert SECRET not in one.told()
    body, headers = got[0]
    assert standardwebhooks.Webhook(SECRET).verify(body, headers)["type"] == "alert.budget_refusal"
    assert "three calls" in json.loads(body)["data"]["message"]
    assert b"quick fox" not in body
    assert len(got) == 1


SDK = """
import sys
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

tracing = TracerProvider()
tracing.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(tracing)
reader = PeriodicExportingMetricReader(ConsoleMetricExporter(), export_interval_millis=200)
metrics.set_meter_provider(MeterProvider([reader]))
"""


def test_calls_are_traced_where_an_sdk_is_set_up(tmp_path, config):
    """As ``opentelemetry-instrument`` does it: by a module that Python imports at its start."""
    (tmp_path / "sitecustomize.py").write_text(SDK)
    env = {"PYTHONPATH": str(tmp_path)}
    with served(tmp_path, "--config", config("[tell]\notel = true"), **env) as one:
        assert ask(one.url).is_success
        wait_until(lambda: '"gen_ai.request.model": "gpt-4o"' in one.told(), "no span")
        wait_until(lambda: "streamguard.requests" in one.told(), "no metric")
        assert "quick fox" not in one.told()


def test_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "streamguard.sinks.prometheus", None)
    with pytest.raises(ConfigurationError, match=r"tell.prometheus needs pip .*\[prometheus\]"):
        telling.told_by({"prometheus": True})


def test_a_page_s_password_is_not_in_what_is_shown_of_a_configuration(tmp_path, config):
    assert AUTH[1] not in repr(
        read_gateway(tmp_path / config('[tell]\nprometheus="correct-horse"'))
    )

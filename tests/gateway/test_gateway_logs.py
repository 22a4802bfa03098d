"""Log lines: JSON for machines, nothing of a prompt in them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys

import pytest
import structlog

from streamguard.gateway import logs, serving
from streamguard.gateway.app import Gateway
from streamguard.gateway.config import GatewayConfig
from streamguard.gateway.upstreams import Upstream
from streamguard.usage import UsageEvent

EVENT = UsageEvent(event="refused", request_id="sg-1", at=1.5, code="budget_exceeded")


def record(exc_info=None):
    args = ("uvicorn.error", logging.ERROR, "app.py", 1, "it failed: %s", ("x",), exc_info)
    return json.loads(logs.JSONFormatter().format(logging.LogRecord(*args)))


def test_an_exception_is_told_by_its_kind_and_place():
    def fail():
        raise ValueError("the prompt")

    try:
        fail()
    except ValueError:
        told = record(sys.exc_info())
    assert (told["event"], told["level"], told["logger"]) == (
        "it failed: x",
        "error",
        "uvicorn.error",
    )
    assert told["exception"] == "ValueError"
    assert told["at"].startswith("test_gateway_logs.py:")
    assert "the prompt" not in str(told)


def test_entries_without_an_exception_or_without_its_traceback():
    assert "exception" not in record()
    assert "exception" not in record((None, None, None))
    assert record((ValueError, ValueError("x"), None))["at"] == ""


@pytest.mark.anyio
async def test_events_wait_for_the_flush_and_close_writes_the_rest():
    out = io.StringIO()
    sink = logs.JSONLines(out)
    await sink.close()
    sink.emit(EVENT)
    sink.emit(EVENT)
    assert out.getvalue() == ""
    await sink.close()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("refused", "warning")] * 2
    assert lines[0]["timestamp"] == "1970-01-01T00:00:01.500000Z"
    assert lines[0]["error.type"] == "budget_exceeded"


def test_lines_for_people_are_structlog_s_own():
    structlog.reset_defaults()
    try:
        assert logs.configure(as_json=False) is None
        assert structlog.is_configured()
    finally:
        structlog.reset_defaults()


@pytest.mark.parametrize("started", [True, False])
def test_a_server_that_did_not_start_is_a_failure(monkeypatch, started):
    monkeypatch.setattr(serving._Server, "run", lambda self, **_: setattr(self, "started", started))
    config = GatewayConfig((Upstream(url="http://h"),), guard={"store": "memory://"})
    expected = contextlib.nullcontext() if started else pytest.raises(SystemExit, match="3")
    with serving.listen("127.0.0.1", 0) as listener, expected:
        serving.serve(Gateway(config, sinks=[]), listener, None)

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from streamguard.core.prompt import Component
from streamguard.identity import Identity
from streamguard.sinks.base import Sink
from streamguard.sinks.memory import ListSink
from streamguard.sinks.report import log_error
from streamguard.sinks.schema import FIELDS, MAX_ID, flatten, identifier
from streamguard.sinks.structlog import StructlogSink
from streamguard.usage import EventName, Usage, UsageEvent

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "events.md"
FULL = UsageEvent(
    "settled",
    "sg-1",
    1_790_000_000.5,
    identity=Identity("acme", "ann", "chat"),
    model="gpt-4o",
    endpoint="/v1/chat/completions",
    counted=Usage(100, 20, 5, 50, 60),
    reported=Usage(101, 21, 6, 51, 61),
    charged=Usage(102, 22, 7, 52, 62),
    method="exact",
    cost_nano_usd=475_000,
    output_limit=500,
    outcome="end",
    duration=1.5,
    first_token=0.25,
    status=200,
    code="budget_exceeded",
    limit_name="day",
    limit=10_000,
    used=9_000,
    requested=2_000,
    resets_at=1_790_000_060.0,
    attempt=2,
    position=3,
    components=dict.fromkeys(get_args(Component), 7),
    detail="StoreUnavailableError",
    conversation="8f3c",
    within="sg-0",
    context_window=128_000,
)
SECRET = "my grandmother's maiden name is"


def test_a_full_event_has_every_field_and_none_twice():
    assert list(flatten(FULL)) == [field.name for field in FIELDS]
    assert len({field.name for field in FIELDS}) == len(FIELDS)


def test_every_attribute_of_an_event_has_a_field():
    shown = {field.attribute.partition(".")[0] for field in FIELDS}
    assert shown | {"event"} == {field.name for field in dataclasses.fields(UsageEvent)}


def test_the_figures_are_told_apart():
    flat = flatten(FULL)
    assert flat["streamguard.counted.total_tokens"] == 120
    assert flat["gen_ai.usage.input_tokens"] == 101
    assert flat["gen_ai.usage.reasoning.output_tokens"] == 6
    assert flat["gen_ai.usage.cache_read.input_tokens"] == 51
    assert flat["streamguard.reported.total_tokens"] == 122
    assert flat["streamguard.charged.total_tokens"] == 124
    assert flat["streamguard.prompt.few_shot"] == 7
    assert flat["user.id"] == "ann"


def test_what_is_unknown_is_left_out():
    bare = UsageEvent("refused", "sg-2", 1.0)
    assert flatten(bare) == {"streamguard.request_id": "sg-2", "streamguard.at": 1.0}
    zero = dataclasses.replace(bare, counted=Usage(0, 0))
    assert flatten(zero)["streamguard.counted.total_tokens"] == 0


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_no_text_gets_out_but_as_a_short_identifier(text, model, components):
    event = dataclasses.replace(
        FULL,
        model=model,
        counted=Usage(text, None, [text], {text: text}),
        components=components,
        limit=text,
        detail=text * 50,
    )
    allowed = {field.name: field.kind for field in FIELDS}
    for name, value in flatten(event).items():
        if allowed[name] == "id":
            assert len(value) <= MAX_ID
            assert value.isprintable()
        else:
            assert isinstance(value, (int, float))


@given(st.text(max_size=400))
def test_identifiers_keep_what_they_can(text):
    kept = identifier(text)
    assert kept == text or len(text) > MAX_ID or not text.isprintable()
    assert len(kept) == min(len(text), MAX_ID)


def test_a_component_that_is_not_on_the_list_is_not_logged():
    event = dataclasses.replace(FULL, components={SECRET: 5, "user": 3})
    flat = flatten(event)
    assert SECRET not in str(flat)
    assert flat["streamguard.prompt.user"] == 3


@pytest.mark.parametrize("name", get_args(EventName))
def test_structlog_writes_one_entry_under_the_events_name(name):
    with structlog.testing.capture_logs() as entries:
        StructlogSink().emit(dataclasses.replace(FULL, event=name))
    (entry,) = entries
    warnings = ("trimmed", "rerouted", "warned", "refused", "cut", "retry_refused")
    levels = dict.fromkeys(warnings, "warning")
    assert entry.pop("log_level") == levels.get(name, "error" if name == "store_error" else "info")
    assert entry.pop("event") == name
    assert entry == flatten(FULL)


@pytest.fixture
def unconfigured(monkeypatch):
    """Makes structlog and ``logging`` be as in a program that configures neither."""

    def forget():  # in the test itself: pytest gives handlers to what does not propagate before it
        monkeypatch.setattr(logging.getLogger("streamguard"), "propagate", False)

    structlog.reset_defaults()
    yield forget
    structlog.reset_defaults()


def test_standard_output_is_left_to_the_application(unconfigured, capsys):
    unconfigured()
    StructlogSink().emit(FULL)
    log_error("usage_ledger_unreachable", rows=5)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert "settled" in first
    assert "streamguard.tenant=acme" in first
    assert "\x1b" not in err
    assert "error" in second
    assert "usage_ledger_unreachable" in second
    assert "rows=5" in second


def test_the_applications_structlog_comes_first(unconfigured, capsys):
    unconfigured()
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    StructlogSink().emit(FULL)
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {"event": "settled"} | flatten(FULL)


@pytest.mark.parametrize(("level", "names"), [("INFO", ["settled", "cut"]), ("WARNING", ["cut"])])
def test_then_comes_its_logging(unconfigured, capsys, level, names):
    unconfigured()
    logger, handler = logging.getLogger("streamguard"), logging.StreamHandler(out := io.StringIO())
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        sink = StructlogSink()
        for name in ("settled", "cut"):
            sink.emit(dataclasses.replace(FULL, event=name))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert capsys.readouterr() == ("", "")
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [f"event={name}" for name in names]
    assert "streamguard.tenant=acme" in lines[0]


def test_a_logger_of_the_users_gets_json(capsys):
    logger = structlog.wrap_logger(
        structlog.PrintLogger(), processors=[structlog.processors.JSONRenderer()]
    )
    sink = StructlogSink(logger)
    sink.emit(FULL)
    sink.emit(FULL)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0]) == {"event": "settled"} | flatten(FULL)


def test_structlog_is_imported_at_the_first_event_only():
    code = (
        "import sys; from streamguard.sinks.structlog import StructlogSink; StructlogSink();"
        "sys.exit('structlog' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_list_sink_finds_events_by_name():
    sink = ListSink()
    for name in ("preflight", "cut", "settled"):
        sink.emit(dataclasses.replace(FULL, event=name))
    assert [event.event for event in sink.events] == ["preflight", "cut", "settled"]
    assert sink.named("cut") == [sink.events[1]]
    assert isinstance(sink, Sink)
    assert isinstance(StructlogSink(), Sink)


def test_the_docs_list_every_field_and_every_event():
    text = DOCS.read_text().partition("## How a call ends")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    documented = [row for row in rows if row[0] not in get_args(EventName)]
    assert documented == [(field.name, field.kind, field.meaning) for field in FIELDS]
    assert [row[0] for row in rows if row[0] in get_args(EventName)] == list(get_args(EventName))

"""Which models and service tiers a request allows, and which a response says answered."""

from __future__ import annotations

import json

import pytest

from streamguard import ProtocolError
from streamguard.core.wire import Served
from streamguard.protocols import protocol_named, stream_named

BODIES = {
    "openai_chat": {"messages": []},
    "openai_responses": {"input": "hi"},
    "completions": {"prompt": "hi"},
    "embeddings": {"input": "hi"},
    "anthropic": {"messages": [], "max_tokens": 5},
}


def parse(name, **more):
    return protocol_named(name).parse({**BODIES[name], **more}, "/v1/x")


@pytest.mark.parametrize("name", BODIES)
def test_fallback_lists_are_models_that_may_answer(name):
    both = parse(name, model="a", models=["b", "a"], fallbacks=[{"model": "c"}, "d"])
    assert both.models == ("a", "b", "c", "d")
    assert parse(name, models=["b", "c"]).models == ("b", "c")
    assert parse(name, model="a", models=[]).models == ("a",)
    for wrong in ("b", [5], [""], [{}], ["a"] * 33, {"a": "b"}):
        with pytest.raises(ProtocolError, match="models|model must"):
            parse(name, model="a", models=wrong)
    with pytest.raises(ProtocolError, match="model must"):
        parse(name, models=[])


@pytest.mark.parametrize(
    ("name", "more", "tier"),
    [
        ("openai_chat", {}, ""),
        ("openai_chat", {"service_tier": "auto"}, ""),
        ("openai_chat", {"service_tier": "Priority"}, "priority"),
        ("openai_responses", {"service_tier": "flex"}, "flex"),
        ("completions", {"service_tier": "default"}, ""),
        ("anthropic", {"service_tier": "standard_only"}, ""),
        ("anthropic", {"speed": "fast", "service_tier": "auto"}, "fast"),
        ("anthropic", {"speed": "standard", "service_tier": "priority"}, "priority"),
        ("gemini", {"serviceTier": "SERVICE_TIER_PRIORITY", "contents": []}, "priority"),
    ],
)
def test_the_service_tier_is_read(name, more, tier):
    body = {"model": "m", **BODIES.get(name, {}), **more}
    assert protocol_named(name).parse(body, "/v1/x").tier == tier


@pytest.mark.parametrize("tier", [5, "x" * 65, ["flex"]])
def test_a_tier_is_a_short_string(tier):
    with pytest.raises(ProtocolError, match="service_tier must be"):
        parse("openai_chat", model="m", service_tier=tier)


HEAD = {"id": "c", "model": "b", "service_tier": "flex"}
TEXT = {"index": 0, "delta": {"content": "hi"}}
TOOL = {"index": 0, "delta": {"tool_calls": [{"function": {"name": "f"}}]}}


def events(*docs):
    return b"".join(b"data: " + json.dumps(doc).encode() + b"\n\n" for doc in docs)


@pytest.mark.parametrize(
    ("name", "docs", "served"),
    [
        ("openai_chat", [{**HEAD, "choices": [TEXT]}], ("b", "flex")),
        ("openai_chat", [{**HEAD, "choices": [TOOL]}], ("b", "flex")),
        ("openai_chat", [{"id": "c", "model": "b", "choices": [TEXT]}], ("b", "")),
        ("openai_chat", [], ("m", "")),
        ("completions", [{**HEAD, "choices": []}], ("b", "")),
        ("openai_responses", [{"type": "response.created", "response": HEAD}], ("b", "flex")),
        ("anthropic", [{"type": "message_start", "message": {"model": "b"}}], ("b", "")),
        ("plain", [], ("", "")),
        ("sse", [], ("", "")),
    ],
)
def test_a_stream_tells_who_answered(name, docs, served):
    state = stream_named(name, "m")()
    for frame in state.feed(events(*docs)):
        assert frame.raw
    assert state.served == served


@pytest.mark.parametrize(
    ("asked", "usage", "tier"),
    [
        ({}, {"service_tier": "batch"}, "batch"),
        ({"speed": "fast"}, {"service_tier": "standard"}, ""),  # says nothing of the speed
        ({"speed": "fast"}, {"service_tier": "standard", "speed": "standard"}, "standard"),
        ({}, {"speed": "fast"}, "fast"),
    ],
)
def test_anthropic_tells_the_speed_apart_from_the_tier(asked, usage, tier):
    protocol = protocol_named("anthropic")
    request = parse("anthropic", model="a", **asked)
    reply = {"model": "b", "content": [], "usage": usage}
    served = Served("b", tier)
    assert protocol.read_reply(request, json.dumps(reply).encode()).served == served
    state = protocol.stream(request)
    list(state.feed(events({"type": "message_start", "message": reply})))
    assert state.served == served


@pytest.mark.parametrize("name", ["openai_chat", "completions", "openai_responses"])
def test_a_reply_tells_who_answered(name):
    request = parse(name, model="a")
    body = json.dumps({**HEAD, "choices": [], "output": []}).encode()
    assert protocol_named(name).read_reply(request, body).served == Served("b", "flex")


def test_what_anthropic_used_beside_the_message_is_charged():
    def used(kind, given, made, **more):
        return {"type": kind, "input_tokens": given, "output_tokens": made, **more}

    beside = [used("compaction", 180_000, 3_500), used("advisor_message", 400, 70)]
    within = [used("message", 23_000, 1_000), used("fallback_message", 9, 9), "odd"]
    usage = {"input_tokens": 23_000, "output_tokens": 1_000, "iterations": [*within, *beside]}
    protocol = protocol_named("anthropic")
    request = parse("anthropic", model="a")
    doc = {"type": "message", "content": [], "usage": usage}
    reply = protocol.read_reply(request, json.dumps(doc).encode())
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (203_400, 4_570)
    stream = protocol.stream(request)
    delta = {"type": "message_delta", "delta": {}, "usage": usage}
    list(stream.feed(f"event: message_delta\ndata: {json.dumps(delta)}\n\n".encode()))
    assert stream.reported == reply.usage

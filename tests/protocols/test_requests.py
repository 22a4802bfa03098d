"""Request bodies of the other formats: caps found, clamped and injected; bypasses closed."""

# ruff: noqa: E501
from __future__ import annotations

import json

import pytest

from streamguard.core.wire import Delta
from streamguard.errors import OutputBudgetExceededError, ProtocolError, WindowBudgetExceededError
from streamguard.protocols import protocol_named
from streamguard.usage import Usage

GOOGLE = "/v1beta/models/gemini-2.5-flash:generateContent"
CLAUDE = {"model": "claude-sonnet-4-5", "messages": [], "max_tokens": 5000}
RESPONSES = {"model": "gpt-4o", "input": "hi"}
GEMINI = {"contents": []}
OLLAMA = {"model": "llama3.2", "messages": []}
TEXT = {"model": "gpt-3.5-turbo-instruct", "prompt": "hi"}
BASES = {
    "anthropic": (CLAUDE, "/v1/messages"),
    "openai_responses": (RESPONSES, "/v1/responses"),
    "gemini": (GEMINI, GOOGLE),
    "ollama": (OLLAMA, "/api/chat"),
    "completions": (TEXT, "/v1/completions"),
    "embeddings": ({"model": "text-embedding-3-small", "input": "hi"}, "/v1/embeddings"),
}


def parse(name, path=None, **more):
    base, usual = BASES[name]
    return protocol_named(name).parse({**base, **more}, path or usual)


def rewrite(name, cap, **more):
    return protocol_named(name).rewrite(parse(name, **more), cap)


def number(field, *, least=1):
    return [{field: wrong} for wrong in (True, least - 1, 1.0, "5", [5], 2**31)]


WRONG = {
    "anthropic": [
        *number("max_tokens", least=0),
        {"thinking": {"budget_tokens": "1024"}},
        {"thinking": True},
        {"stream": "true"},
        {"messages": None},
        {"messages": ["hi"]},
        {"model": 5},
    ],
    "openai_responses": [
        *number("max_output_tokens"),
        {"background": True},
        {"input": 5},
        {"input": {}},
        {"stream": 1},
        {"model": ""},
    ],
    "gemini": [
        *({"generationConfig": wrong} for wrong in number("maxOutputTokens")),
        *({"generation_config": wrong} for wrong in number("max_output_tokens")),
        *({"generationConfig": wrong} for wrong in number("candidateCount")),
        {"generationConfig": [], "contents": []},
        {"generationConfig": {}, "generation_config": {}},
        {"generationConfig": {"maxOutputTokens": 5, "max_output_tokens": 9}},
        {"generationConfig": {"thinkingConfig": {"thinkingBudget": 5, "thinking_budget": 9}}},
        {"generationConfig": {"thinkingConfig": 5}},
        {"contents": None},
        {"contents": 5},
    ],
    "ollama": [
        *({"options": wrong} for wrong in number("num_predict", least=-2)),
        {"options": []},
        {"messages": "hi"},
        {"stream": "no"},
        {"model": None},
    ],
    "completions": [
        *number("max_tokens", least=0),
        *number("n"),
        *number("best_of"),
        {"prompt": 5},
        {"prompt": []},
        {"prompt": ["a", 5]},
        {"prompt": [[1], [-1]]},
        {"prompt": [[1], []]},
        {"prompt": [True]},
        {"prompt": {"a": 1}},
        {"stream_options": 5},
        {"model": None},
    ],
    "embeddings": [{"input": 5}, {"input": [[]]}, {"input": [{}]}, {"model": None}],
}


@pytest.mark.parametrize(("name", "wrong"), [(n, w) for n, rows in WRONG.items() for w in rows])
def test_what_a_budget_depends_on_must_be_plain(name, wrong):
    with pytest.raises(ProtocolError):
        parse(name, **wrong)


def test_caps_choices_and_streams_are_found():
    claude = parse("anthropic", stream=True)
    assert (claude.output_cap, claude.stream, claude.choices) == (5000, True, 1)
    assert parse("anthropic", max_tokens=None).output_cap is None
    assert parse("openai_responses", max_output_tokens=50).output_cap == 50
    config = {"max_output_tokens": 9, "candidateCount": 3}
    google = parse("gemini", generationConfig=config)
    assert (google.model, google.output_cap, google.choices) == ("gemini-2.5-flash", 9, 3)
    assert not google.stream
    streaming = "/v1/projects/p/publishers/google/models/Gem%20X:streamGenerateContent"
    assert parse("gemini", path=streaming).stream
    assert parse("gemini", path=streaming).model == "Gem X"
    assert parse("gemini", path="/custom", model="gemini-pro").model == "gemini-pro"


def test_ollama_streams_unless_told_not_to_and_its_negative_caps_are_none():
    assert parse("ollama").stream
    assert not parse("ollama", stream=False).stream
    for cap, found in ((-2, None), (-1, None), (0, 0), (7, 7), (None, None)):
        assert parse("ollama", options={"num_predict": cap}).output_cap == found
    plain = protocol_named("ollama").parse({"model": "m", "prompt": "hi"}, "/api/generate")
    assert plain.stream
    with pytest.raises(ProtocolError, match="prompt must be a string"):
        protocol_named("ollama").parse({"model": "m", "prompt": ["hi"]}, "/api/generate")


@pytest.mark.parametrize(
    ("more", "choices"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": 2, "best_of": 5}, 5),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": ["a", "b"], "best_of": 4}, 8),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4),
        ({"prompt": None}, 1),
    ],
)
def test_every_output_of_a_completion_counts(more, choices):
    assert parse("completions", **more).choices == choices


def test_embeddings_have_no_output():
    request = parse("embeddings", input=["a", "b"])
    assert not request.produces_output
    assert protocol_named("embeddings").rewrite(request, 5) is request.body
    azure = "/openai/deployments/my-embedder/embeddings"
    assert protocol_named("embeddings").parse({"input": "a"}, azure).model == "my-embedder"
    old = "/v1/engines/openai%2Fmy-embedder/embeddings"
    assert protocol_named("embeddings").parse({"input": "a"}, old).model == "openai/my-embedder"
    state = protocol_named("embeddings").stream(request)
    assert [frame.raw for frame in state.feed(b"abc")] == [b"abc"]
    assert list(state.feed(b"")) == list(state.finish()) == []
    assert state.shorten(next(iter(state.feed(b"x"))), []) == state.end("cut", Usage()) == b""
    assert (state.reported, state.ended) == (Usage(), False)


@pytest.mark.parametrize(
    ("name", "more", "fields"),
    [
        ("anthropic", {"container": "c", "mcp_servers": []}, ("container",)),
        ("openai_responses", {"previous_response_id": "r"}, ("previous_response_id",)),
        ("openai_responses", {"conversation": {"id": "c"}, "prompt": {"id": "p"}}, ("conversation", "prompt")),
        ("gemini", {"cachedContent": "c"}, ("cachedContent",)),
        ("gemini", {"cached_content": "c"}, ("cached_content",)),
        ("ollama", {"context": [1, 2]}, ("context",)),
    ],
)  # fmt: skip
def test_input_that_only_the_provider_knows_is_named(name, more, fields):
    assert parse(name, **more).opaque == fields


@pytest.mark.parametrize(
    ("name", "cap", "more", "changed"),
    [
        ("anthropic", 100, {}, {"max_tokens": 100}),
        ("anthropic", 100, {"max_tokens": None}, {"max_tokens": 100}),
        ("anthropic", 3000, {"thinking": {"type": "enabled", "budget_tokens": 4000}},
         {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 2999}}),
        ("anthropic", 3000, {"thinking": {"type": "enabled", "budget_tokens": 2000}},
         {"max_tokens": 3000}),
        ("anthropic", 1024, {"thinking": {"type": "enabled", "budget_tokens": 2000}},
         {"max_tokens": 1024, "thinking": {"type": "disabled"}}),
        ("anthropic", 1025, {"thinking": {"type": "enabled", "budget_tokens": 2000}},
         {"max_tokens": 1025, "thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("anthropic", 100, {"thinking": {"type": "adaptive"}}, {"max_tokens": 100}),
        ("openai_responses", 100, {}, {"max_output_tokens": 100}),
        ("openai_responses", 5, {"max_output_tokens": 20}, {"max_output_tokens": 16}),
        ("gemini", 100, {}, {"generationConfig": {"maxOutputTokens": 100}}),
        ("gemini", 100, {"generation_config": {"max_output_tokens": 500, "top_k": 1}},
         {"generation_config": {"max_output_tokens": 100, "top_k": 1}}),
        ("gemini", 100, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 500, "x": 1}}},
         {"generationConfig": {"maxOutputTokens": 100, "thinkingConfig": {"thinkingBudget": 100, "x": 1}}}),
        ("gemini", 100, {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}},
         {"generationConfig": {"maxOutputTokens": 100, "thinkingConfig": {"thinkingBudget": -1}}}),
        ("ollama", 100, {}, {"options": {"num_predict": 100}}),
        ("ollama", 100, {"options": {"num_predict": -1, "top_k": 1}},
         {"options": {"num_predict": 100, "top_k": 1}}),
        ("completions", 100, {}, {"max_tokens": 100}),
        ("completions", 100, {"max_tokens": 5, "stream": True},
         {"stream_options": {"include_usage": True}}),
    ],
)  # fmt: skip
def test_rewrite(name, cap, more, changed):
    base = parse(name, **more).body
    before = json.dumps(base)
    assert rewrite(name, cap, **more) == {**base, **changed}
    assert json.dumps(base) == before


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("anthropic", {"max_tokens": 100, "thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ("openai_responses", {"max_output_tokens": 100}),
        ("gemini", {"generationConfig": {"maxOutputTokens": 100}}),
        ("ollama", {"options": {"num_predict": 100}}),
        ("completions", {"max_tokens": 100}),
        (
            "completions",
            {"max_tokens": 0, "stream": True, "stream_options": {"include_usage": True}},
        ),
    ],
)
def test_a_body_that_is_fine_is_sent_as_it_is(name, more):
    request = parse(name, **more)
    for cap in (100, 5000, None):
        assert protocol_named(name).rewrite(request, cap) is request.body


@pytest.mark.parametrize("name", BASES)
def test_prompts_are_rendered(name):
    body = {"contents": [{"parts": [{"text": "hi"}]}]} if name == "gemini" else {}
    body |= (
        {"messages": [{"role": "user", "content": "hi"}]} if "messages" in BASES[name][0] else {}
    )
    parts = protocol_named(name).prompt(parse(name, **body)).parts
    assert any(part.text == "hi" for part in parts)


REPLIES = {
    "anthropic": (
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "one two"},
                     {"type": "tool_use", "name": "get", "input": {"a": 1}}],
         "stop_reason": "tool_use",
         "usage": {"input_tokens": 3, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 9,
                   "output_tokens_details": {"thinking_tokens": 2}}},
        [Delta((0, "reasoning"), "hm"), Delta((1, "content"), "one two"),
         Delta((2, "tool"), "get", whole=True), Delta((2, "tool"), '{"a":1}', whole=True)],
        Usage(12, 9, 2, 5, 4, web_searches=0),
        ("stop_reason", "max_tokens"),
    ),
    "openai_responses": (
        {"status": "completed",
         "output": [{"type": "reasoning", "summary": [{"text": "hm"}]},
                    {"type": "message", "content": [{"type": "output_text", "text": "one two"}, {"type": "refusal", "refusal": "no"}]},
                    {"type": "function_call", "name": "get", "arguments": "{}"}],
         "usage": {"input_tokens": 5, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 1},
                   "output_tokens_details": {"reasoning_tokens": 2}}},
        [Delta((0, "reasoning:0"), "hm"), Delta((1, "content:0"), "one two"), Delta((1, "refusal:1"), "no"),
         Delta((2, "tool"), "get", whole=True), Delta((2, "tool"), "{}")],
        Usage(5, 9, 2, 1, web_searches=0),
        ("status", "incomplete"),
    ),
    "gemini": (
        {"candidates": [{"content": {"parts": [
            {"text": "hm", "thought": True}, {"text": "one two"}, {"functionCall": {"name": "get", "args": {"a": 1}}},
            {"executableCode": {"code": "1+1"}}]}, "finishReason": "STOP"}],
         "usageMetadata": {"promptTokenCount": 5, "toolUsePromptTokenCount": 2, "candidatesTokenCount": 4,
                           "thoughtsTokenCount": 3, "cachedContentTokenCount": 1}},
        [Delta((0, "reasoning"), "hm"), Delta((0, "content"), "one two"), Delta((0, "tool"), "get", whole=True),
         Delta((0, "tool"), '{"a":1}', whole=True), Delta((0, "tool"), "1+1")],
        Usage(7, 7, 3, 1),
        None,
    ),
    "ollama": (
        {"message": {"thinking": "hm", "content": "one two", "tool_calls": [{"function": {"name": "get", "arguments": {"a": 1}}}]},
         "done": True, "prompt_eval_count": 5, "eval_count": 9},
        [Delta((0, "reasoning"), "hm"), Delta((0, "content"), "one two"), Delta((0, "tool:0"), "get", whole=True),
         Delta((0, "tool:0"), '{"a":1}', whole=True)],
        Usage(5, 9),
        ("done_reason", "length"),
    ),
    "completions": (
        {"choices": [{"index": 0, "text": "hm"}, {"index": 1, "text": "one two"}],
         "usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}},
        [Delta((0, "content"), "hm"), Delta((1, "content"), "one two")],
        Usage(5, 9),
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPLIES)
def test_replies_are_read_and_shortened(name):
    doc, deltas, usage, said = REPLIES[name]
    protocol, request = protocol_named(name), parse(name)
    reply = protocol.read_reply(request, json.dumps(doc).encode())
    assert reply.deltas == deltas
    assert reply.usage == usage
    kept = [deltas[0], Delta(deltas[1].channel, "one"), *(Delta(d.channel, "") for d in deltas[2:])]
    body = protocol.shorten_reply(request, json.dumps(doc).encode(), kept)
    short = protocol.read_reply(request, body)
    assert short.deltas == kept[:2]
    assert short.usage == usage
    if said:
        assert json.loads(body)[said[0]] == said[1]
    else:
        assert b"MAX_TOKENS" in body or b'"finish_reason":"length"' in body
    assert b'"get"' not in body


@pytest.mark.parametrize("name", [*REPLIES, "embeddings"])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b"{}", b'{"choices": 5, "output": 5, "content": 5}']
)
def test_what_is_no_reply_is_an_empty_one(name, body):
    reply = protocol_named(name).read_reply(parse(name), body)
    assert not reply.deltas
    assert reply.usage == Usage()


def test_an_embeddings_reply_is_read_without_its_vectors():
    protocol, request = protocol_named("embeddings"), parse("embeddings")
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    body = json.dumps({"data": [{"embedding": [0.5] * 9}], "usage": usage}).encode()
    assert protocol.read_reply(request, body).usage.input_tokens == 5
    assert protocol.shorten_reply(request, body, []) is body


OVER = OutputBudgetExceededError("too much")
SPENT = WindowBudgetExceededError("later")


def test_refusals_are_in_each_formats_own_envelope():
    numbers = {"limit": 5}
    assert protocol_named("anthropic").refusal(OVER, numbers) == {
        "type": "error",
        "error": {"type": "request_too_large", "message": "too much", "code": "request_budget_exceeded",
                  "streamguard": numbers},
    }  # fmt: skip
    assert protocol_named("anthropic").refusal(SPENT, {})["error"]["type"] == "rate_limit_error"
    google = protocol_named("gemini").refusal(SPENT, numbers)["error"]
    assert (google["code"], google["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert google["streamguard"] == numbers
    assert google["reason"] == "budget_exceeded"
    local = protocol_named("ollama").refusal(OVER, numbers)
    assert local == {"error": "too much", "code": "request_budget_exceeded", "streamguard": numbers}
    for name in ("completions", "embeddings", "openai_responses"):
        error = protocol_named(name).refusal(SPENT, numbers)["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", "budget_exceeded")
        assert error["streamguard"] == numbers

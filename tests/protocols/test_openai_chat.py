# ruff: noqa: E501
from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.wire import CHAT_HEAD, chat_chunk, chat_text, sse_data, sse_event

from streamguard.core.streams import StreamMeter
from streamguard.core.wire import Delta
from streamguard.errors import (
    OutputBudgetExceededError,
    ProtocolError,
    StoreUnavailableError,
    WindowBudgetExceededError,
)
from streamguard.protocols import protocol_named
from streamguard.protocols.streaming import JSONStream
from streamguard.tokenizers import get_tokenizer
from streamguard.usage import Usage

CHAT = protocol_named("openai_chat")
PATH = "/v1/chat/completions"
BASE = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def parse(path=PATH, **more):
    return CHAT.parse({**BASE, **more}, path)


def deltas(state, *pieces):
    return [delta for piece in pieces for frame in state.feed(piece) for delta in frame.deltas]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": True},
        {"max_tokens": -1},
        {"max_tokens": 0},
        {"max_tokens": 10.0},
        {"max_tokens": "10"},
        {"max_tokens": 2**31},
        {"max_tokens": [10]},
        {"max_completion_tokens": False},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"n": 0},
        {"n": True},
        {"n": 1.5},
        {"n": "2"},
        {"stream": 1},
        {"stream": "true"},
        {"stream_options": []},
        {"stream_options": {"include_usage": 1}},
        {"model": ""},
        {"model": None},
        {"model": "m" * 257},
        {"model": ["gpt-4o"]},
        {"messages": None},
        {"messages": "hi"},
        {"messages": ["hi"]},
    ],
)
def test_what_a_budget_depends_on_must_be_plain(wrong):
    with pytest.raises(ProtocolError) as caught:
        parse(**wrong)
    assert next(iter(wrong)).removeprefix("stream_options") in str(caught.value)


def test_both_cap_names_are_ambiguous_and_null_is_absent():
    with pytest.raises(ProtocolError, match="max_completion_tokens and max_tokens are both set"):
        parse(max_tokens=5, max_completion_tokens=9)
    request = parse(max_tokens=None, max_completion_tokens=9, n=None, stream=None)
    assert (request.output_cap, request.choices, request.stream) == (9, 1, False)


def test_parsed():
    request = parse(max_tokens=50, n=3, stream=True)
    assert (request.protocol, request.model) == ("openai_chat", "gpt-4o")
    assert (request.output_cap, request.choices, request.stream) == (50, 3, True)
    assert not request.wants_usage
    assert parse().wants_usage
    assert parse(stream=True, stream_options={"include_usage": True}).wants_usage


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/My-GPT/chat/completions",
        "//openai//deployments/./My-GPT/chat/completions?api-version=1",
        "/openai%2Fdeployments%2fMy%2DGPT/chat/completions",
        "/OpenAI\\Deployments/My-GPT/chat/completions/",
    ],
)
def test_azures_path_names_the_model_whatever_the_body_says(path):
    body = {"messages": []}
    assert CHAT.parse(body, path).model == "My-GPT"
    assert parse(path).model == "My-GPT"
    assert CHAT.parse({**body, "model": 5}, path).cap_field == "max_completion_tokens"
    with pytest.raises(ProtocolError, match="model"):
        CHAT.parse(body, PATH)


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ("gpt-4o", "max_completion_tokens"),
        ("o3-mini", "max_completion_tokens"),
        ("openai/gpt-5", "max_completion_tokens"),
        ("ft:gpt-4o:org::id", "max_completion_tokens"),
        ("deepseek-chat", "max_tokens"),
        ("mistral-large-latest", "max_tokens"),
        ("meta-llama/Llama-3-70b", "max_tokens"),
    ],
)
def test_an_absent_cap_is_injected_under_the_name_the_host_knows(model, field):
    request = parse(model=model)
    assert CHAT.rewrite(request, 77) == {**request.body, field: 77}


def test_rewrite_clamps_the_cap_that_is_there():
    request = parse(max_tokens=100)
    assert CHAT.rewrite(request, 40)["max_tokens"] == 40
    assert "max_completion_tokens" not in CHAT.rewrite(request, 40)
    assert CHAT.rewrite(request, 100) is request.body
    assert CHAT.rewrite(request, None) is request.body
    assert request.body["max_tokens"] == 100


def test_rewrite_asks_for_usage_and_keeps_other_options():
    request = parse(stream=True, stream_options={"include_obfuscation": False})
    sent = CHAT.rewrite(request, None)
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert request.body["stream_options"] == {"include_obfuscation": False}
    asked = parse(stream=True, stream_options={"include_usage": True}, max_tokens=5)
    assert CHAT.rewrite(asked, 5) is asked.body
    mistral = parse(model="mistral-small", stream=True, max_tokens=5)
    assert CHAT.rewrite(mistral, 5) is mistral.body


def test_prompt_is_rendered():
    assert any(part.text == "hi" for part in CHAT.prompt(parse()).parts)


def test_every_kind_of_text_has_its_channel():
    call = {"index": 0, "id": "call_1", "type": "function"}
    found = deltas(
        CHAT.stream(parse(stream=True)),
        chat_chunk({"role": "assistant", "content": None}),
        chat_chunk({"reasoning_content": "think", "reasoning": "think"}),
        chat_chunk({"reasoning": "more", "reasoning_details": [{"text": "more"}]}),
        chat_chunk({"content": "text"}, index=1),
        chat_chunk({"refusal": "no"}),
        chat_chunk({"tool_calls": [{**call, "function": {"name": "get", "arguments": ""}}]}),
        chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
        chat_chunk({"tool_calls": [{"index": 1, "custom": {"name": "run", "input": "ls"}}]}),
        chat_chunk({"tool_calls": [{"index": 2}, "odd", None]}),
        chat_chunk({"function_call": {"name": "old", "arguments": "{}"}}),
        chat_chunk({"audio": {"id": "a", "transcript": "spoken"}}),
        chat_chunk({"content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]},
            {"type": "text", "text": "so"}, "odd",
        ]}),
        chat_chunk({"content": 5}),
        chat_chunk({}, obfuscation="xxxx"),
        sse_event({**CHAT_HEAD, "choices": [{"index": 0, "message": {"content": "whole"}}, {}, 4]}),
        sse_event({**CHAT_HEAD, "choices": [{"index": "x", "delta": {"content": "y"}}]}),
        sse_event({**CHAT_HEAD, "choices": [{"index": 0, "delta": None}]}),
    )  # fmt: skip
    assert found == [
        Delta((0, "reasoning"), "think"),
        Delta((0, "reasoning"), "more"),
        Delta((1, "content"), "text"),
        Delta((0, "refusal"), "no"),
        Delta((0, "tool:0"), "get", whole=True),
        Delta((0, "tool:0"), '{"a"'),
        Delta((0, "tool:1"), "run", whole=True),
        Delta((0, "tool:1"), "ls"),
        Delta((0, "function_call"), "old", whole=True),
        Delta((0, "function_call"), "{}"),
        Delta((0, "audio"), "spoken"),
        Delta((0, "reasoning"), "hmm"),
        Delta((0, "content"), "so"),
        Delta((0, "content"), "whole"),
        Delta((0, "content"), "y"),
    ]


def test_text_that_is_not_quite_unicode_is_read_as_clients_read_it():
    state = CHAT.stream(parse(stream=True))
    bad = chat_chunk({"content": "A"}).replace(b'"A"', b'"\xff"')
    lone = chat_chunk({"content": "A"}).replace(b'"A"', b'"\\ud83d"')
    assert [delta.text for delta in deltas(state, bad, lone)] == ["\ufffd", "\ud83d"]
    frame = next(iter(state.feed(lone)))
    assert b'"content":"\\ud83d"' in state.shorten(frame, frame.deltas)


def cut(allowance, *pieces, error=None, **more):
    request = parse(stream=True, **more)
    meter = StreamMeter(CHAT.stream(request), get_tokenizer("o200k_base"), allowance)
    out = b""
    for piece in pieces:
        out += meter.feed(piece)
        if meter.cut:
            break
    assert meter.cut
    return out, meter.end("cut", error)


def test_a_cut_finish_chunk_is_open_again():
    last = chat_chunk(
        {"content": "one two three", "reasoning_details": [{}]}, "stop", usage={"prompt_tokens": 1}
    )
    out, ending = cut(2, last)
    (shown,) = sse_data(out)
    assert shown["choices"][0]["delta"] == {"content": "one two"}
    assert shown["choices"][0]["finish_reason"] is None
    assert "usage" not in shown
    assert sse_data(ending)[0]["choices"][0]["finish_reason"] == "length"


def test_only_open_choices_are_ended():
    out, ending = cut(
        2,
        chat_chunk({"content": "one"}, "stop", 0),
        chat_chunk({"content": "two"}, index=1),
        chat_chunk({"content": "three"}, index=2),
        n=4,
    )
    finishes = [chunk["choices"][0]["index"] for chunk in sse_data(ending)[:-1]]
    assert finishes == [1, 2]
    assert sse_data(out)[-1]["choices"] == [
        {"index": 2, "delta": {"content": ""}, "logprobs": None, "finish_reason": None}
    ]


def test_a_tool_name_is_dropped_and_never_shortened():
    call = {"index": 0, "id": "c", "function": {"name": "delete_everything_old", "arguments": ""}}
    out, ending = cut(2, chat_chunk({"tool_calls": [call]}))
    assert sse_data(out)[0]["choices"][0]["delta"] == {}
    assert sse_data(ending)[0]["choices"][0]["finish_reason"] == "length"


def test_tool_arguments_are_cut_at_the_token():
    start = {"index": 0, "id": "c", "function": {"name": "get", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"city": "Paris and London"}'}}
    out, _ = cut(5, chat_chunk({"tool_calls": [start]}), chat_chunk({"tool_calls": [more]}))
    arguments = sse_data(out)[1]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
    assert get_tokenizer("o200k_base").count("get" + arguments) == 5


def test_both_names_of_one_reasoning_are_cut():
    out, _ = cut(1, chat_chunk({"reasoning": "one two", "reasoning_content": "one two"}))
    delta = sse_data(out)[0]["choices"][0]["delta"]
    assert delta == {"reasoning": "one", "reasoning_content": "one"}
    assert chat_text(out, key="reasoning") == "one"


def test_strict_and_upstream_errors_are_error_events():
    for reason, error, code in (
        ("strict", OutputBudgetExceededError("over 5 tokens"), "request_budget_exceeded"),
        ("upstream_error", None, "streamguard_error"),
    ):
        state = CHAT.stream(parse(stream=True))
        deltas(state, chat_chunk({"content": "x"}))
        (event,) = sse_data(state.end(reason, Usage(), error))
        assert event["error"]["code"] == code
        assert event["error"]["message"]
        assert state.end("cut", Usage()) == b""


@pytest.mark.parametrize(
    "native",
    [
        sse_event("[DONE]"),
        sse_event({"error": {"message": "overloaded", "code": 503}}),
        sse_event({"message": "overloaded"}, "error"),
        sse_event({**CHAT_HEAD, "error": {"code": 502}, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}),
    ],
)  # fmt: skip
def test_the_streams_own_end_is_seen_and_not_ended_again(native):
    state = CHAT.stream(parse(stream=True))
    assert not state.ended
    assert [frame.raw for frame in state.feed(native)] == [native]
    assert state.ended
    assert state.end("cut", Usage()) == b""


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}, Usage(5, 3, None, None)),
        ({"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}, Usage(5, 0, None, None)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 20}, Usage(5, 15, None, None)),
        (
            {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4},
             "completion_tokens_details": {"reasoning_tokens": 2}},
            Usage(5, 3, 2, 4),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 3, "prompt_cache_hit_tokens": 2}, Usage(5, 3, None, 2)),
        ({"prompt_tokens": "5", "completion_tokens": -3}, Usage()),
        ({"prompt_tokens_details": None, "completion_tokens": True}, Usage()),
        ("odd", Usage()),
    ],
)  # fmt: skip
def test_usage_of_many_hosts(usage, expected):
    state = CHAT.stream(parse(stream=True))
    (frame,) = state.feed(sse_event({**CHAT_HEAD, "choices": [], "usage": usage}))
    assert state.reported == expected
    assert frame.hidden
    reply = CHAT.read_reply(parse(), json.dumps({"choices": [], "usage": usage}).encode())
    assert reply.usage == expected


def test_groq_puts_usage_elsewhere_when_it_was_not_asked_for():
    state = CHAT.stream(parse(stream=True))
    chunk = chat_chunk(
        {}, "stop", x_groq={"id": "r", "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
    )
    (frame,) = state.feed(chunk)
    assert not frame.hidden
    assert state.reported == Usage(2, 1)


def test_usage_beside_a_finish_is_read_and_left_in_place():
    state = CHAT.stream(parse(stream=True))
    chunk = chat_chunk({}, "stop", usage={"prompt_tokens": 2, "completion_tokens": 1})
    (frame,) = state.feed(chunk)
    assert not frame.hidden
    assert state.reported == Usage(2, 1)


def test_the_ending_repeats_what_is_known_of_the_usage():
    request = parse(stream=True, stream_options={"include_usage": True})
    ending = CHAT.stream(request).end("cut", Usage(5, 3, 2, 1))
    assert sse_data(ending)[-2]["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def reply(**message):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()


def test_a_whole_reply_is_read_and_shortened():
    body = reply(content="one two", reasoning_content="hm")
    read = CHAT.read_reply(parse(), body)
    assert read.deltas == [Delta((0, "reasoning"), "hm"), Delta((0, "content"), "one two")]
    assert read.usage == Usage(9, 4, None, None)
    short = json.loads(
        CHAT.shorten_reply(parse(), body, [read.deltas[0], Delta((0, "content"), "one")])
    )
    assert short["choices"][0]["message"]["content"] == "one"
    assert short["choices"][0]["finish_reason"] == "length"
    assert short["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"<html>", b'{"choices": 4}', b"[" * 100_000])
def test_what_is_no_reply_is_an_empty_one(body):
    assert not CHAT.read_reply(parse(), body).deltas
    assert CHAT.read_reply(parse(), body).usage == Usage()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProtocolError("x"), "invalid_request_error"),
        (OutputBudgetExceededError("x"), "invalid_request_error"),
        (WindowBudgetExceededError("x"), "insufficient_quota"),
        (StoreUnavailableError("x"), "server_error"),
    ],
)
def test_refusals_are_openais(error, kind):
    assert CHAT.refusal(error, {"limit": 5}) == {
        "error": {
            "message": "x",
            "type": kind,
            "param": None,
            "code": error.http_code,
            "streamguard": {"limit": 5},
        }
    }


ANY_TEXT = st.none() | st.text(max_size=4) | st.integers() | st.just([{"text": "x"}])
ANY_DELTA = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "content": ANY_TEXT,
        "reasoning": ANY_TEXT,
        "reasoning_content": ANY_TEXT,
        "refusal": ANY_TEXT,
        "role": st.just("assistant"),
        "tool_calls": st.none()
        | st.just([])
        | st.just([{"index": 0, "function": {"arguments": "{"}}]),
        "function_call": st.none() | st.just({"name": "f"}),
        "audio": st.none() | st.just({"transcript": "t"}),
        "obfuscation": st.just("zz"),
    },
)
ANY_CHUNK = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.none() | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.integers(0, 2) | st.none() | st.just("1"),
                    "delta": ANY_DELTA,
                    "message": ANY_DELTA,
                    "finish_reason": st.none() | st.just("stop") | st.integers(),
                },
            ),
            max_size=3,
        ),
        "usage": st.none() | st.just({}) | st.just({"prompt_tokens": 3, "completion_tokens": 2}),
        "x_groq": st.none() | st.just({"usage": {"prompt_tokens": 4}}),
        "error": st.none() | st.just({}) | st.just({"code": 1}),
        "id": st.none() | st.just("chatcmpl-9") | st.just(""),
        "model": st.none() | st.just("m"),
        "created": st.none() | st.just(5),
    },
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(ANY_CHUNK, max_size=4), st.booleans())
def test_the_typed_way_reads_what_the_general_way_does(chunks, asks):
    request = parse(stream=True, stream_options={"include_usage": asks})
    typed, general = CHAT.stream(request), CHAT.stream(request)
    for chunk in chunks:
        data = json.dumps(chunk).encode()
        mine, theirs = typed.read(data, data, ""), JSONStream.read(general, data, data, "")
        assert list(mine.deltas) == list(theirs.deltas)
        assert mine.hidden == theirs.hidden
        assert typed.ended == general.ended
    assert typed.reported == general.reported
    assert finishes(typed) == finishes(general)


def finishes(state):
    chunks = [chunk for chunk in sse_data(state.end("cut", Usage())) if chunk != "[DONE]"]
    return [choice for chunk in chunks for choice in chunk.get("choices", ())]

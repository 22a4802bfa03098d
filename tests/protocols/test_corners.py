"""What single formats do in their corners."""

# ruff: noqa: E501
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.formats import gemini_array, gemini_chunks, gemini_stream, responses_stream
from support.wire import pieces_of, sse_data, sse_event

from streamguard.core.json_lines import ArraySplitter, LineSplitter
from streamguard.core.streams import StreamMeter
from streamguard.core.wire import Delta
from streamguard.errors import OutputBudgetExceededError, ProtocolError
from streamguard.protocols import protocol_named, stream_named
from streamguard.tokenizers import get_tokenizer
from streamguard.usage import Usage

TOKENIZER = get_tokenizer("o200k_base")


def meter(name, allowance=None):
    return StreamMeter(stream_named(name)(), TOKENIZER, allowance)


def deltas(state, *events):
    return [d for event in events for frame in state.feed(event) for d in frame.deltas]


def typed(**event):
    return sse_event(event, event["type"])


# --- splitters of JSON that is no server-sent events


@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.lists(st.text(max_size=3), max_size=2), max_size=3)),
    st.lists(st.integers(0, 400)),
    st.sampled_from([None, 2]),
)  # fmt: skip
def test_array_elements_at_any_split(docs, cuts, indent):
    array = json.dumps(docs, indent=indent).encode()
    splitter = ArraySplitter()
    events = [event for piece in pieces_of(array, cuts) for event in splitter.feed(piece)]
    events += splitter.finish()
    assert b"".join(event.raw for event in events) == array
    assert [json.loads(event.data) for event in events if event.data is not None] == docs


@given(st.lists(st.dictionaries(st.text(), st.text(), max_size=3)), st.lists(st.integers(0, 400)))
def test_lines_at_any_split(docs, cuts):
    text = b"\r\n".join(json.dumps(doc).encode() for doc in docs)
    splitter = LineSplitter()
    events = [event for piece in pieces_of(text, cuts) for event in splitter.feed(piece)]
    events += splitter.finish()
    assert b"".join(event.raw for event in events) == text
    assert [json.loads(event.data) for event in events if event.data is not None] == docs


@pytest.mark.parametrize("kind", [LineSplitter, ArraySplitter])
def test_what_must_be_held_back_is_capped(kind):
    splitter = kind(max_event=10)
    assert list(splitter.feed(b'[{"a":')) == []
    with pytest.raises(ProtocolError, match="over 10 bytes"):
        list(splitter.feed(b'"long"'))


def test_one_line_alone():
    splitter = LineSplitter()
    assert splitter.only(b'{"a":1}\r\n') == b'{"a":1}'
    assert splitter.only(b'{"a":1}\n{}\n') is None
    assert splitter.only(b"  x \n") == b"x" == next(splitter.feed(b"  x \n")).data
    assert splitter.only(b"\n") is None
    assert splitter.only(b"") is None


# --- Gemini


def test_gemini_array_cut_in_its_first_element():
    whole = meter("gemini", 1)
    got = whole.feed(gemini_array(["one two three"])) + whole.end()
    docs = json.loads(got)
    assert docs[0]["candidates"][0]["content"]["parts"][0]["text"] == "one"
    assert docs[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"  ", b"\n \r\n\t", b""])
@pytest.mark.parametrize("form", [gemini_array, gemini_stream])
def test_gemini_streams_may_begin_with_blanks(start, form):
    stream = start + form(["one two"])
    for whole, pieces in (
        (meter("gemini"), [stream]),
        (meter("gemini"), [stream[i : i + 1] for i in range(len(stream))]),
    ):
        assert b"".join(map(whole.feed, pieces)) + whole.finish() == stream
        other_field = form is gemini_stream and start[-1:] in (b" ", b"\t")  # " data" is not "data"
        assert whole.counted == (0 if other_field else 2)
    blank = meter("gemini")
    assert blank.feed(start) + blank.finish() == start


def test_gemini_errors_end_a_stream():
    state = stream_named("gemini")()
    deltas(state, sse_event({"error": {"code": 503}}))
    assert state.ended
    lone = stream_named("gemini")()
    body = b'{"error": {"code": 400, "message": "no"}}'
    assert [frame.raw for frame in lone.feed(body)] == [body]
    assert lone.end("cut", Usage()) == b""
    array = stream_named("gemini")()
    deltas(array, b"[{}\n,")
    assert json.loads(b"[{}\n" + array.end("strict", Usage(), OutputBudgetExceededError("x")))[1][
        "error"
    ]


def test_gemini_array_read_as_one_reply():
    protocol = protocol_named("gemini")
    request = protocol.parse({"contents": []}, "/v1beta/models/m:streamGenerateContent")
    body = gemini_array(["one two", " three"])
    reply = protocol.read_reply(request, body)
    assert [delta.text for delta in reply.deltas] == ["one two", " three"]
    assert reply.usage.fields()[:2] == (7, 90)
    cut = json.loads(protocol.shorten_reply(request, body, [Delta((0, "content"), "one")]))
    texts = [doc["candidates"][0]["content"]["parts"][0]["text"] for doc in cut]
    assert texts == ["one", "", ""]
    assert cut[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert json.loads(protocol.shorten_reply(request, b"[]", [])) == []


def test_gemini_waits_for_every_candidate():
    request = protocol_named("gemini").parse(
        {"contents": [], "generationConfig": {"candidateCount": 2}},
        "/v1beta/models/m:streamGenerateContent",
    )
    state = protocol_named("gemini").stream(request)
    first, second = gemini_chunks([])[0], gemini_chunks([])[0]
    second["candidates"][0]["index"] = 1
    deltas(state, sse_event(first))
    assert not state.ended
    ending = sse_data(protocol_named("gemini").stream(request).end("cut", Usage()))
    assert ending[0]["candidates"][0]["index"] == 0
    deltas(state, sse_event(second))
    assert state.ended


def test_gemini_calls_are_kept_whole_or_dropped():
    call = {"functionCall": {"name": "get", "args": {"city": "Paris"}}}
    doc = gemini_chunks(["one two"])[0]
    doc["candidates"][0]["content"]["parts"].append(call)
    whole = meter("gemini", 3)
    (shown,) = sse_data(whole.feed(sse_event(doc)))
    assert shown["candidates"][0]["content"]["parts"][0] == {"text": "one two"}
    assert len(shown["candidates"][0]["content"]["parts"]) == 2
    assert shown["candidates"][0]["content"]["parts"][1] == {
        "functionCall": {"name": "get", "args": {}}
    }
    none = meter("gemini", 2)
    (shown,) = sse_data(none.feed(sse_event(doc)))
    assert shown["candidates"][0]["content"]["parts"] == [{"text": "one two"}]


# --- Anthropic


def test_anthropic_thinking_tools_and_errors():
    state = stream_named("anthropic")()
    start = {"type": "tool_use", "id": "t", "name": "get", "input": {}}
    found = deltas(
        state,
        typed(
            type="content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}
        ),
        typed(
            type="content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}
        ),
        typed(
            type="content_block_delta", index=0, delta={"type": "signature_delta", "signature": "x"}
        ),
        typed(type="content_block_stop", index=0),
        typed(type="content_block_start", index=1, content_block=start),
        typed(
            type="content_block_delta",
            index=1,
            delta={"type": "input_json_delta", "partial_json": "{}"},
        ),
        typed(type="future_event", index=1),
    )
    assert found == [
        Delta((0, "reasoning"), "hm"),
        Delta((1, "tool"), "get", whole=True),
        Delta((1, "tool"), "{}"),
    ]
    ending = sse_data(state.end("cut", Usage()))
    assert [event.get("index") for event in ending] == [None, 1, None, None]
    failed = stream_named("anthropic")()
    deltas(failed, typed(type="error", error={"type": "overloaded_error", "message": "x"}))
    assert failed.ended


def test_anthropic_a_tool_whose_name_does_not_fit_is_not_begun():
    whole = meter("anthropic", 0)
    start = {"type": "tool_use", "id": "t", "name": "get", "input": {}}
    assert whole.feed(typed(type="content_block_start", index=0, content_block=start)) == b""
    assert [event["type"] for event in sse_data(whole.end())] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


def test_anthropic_text_that_a_block_begins_with_is_cut_too():
    whole = meter("anthropic", 1)
    start = {"type": "text", "text": "one two"}
    (shown,) = sse_data(whole.feed(typed(type="content_block_start", index=0, content_block=start)))
    assert shown["content_block"]["text"] == "one"


# --- Responses


def test_responses_text_that_an_item_begins_with_is_cut_too():
    whole = meter("openai_responses", 1)
    item = {"id": "m", "type": "message", "content": [{"type": "output_text", "text": "one two"}]}
    (shown,) = sse_data(
        whole.feed(typed(type="response.output_item.added", output_index=0, item=item))
    )
    assert shown["item"]["content"][0]["text"] == "one"


def test_responses_texts_of_every_kind():
    state = stream_named("openai_responses")()
    at = {"output_index": 0, "item_id": "i"}
    kinds = {
        "output_text": "content:1",
        "refusal": "refusal:1",
        "reasoning_text": "reasoning:1",
        "reasoning_summary_text": "reasoning:1",
        "audio.transcript": "audio:1",
        "function_call_arguments": "tool",
        "mcp_call_arguments": "tool",
        "custom_tool_call_input": "tool",
        "code_interpreter_call_code": "tool",
    }
    for kind, channel in kinds.items():
        event = typed(
            type=f"response.{kind}.delta", delta="x", content_index=1, summary_index=1, **at
        )
        assert deltas(state, event) == [Delta((0, channel), "x")]
        assert deltas(state, typed(type=f"response.{kind}.done", text="x", **at)) == []
    assert deltas(state, typed(type="response.audio.delta", delta="UklGRg==", **at)) == []
    assert deltas(state, typed(type="response.odd.delta", delta=5, **at)) == []


def test_responses_ending_repeats_what_was_shown():
    state = stream_named("openai_responses")()
    items = [
        {"id": "r", "type": "reasoning", "summary": []},
        {"id": "m", "type": "message", "role": "assistant", "content": []},
        {"id": "f", "type": "function_call", "name": "get", "arguments": ""},
        {"id": "w", "type": "web_search_call"},
    ]
    for index, item in enumerate(items):
        deltas(state, typed(type="response.output_item.added", output_index=index, item=item))
    for index, kind, text in (
        (0, "reasoning_summary_text", "sum"),
        (0, "reasoning_text", "hm"),
        (1, "output_text", "one"),
        (1, "output_text", " two"),
        (1, "refusal", "no"),
        (1, "audio.transcript", "said"),
        (2, "function_call_arguments", '{"a"'),
        (3, "odd", "?"),
    ):
        deltas(state, typed(type=f"response.{kind}.delta", output_index=index, delta=text))
    ending = sse_data(state.end("cut", Usage(5, 4, 1, 2)))
    assert ending[0]["type"] == "response.created"
    done = [event for event in ending if event["type"] == "response.output_text.done"]
    assert [event["text"] for event in done] == ["one two"]
    output = ending[-1]["response"]["output"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": "sum"}]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert output[1]["content"] == [
        {"type": "output_text", "text": "one two", "annotations": []},
        {"type": "refusal", "refusal": "no"},
    ]
    assert output[2]["arguments"] == '{"a"'
    assert {item["status"] for item in output} == {"incomplete"}
    assert ending[-1]["response"]["usage"]["total_tokens"] == 9


def test_responses_shortened_text_is_what_the_ending_repeats():
    whole = meter("openai_responses", 3)
    got = whole.feed(responses_stream(["one two", " three four", " five"])) + whole.end()
    events = sse_data(got)
    assert [e["delta"] for e in events if e["type"].endswith("text.delta")] == ["one two", " three"]
    assert events[-1]["response"]["output"][-1]["content"][0]["text"] == "one two three"
    cut_at_once = meter("openai_responses", 2)
    got = cut_at_once.feed(responses_stream(["one two", " three"])) + cut_at_once.end()
    assert [e["delta"] for e in sse_data(got) if e["type"].endswith("text.delta")] == ["one two"]
    assert [e["sequence_number"] for e in sse_data(got)] == list(range(len(sse_data(got))))


def test_responses_events_without_text_are_written_as_they_are():
    state = stream_named("openai_responses")()
    event = typed(
        type="response.content_part.added", output_index=0, part={"type": "output_text", "text": ""}
    )
    (frame,) = state.feed(event)
    assert sse_data(state.shorten(frame, [])) == sse_data(event)


def test_responses_failures_end_a_stream():
    for event in ({"type": "error", "message": "x"}, {"type": "response.failed", "response": {}}):
        state = stream_named("openai_responses")()
        deltas(state, typed(**event))
        assert state.ended


# --- Ollama, AI SDK, plain


def test_ollama_generate_ends_in_its_own_shape():
    protocol = protocol_named("ollama")
    request = protocol.parse({"model": "m", "prompt": "hi"}, "/api/generate")
    ending = json.loads(protocol.stream(request).end("cut", Usage(5, 2)))
    assert (ending["response"], ending["done"], ending["eval_count"]) == ("", True, 2)
    assert "message" not in ending
    state = protocol.stream(request)
    assert deltas(state, b'{"response":"one","done":false}\n') == [Delta((0, "content"), "one")]
    deltas(state, b'{"error":"x"}\n')
    assert state.ended


def test_ollama_a_cut_last_line_is_not_the_last():
    whole = meter("ollama", 1)
    line = {"message": {"content": "one two"}, "done": True, "done_reason": "stop"}
    first, last = (
        json.loads(text)
        for text in (whole.feed(json.dumps(line).encode() + b"\n") + whole.end()).splitlines()
    )
    assert (first["done"], "done_reason" in first) == (False, False)
    assert (last["done"], last["done_reason"]) == (True, "length")


def test_ai_sdk_tool_input():
    state = stream_named("ai_sdk")()
    found = deltas(
        state,
        sse_event({"type": "reasoning-start", "id": "r"}),
        sse_event({"type": "reasoning-delta", "id": "r", "delta": "hm"}),
        sse_event({"type": "tool-input-start", "toolCallId": "c", "toolName": "get"}),
        sse_event({"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": "{}"}),
        sse_event({"type": "data-custom", "data": {}}),
    )
    assert found == [
        Delta((0, "reasoning:r"), "hm"),
        Delta((0, "tool:c"), "get", whole=True),
        Delta((0, "tool:c"), "{}"),
    ]
    assert [part if part == "[DONE]" else part["type"] for part in sse_data(state.end("cut", Usage()))] == [
        "reasoning-end", "finish", "[DONE]",
    ]  # fmt: skip


def test_ai_sdk_a_tool_whose_name_does_not_fit_is_not_begun():
    whole = meter("ai_sdk", 0)
    assert (
        whole.feed(sse_event({"type": "tool-input-start", "toolCallId": "c", "toolName": "get"}))
        == b""
    )


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)))
def test_plain_bytes_of_any_kind_pass_and_count_alike(data, cuts):
    whole, pieces = meter("plain"), meter("plain")
    assert whole.feed(data) + whole.finish() == data
    assert b"".join(map(pieces.feed, pieces_of(data, cuts))) + pieces.finish() == data
    assert whole.counted == pieces.counted == TOKENIZER.count(data.decode("utf-8", "replace"))


def test_plain_holds_back_half_a_character_only():
    state = stream_named("plain")()
    face = "🙂".encode()
    assert [frame.raw for frame in state.feed(b"a" + face[:3])] == [b"a"]
    assert [frame.raw for frame in state.feed(face[3:])] == [face]
    assert [frame.raw for frame in state.feed(b"\xff")] == [b"\xff"]
    assert [frame.raw for frame in state.feed(b"\xe2\x82")] == []
    assert [frame.raw for frame in state.finish()] == [b"\xe2\x82"]


def test_plain_events_end_at_done_and_keep_their_name():
    state = stream_named("sse")()
    assert deltas(state, sse_event("one\ntwo".replace("\n", " "), "token")) == [
        Delta((0, "content"), "one two")
    ]
    assert deltas(state, b"data:\n\n") == []
    assert deltas(state, sse_event("[DONE]")) == []
    assert state.ended
    assert state.reported == Usage()
    assert state.end("cut", Usage()) == b""
    whole = meter("sse", 2)
    assert (
        whole.feed(b"event: token\ndata: one\ndata: two\n\n")
        == b"event: token\ndata: one\ndata: \n\n"
    )
    assert [frame.raw for frame in stream_named("sse")().finish()] == []


def test_a_plain_event_without_data_is_dropped_when_cut():
    state = stream_named("sse")()
    (comment,) = state.feed(b": ping\n\n")
    assert state.shorten(comment, [Delta((0, "content"), "x")]) == b""


def test_a_data_less_or_broken_frame_is_dropped_when_cut():
    state = stream_named("openai_chat")()
    (comment,) = state.feed(b": ping\n\n")
    assert state.shorten(comment, []) == b""
    (broken,) = state.feed(sse_event("not json"))
    assert state.shorten(broken, []) == b""


def test_headroom_is_tightened_by_counting():
    whole = meter("plain", 100)
    whole.feed(b"The lighthouse keeper wrote his letters on Sundays. ")
    loose = whole.headroom
    whole.sync()
    assert loose < whole.headroom <= 100 - whole.counted


# --- the quick way of reading


NUMBERS = st.none() | st.integers(-1, 3) | st.just("1") | st.booleans()
TEXTS = st.none() | st.text(max_size=3) | st.integers() | st.dictionaries(st.just("a"), st.none())
EVENTS = {
    "anthropic": st.fixed_dictionaries(
        {"type": st.sampled_from(["content_block_delta", "content_block_start", "x", 5])},
        optional={
            "index": NUMBERS,
            "delta": st.dictionaries(st.sampled_from(["text", "thinking", "partial_json", "type"]), TEXTS),
        },
    ),
    "openai_responses": st.fixed_dictionaries(
        {"type": st.sampled_from(["response.output_text.delta", "response.refusal.delta", "error"])},
        optional={
            "output_index": NUMBERS,
            "content_index": NUMBERS,
            "sequence_number": NUMBERS,
            "delta": TEXTS,
            "response": st.just({"id": "r"}) | st.none(),
        },
    ),
}  # fmt: skip


def both_ways(name, events):
    quick, general = stream_named(name)(), stream_named(name)()
    general.quick = lambda data: None
    for event in events:
        assert deltas(quick, sse_event(event)) == deltas(general, sse_event(event))
    assert quick.ended == general.ended
    assert quick.end("cut", Usage()) == general.end("cut", Usage())


@pytest.mark.parametrize("name", EVENTS)
@given(data=st.data())
def test_the_quick_way_reads_what_the_general_way_does(name, data):
    both_ways(name, data.draw(st.lists(EVENTS[name], max_size=4)))


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("anthropic", {"type": "content_block_delta", "index": 0, "delta": {"text": ""}}),
        ("anthropic", {"type": "content_block_delta", "index": -1, "delta": {"text": "x"}}),
        ("anthropic", {"type": "content_block_delta", "delta": {"text": "x", "thinking": "y"}}),
        ("openai_responses", {"type": "response.output_text.delta", "delta": ""}),
        (
            "openai_responses",
            {"type": "response.output_text.delta", "delta": "x", "output_index": -1},
        ),
        (
            "openai_responses",
            {"type": "response.output_text.delta", "delta": "x", "response": {"id": "r"}},
        ),
    ],
)
def test_the_quick_way_leaves_the_odd_to_the_general_way(name, event):
    both_ways(name, [event])

"""The graceful ending: whole sentences near the limit, tool calls always whole."""

# ruff: noqa: E501
from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.formats import FORMATS
from support.texts import CJK, CODE, ENGLISH
from support.wire import (
    chat_chunk,
    chat_stream,
    chat_text,
    pieces_of,
    sse_data,
    sse_event,
    words_of,
)

from streamguard.core.streams import StreamMeter
from streamguard.protocols import protocol_for_path, stream_named
from streamguard.tokenizers import get_tokenizer

TOKENIZER = get_tokenizer("o200k_base")
NAMES = sorted(set(FORMATS) - {"plain"})
ENDS = re.compile(r"[.!?…][\"'”’)\]]*$|[。！？][”’」』）]*$|\n$")


def meter(name, allowance, soft):
    form = FORMATS[name]
    if form.by_name:
        return StreamMeter(stream_named(name)(), TOKENIZER, allowance, soft=soft)
    protocol = protocol_for_path(form.path)
    request = protocol.parse(form.body, form.path)
    return StreamMeter(protocol.stream(request), TOKENIZER, allowance, soft=soft)


def run(whole, pieces):
    out = b""
    for piece in pieces:
        out += whole.feed(piece)
        if whole.cut:
            return out + whole.end("cut")
    return out + whole.finish()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(
    text=st.sampled_from([ENGLISH, CODE, CJK]),
    budget=st.integers(20, 300),
    soft=st.integers(0, 200),
    seed=st.integers(0, 100),
    cuts=st.lists(st.integers(0, 60_000), max_size=30),
)
def test_a_cut_ends_with_a_sentence_where_the_zone_holds_one(name, text, budget, soft, seed, cuts):
    form = FORMATS[name]
    stream = form.build(words_of(text, seed))
    whole = meter(name, budget, soft)
    got = run(whole, pieces_of(stream, cuts))
    if not whole.cut:
        assert got == stream
        return
    shown = form.read(got)
    assert text.startswith(shown)
    assert TOKENIZER.count(shown) == whole.counted <= budget < whole.observed
    assert form.finish(got) == form.cut
    if ENDS.search(shown) is None:  # no sentence ended in the zone: the cut is exact
        assert whole.counted >= budget - 3


def test_it_is_the_last_sentence_and_nothing_waits_outside_the_zone():
    words = ["One two three.", " Four five six.", " Seven", " eight", " nine", " ten", " eleven"]
    whole = meter("openai_chat", 10, 6)
    shown = []
    for word in words:
        shown.append(chat_text(whole.feed(chat_chunk({"content": word}))))
        if whole.cut:
            break
    # " Four five six." is in the zone: it waits until what follows shows that it ended.
    assert shown == ["One two three.", "", " Four five six.", "", ""]
    assert whole.counted == 8
    assert whole.observed == 11
    assert sse_data(whole.end("cut"))[0]["choices"][0]["finish_reason"] == "length"


def test_a_stream_that_fits_loses_nothing_and_comes_out_whole():
    stream = chat_stream(["One two.", " Three", " four"])
    whole = meter("openai_chat", 6, 6)
    assert run(whole, [stream]) == stream
    unfinished = chat_chunk({"content": "One two."}) + chat_chunk({"content": " Three"})
    whole = meter("openai_chat", 6, 6)
    assert whole.feed(unfinished) + whole.finish() == unfinished


def test_a_top_up_moves_the_zone():
    whole = meter("openai_chat", 4, 4)
    assert whole.feed(chat_chunk({"content": "one two"})) == b""
    whole.extend(100)
    later = chat_chunk({"content": " three"})
    assert whole.feed(later) == chat_chunk({"content": "one two"}) + later


def test_keep_alives_and_hidden_usage_wait_their_turn():
    protocol = protocol_for_path("/v1/chat/completions")
    request = protocol.parse({"model": "m", "messages": [], "stream": True}, "")
    whole = StreamMeter(protocol.stream(request), TOKENIZER, 6, soft=6)
    assert whole.feed(b": ping\n\n") == b": ping\n\n"
    held = chat_chunk({"content": "one"})
    usage = sse_event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    assert whole.feed(held + b": ping\n\n" + usage) == b""
    assert whole.feed(sse_event("[DONE]")) == held + b": ping\n\n" + sse_event("[DONE]")


def call_chunks(index, name, arguments, seed=1):
    first = {
        "index": index,
        "id": f"call_{index}",
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }
    yield chat_chunk({"tool_calls": [first]})
    for piece in words_of(arguments, seed, 5):
        yield chat_chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})


def test_what_came_before_a_new_run_of_text_is_complete():
    whole = meter("openai_chat", 9, 9)
    chunks = [
        chat_chunk({"reasoning_content": "one two three"}),
        chat_chunk({"content": "four five"}),
        chat_chunk({"content": " six seven eight nine ten"}),
    ]
    got = run(whole, chunks)
    assert chat_text(got, key="reasoning_content") == "one two three"
    assert chat_text(got) == ""
    assert (whole.counted, whole.observed) == (3, 10)


ARGUMENTS = '{"city": "Paris", "days": 5, "units": "metric", "note": "Bring a coat. Or two."}'


@pytest.mark.parametrize("budget", range(1, 90, 4))
@pytest.mark.parametrize("soft", [0, 10, 100])
def test_no_chat_tool_call_is_cut_inside(budget, soft):
    chunks = [
        chat_chunk({"role": "assistant", "content": "Let me look. "}),
        *call_chunks(0, "get_weather", ARGUMENTS),
        *call_chunks(1, "get_time", ARGUMENTS, 2),
        chat_chunk({}, "tool_calls"),
        sse_event("[DONE]"),
    ]
    whole = meter("openai_chat", budget, soft)
    got = run(whole, chunks)
    calls = {}
    for chunk in sse_data(got):
        for choice in [] if chunk == "[DONE]" else chunk["choices"]:
            for call in choice["delta"].get("tool_calls", []):
                calls.setdefault(call["index"], []).append(call["function"])
    for parts in calls.values():
        assert parts[0]["name"].startswith("get_")
        assert json.loads("".join(part["arguments"] for part in parts))["units"] == "metric"
    finishes = [
        choice["finish_reason"]
        for chunk in sse_data(got)
        if chunk != "[DONE]"
        for choice in chunk["choices"]
    ]
    finish = finishes[-1]
    assert finish == ("length" if whole.cut else "tool_calls")
    assert whole.counted <= budget


@pytest.mark.parametrize("budget", range(1, 60, 3))
def test_no_anthropic_tool_use_is_cut_inside(budget):
    head, *_ = sse_data(FORMATS["anthropic"].build([]))
    text = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    tool = {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {}}
    events = [
        head,
        text,
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Look. "}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": tool},
        *({"type": "content_block_delta", "index": 1,
           "delta": {"type": "input_json_delta", "partial_json": piece}}
          for piece in words_of(ARGUMENTS, 4, 5)),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]  # fmt: skip
    whole = meter("anthropic", budget, 5)
    got = sse_data(run(whole, [sse_event(event, event["type"]) for event in events]))
    blocks = {}
    for event in got:
        if event["type"] == "content_block_start":
            blocks[event["index"]] = [event["content_block"].get("name", ""), ""]
        elif event["type"] == "content_block_delta":
            blocks[event["index"]][1] += event["delta"].get("partial_json", "")
        elif event["type"] == "content_block_stop":
            assert event["index"] in blocks
    reason = next(
        event["delta"]["stop_reason"] for event in got if event["type"] == "message_delta"
    )
    assert reason == ("max_tokens" if whole.cut else "tool_use")
    if 1 in blocks:
        assert blocks[1][0] == "get"
        assert json.loads(blocks[1][1])["days"] == 5
        assert not whole.cut


@pytest.mark.parametrize("budget", range(1, 60, 3))
def test_no_responses_call_is_cut_inside(budget):
    first = sse_data(FORMATS["openai_responses"].build([]))[0]
    item = {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "call_1",
        "name": "get",
        "arguments": "",
        "status": "in_progress",
    }
    at = {"item_id": "fc_1", "output_index": 0}
    events = [
        first,
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *({"type": "response.function_call_arguments.delta", **at, "delta": piece}
          for piece in words_of(ARGUMENTS, 4, 5)),
        {"type": "response.function_call_arguments.done", **at, "arguments": ARGUMENTS},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "arguments": ARGUMENTS}},
        {"type": "response.completed", "response": {**first["response"], "status": "completed"}},
    ]  # fmt: skip
    numbered = [
        sse_event({**event, "sequence_number": at}, event["type"])
        for at, event in enumerate(events)
    ]
    whole = meter("openai_responses", budget, 0)
    got = sse_data(run(whole, numbered))
    assert [event["sequence_number"] for event in got] == list(range(len(got)))
    if whole.cut:
        assert [event["type"] for event in got] == ["response.created", "response.incomplete"]
        assert got[-1]["response"]["output"] == []
    else:
        assert len(got) == len(events)

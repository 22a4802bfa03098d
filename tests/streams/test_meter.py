from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.texts import CJK, CODE, EMOJI, ENGLISH
from support.wire import (
    CHAT_HEAD,
    chat_chunk,
    chat_stream,
    chat_text,
    pieces_of,
    random_pieces,
    sse_data,
    sse_event,
    words_of,
)

from streamguard.core.replies import measure
from streamguard.core.streams import StreamMeter
from streamguard.core.wire import Delta, Reply
from streamguard.errors import OutputBudgetExceededError
from streamguard.protocols import protocol_named
from streamguard.tokenizers import get_tokenizer
from streamguard.usage import Usage

TOKENIZER = get_tokenizer("o200k_base")
TEXTS = {"english": ENGLISH, "code": CODE, "cjk": CJK, "emoji": EMOJI}
USAGE = {"prompt_tokens": 7, "completion_tokens": 900, "total_tokens": 907}


def meter(allowance=None, *, asks=True, **body):
    protocol = protocol_named("openai_chat")
    given_body = {"model": "gpt-4o", "messages": [], "stream": True, **body}
    if asks:
        given_body["stream_options"] = {"include_usage": True}
    request = protocol.parse(given_body, "/v1/chat/completions")
    return StreamMeter(protocol.stream(request), TOKENIZER, allowance)


def run(whole, pieces):
    """What the client gets of these pieces."""
    out = b""
    for piece in pieces:
        out += whole.feed(piece)
        if whole.cut:
            return out + whole.end("cut")
    return out + whole.finish()


@given(
    text=st.sampled_from(list(TEXTS.values())),
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 60_000), max_size=60),
)
def test_uncut_bytes_pass_unchanged_and_the_count_is_exact(text, seed, cuts):
    stream = chat_stream(words_of(text, seed), usage=USAGE)
    for allowance in (None, TOKENIZER.count(text), 10**6):
        whole = meter(allowance)
        assert run(whole, pieces_of(stream, cuts)) == stream
        assert whole.counted == whole.observed == TOKENIZER.count(text)
        assert whole.reported == Usage(7, 900, None, None)
        assert whole.native_end
        assert not whole.cut


@pytest.mark.parametrize("name", TEXTS)
def test_every_budget_is_met_to_the_token(name):
    text = TEXTS[name]
    missed = 0
    for budget in range(1, 301):
        whole = meter(budget)
        got = run(whole, random_pieces(chat_stream(words_of(text, budget)), budget))
        shown = chat_text(got)
        assert text.startswith(shown)
        assert TOKENIZER.count(shown) == whole.counted <= budget < whole.observed
        if whole.counted != budget:  # only where the next character is several tokens
            missed += 1
            assert TOKENIZER.count(shown + text[len(shown)]) > budget
        ending = sse_data(got)[-3:]
        assert ending[0]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
        assert ending[1]["usage"]["completion_tokens"] == whole.counted
        assert ending[2] == "[DONE]"
    assert missed <= {"english": 0, "code": 0, "cjk": 60, "emoji": 150}[name]


@settings(max_examples=60)
@given(
    budget=st.integers(0, 120),
    seed=st.integers(0, 100),
    choices=st.integers(1, 3),
    cuts=st.lists(st.integers(0, 90_000), max_size=40),
)
def test_choices_and_kinds_share_one_allowance(budget, seed, choices, cuts):
    texts = {
        (index, key): words_of(TEXTS[name][:150], seed + index)
        for index in range(choices)
        for key, name in (("reasoning_content", "english"), ("content", "code"), ("refusal", "cjk"))
    }
    parts = []
    for at in range(max(map(len, texts.values()))):
        for (index, key), words in texts.items():
            if at < len(words):
                parts.append(chat_chunk({key: words[at]}, index=index))
    stream = b"".join([*parts, *(chat_chunk({}, "stop", index) for index in range(choices))])
    whole = meter(budget, n=choices)
    got = run(whole, pieces_of(stream, cuts))
    shown = {key: chat_text(got, *key) for key in texts}
    assert sum(map(TOKENIZER.count, shown.values())) == whole.counted <= budget
    assert all("".join(texts[key]).startswith(text) for key, text in shown.items())
    finishes = {
        choice["index"]: choice["finish_reason"]
        for chunk in sse_data(got)
        if chunk != "[DONE]"
        for choice in chunk["choices"]
    }
    assert set(finishes) <= set(range(choices))
    assert set(finishes.values()) == {"length"}
    assert whole.counted == budget or budget - whole.counted < 4


def test_one_frame_with_two_texts_is_cut_in_the_second():
    whole = meter(6)
    frame = chat_chunk({"reasoning_content": "one two three", "content": "four five six seven"})
    got = whole.feed(frame) + whole.end()
    assert chat_text(got, key="reasoning_content") == "one two three"
    assert chat_text(got) == "four five six"
    assert (whole.counted, whole.observed) == (6, 7)
    assert (whole.counted_by("reasoning"), whole.counted_by("content")) == (3, 4)


def test_after_the_cut_bytes_are_withheld_but_counted():
    whole = meter(2)
    data = chat_chunk({"content": "one two three"}) + chat_chunk({"content": " four"})
    assert whole.feed(data).count(b"data: ") == 1
    whole.end()
    tail = sse_event({**CHAT_HEAD, "choices": [], "usage": USAGE}) + sse_event("[DONE]")
    assert whole.feed(tail) == b""
    assert whole.finish() == b""
    assert (whole.counted, whole.observed) == (2, 4)
    assert whole.reported.output_tokens == 900
    assert whole.end() == b""


def test_headroom_and_top_up():
    whole = meter(3)
    whole.feed(chat_chunk({"content": "one"}))
    assert whole.headroom == 0
    assert (whole.allowance, whole.counted_at_most, whole.counted) == (3, 3, 1)
    whole.extend(2)
    whole.feed(chat_chunk({"content": " two three four five"}))
    assert not whole.cut
    assert whole.counted == whole.allowance == 5
    whole.feed(chat_chunk({"content": " six"}))
    assert whole.cut
    free = meter(None)
    free.extend(5)
    assert free.allowance is None


def test_first_output_is_the_first_token_and_not_the_role():
    whole = meter(5)
    whole.feed(chat_chunk({"role": "assistant", "content": ""}))
    assert not whole.first_output
    whole.feed(chat_chunk({"content": "one two three four five"}))
    assert whole.first_output


@pytest.mark.parametrize("asks", [True, False])
def test_usage_is_shown_only_to_those_who_asked(asks):
    stream = chat_stream(["hello"], usage=USAGE)
    whole = meter(100, asks=asks)
    got = run(whole, [stream])
    assert (b'"usage"' in got) is asks
    assert whole.reported == Usage(7, 900, None, None)
    without = chat_stream(["hello"])
    assert got == (stream if asks else without)


def test_a_top_up_that_never_comes_ends_before_the_first_token():
    whole = meter(0)
    first = sse_event({**CHAT_HEAD, "choices": [], "prompt_filter_results": []})
    got = whole.feed(first)
    assert got == first
    got += whole.end("cut", OutputBudgetExceededError("over 0", limit=0, used=0))
    role, finish, usage, done = sse_data(got)[1:]
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert role["id"] == finish["id"] == "chatcmpl-1"
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert finish["streamguard"] == {"code": "request_budget_exceeded", "limit": 0, "used": 0}
    assert usage["usage"]["completion_tokens"] == 0
    assert done == "[DONE]"


def test_unterminated_last_event_is_forwarded_and_counted():
    whole = meter(100)
    frame = chat_chunk({"content": "one two"})[:-1]
    assert whole.feed(frame) == b""
    assert whole.finish() == frame
    assert whole.counted == 2
    broken = meter(100)
    assert broken.feed(frame[:-20]) + broken.finish() == frame[:-20]
    assert broken.counted == 0


def test_data_that_is_no_chunk_counts_as_it_stands():
    whole = meter(3)
    assert whole.feed(sse_event("one two")) == sse_event("one two")
    assert whole.counted == whole.counted_by("raw") == 2
    assert whole.feed(sse_event("three four")) == b""
    assert whole.cut


def test_whole_replies_keep_tool_names_whole_and_count_all_reasoning():
    reply = Reply(
        [
            Delta((0, "reasoning:0"), "one two"),
            Delta((0, "reasoning:1"), "three"),
            Delta((1, "tool"), "delete_everything_old", whole=True),
            Delta((1, "tool"), "{}"),
        ]
    )
    whole = measure(reply, TOKENIZER, 100)
    assert (whole.reasoning, whole.kept) == (3, None)
    cut = measure(reply, TOKENIZER, 4)
    assert cut.kept is not None
    assert [delta.text for delta in cut.kept] == ["one two", "three", "", ""]
    assert cut.counted == 3


def test_an_ending_tells_of_the_prompt_what_the_provider_said_or_else_the_guard():
    protocol = protocol_named("openai_chat")
    body = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    request = protocol.parse(body, "")
    for reported, told in ((None, 12), ({"prompt_tokens": 7}, 7)):
        whole = StreamMeter(protocol.stream(request), TOKENIZER, 1, input_tokens=12)
        whole.feed(chat_chunk({"content": "one two"}, usage=reported))
        usage = sse_data(whole.end())[-2]["usage"]
        assert usage == {"prompt_tokens": told, "completion_tokens": 1, "total_tokens": told + 1}

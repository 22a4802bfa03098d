"""What holds for every wire format: nothing is changed until the cut, and the cut is exact."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.formats import FORMATS
from support.texts import CJK, CODE, EMOJI, ENGLISH
from support.wire import pieces_of, random_pieces, words_of

from streamguard.core.streams import StreamMeter
from streamguard.errors import OutputBudgetExceededError
from streamguard.protocols import protocol_for_path, stream_named
from streamguard.tokenizers import get_tokenizer
from streamguard.usage import Usage

TOKENIZER = get_tokenizer("o200k_base")
TEXTS = {"english": ENGLISH, "code": CODE, "cjk": CJK, "emoji": EMOJI}
NAMES = sorted(FORMATS)


def meter(name, allowance=None):
    form = FORMATS[name]
    if form.by_name:
        return StreamMeter(stream_named(name)(), TOKENIZER, allowance)
    protocol = protocol_for_path(form.path)
    request = protocol.parse(form.body, form.path)
    assert request.stream
    return StreamMeter(protocol.stream(request), TOKENIZER, allowance)


def run(whole, pieces):
    out = b""
    for piece in pieces:
        out += whole.feed(piece)
        if whole.cut:
            return out + whole.end("cut")
    out += whole.finish()
    return out + whole.end("cut") if whole.cut else out


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(
    text=st.sampled_from(list(TEXTS.values())),
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 60_000), max_size=60),
)
def test_uncut_bytes_pass_unchanged_and_the_count_is_exact(name, text, seed, cuts):
    stream = FORMATS[name].build(words_of(text[:400], seed))
    tokens = TOKENIZER.count(text[:400])
    for allowance in (None, tokens):
        whole = meter(name, allowance)
        assert run(whole, pieces_of(stream, cuts)) == stream
        assert whole.counted == whole.observed == tokens
        assert not whole.cut
        assert whole.native_end is (name not in {"plain", "sse"})


@pytest.mark.parametrize("name", NAMES)
def test_byte_by_byte(name):
    stream = FORMATS[name].build(words_of(EMOJI[:100] + CODE[:100], 1))
    whole = meter(name)
    assert run(whole, [stream[at : at + 1] for at in range(len(stream))]) == stream
    assert whole.counted == TOKENIZER.count(EMOJI[:100] + CODE[:100])


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_is_exact_and_says_so(name):
    form = FORMATS[name]
    for budget in [*range(25), *range(30, 300, 17)]:
        text = list(TEXTS.values())[budget % 4]
        whole = meter(name, budget)
        got = run(whole, random_pieces(form.build(words_of(text, budget)), budget))
        shown = form.read(got)
        assert text.startswith(shown)
        assert TOKENIZER.count(shown) == whole.counted <= budget < whole.observed
        if whole.counted != budget:
            assert TOKENIZER.count(shown + text[len(shown)]) > budget
        assert form.finish(got) == form.cut
        assert whole.end("cut") == b""


@pytest.mark.parametrize("name", NAMES)
def test_usage_is_read(name):
    whole = meter(name)
    run(whole, [FORMATS[name].build(["hello"])])
    if name in {"plain", "sse", "ai_sdk"}:
        assert whole.reported == Usage()
    else:
        assert whole.reported.fields()[:2] == (7, 90)


@pytest.mark.parametrize("name", NAMES)
def test_an_ending_before_any_byte(name):
    form = FORMATS[name]
    ending = meter(name).end("cut", OutputBudgetExceededError("over", limit=5, used=5))
    if name == "gemini array":  # nothing yet tells that it would have been an array
        form = FORMATS["gemini"]
    assert form.read(ending) == ""
    if name == "ai_sdk":
        assert form.finish(ending) == ["start", "finish", "[DONE]"]
    else:
        assert form.finish(ending) == form.cut
    assert (b'"streamguard":{"code"' in ending) is (name not in {"ai_sdk", "plain"})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reason", ["strict", "upstream_error"])
def test_an_error_ending_tells_the_error(name, reason):
    form = FORMATS[name]
    stream = form.build(["one", " two"])
    whole = meter(name)
    whole.feed(stream[: stream.index(b"two")])
    ending = whole.end(reason, OutputBudgetExceededError("over the budget"))
    assert (b"over the budget" in ending) is (name != "plain")
    assert whole.end("cut") == b""
    silent = meter(name).end("upstream_error")
    assert (b"broke the stream off" in silent) is (name != "plain")


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"plain", "sse"}))
def test_a_finished_stream_is_not_ended_again(name):
    whole = meter(name)
    whole.feed(FORMATS[name].build(["one"]))
    assert whole.native_end
    assert whole.end("cut") == whole.end("strict") == b""


@settings(max_examples=150)
@given(
    name=st.sampled_from(NAMES),
    cuts=st.lists(st.integers(0, 3000), max_size=20),
    noise=st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=6)), max_size=4),
    budget=st.integers(0, 40) | st.none(),
)
def test_damaged_streams_never_crash(name, cuts, noise, budget):
    """Bytes written over at random: uncut they pass unchanged, at every split alike."""
    stream = bytearray(FORMATS[name].build(words_of(ENGLISH[:120], 3)))
    for at, data in noise:
        stream[at % len(stream) : at % len(stream) + len(data)] = data
    whole = meter(name, budget)
    got = run(whole, pieces_of(bytes(stream), cuts))
    other = meter(name)
    assert run(other, [bytes(stream)]) == bytes(stream)
    if not whole.cut:
        assert got == bytes(stream)
        assert whole.counted == other.counted
    else:
        assert whole.counted <= budget

"""The meter: exact at every prefix, at any chunking, lazy, linear, bounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.hostile import any_texts, chunked, run, runs, texts
from support.texts import CODE, ENGLISH

from streamguard.core import metering
from streamguard.core.metering import TextMeter, utf8_bytes
from streamguard.core.prefixes import is_boundary
from streamguard.core.tokens import Tokenizer
from streamguard.tokenizers import get_tokenizer

NAMES = ["o200k_base", "cl100k_base"]
O200K = get_tokenizer("o200k_base")


class Spy:
    """Notes how much is tokenized."""

    def __init__(self, tokenizer: Tokenizer = O200K, name: str = "") -> None:
        self.name = name or tokenizer.name
        self.max_token_bytes = tokenizer.max_token_bytes
        self.calls: list[int] = []
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        self.calls.append(len(text))
        return self._tokenizer.count(text)

    def encode(self, text: str) -> list[int]:
        self.calls.append(len(text))
        return self._tokenizer.encode(text)

    def token_bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token)  # type: ignore[attr-defined]


def fed(*pieces: str, name: str = "o200k_base") -> TextMeter:
    meter = TextMeter(get_tokenizer(name))
    for piece in pieces:
        meter.feed(piece)
    return meter


def prefixes(text: str) -> Iterator[str]:
    """Every prefix that does not end inside a surrogate pair, shortest first."""
    return (text[:end] for end in range(len(text) + 1) if is_boundary(text, end))


@pytest.mark.parametrize("name", NAMES)
@given(pieces=chunked())
@example(pieces=["internation", "al"])
@example(pieces=["import", "r"])
@example(pieces=["a \n", " \n", "b"])
@example(pieces=["\ud83d", "\ude00", "\ud83d"])
@example(pieces=["don'", "r", "E", "x"])
@settings(max_examples=150)
def test_exact_and_bounded_after_every_piece(name: str, pieces: list[str]) -> None:
    tokenizer = get_tokenizer(name)
    meter, text = TextMeter(tokenizer), ""
    assert meter.count == meter.upper == meter.lower == 0
    for piece in pieces:
        meter.feed(piece)
        text += piece
        assert meter.upper >= tokenizer.count(text)
        assert meter.count == tokenizer.count(text)
        assert meter.lower <= meter.count <= meter.upper


@pytest.mark.parametrize("name", NAMES)
@given(text=any_texts)
@settings(max_examples=150)
def test_exact_at_every_prefix(name: str, text: str) -> None:
    tokenizer = get_tokenizer(name)
    meter = TextMeter(tokenizer)
    for end in range(1, len(text) + 1):
        meter.feed(text[end - 1])
        assert meter.count == tokenizer.count(text[:end])


@pytest.mark.parametrize("name", NAMES)
@given(
    before=texts,
    middle=runs,
    after=texts,
    steps=st.lists(st.integers(1, 900), min_size=1, max_size=40),
    ask=st.integers(1, 9),
)
@settings(max_examples=60)
def test_exact_in_long_runs(
    name: str, before: str, middle: str, after: str, steps: list[int], ask: int
) -> None:
    tokenizer = get_tokenizer(name)
    meter, end, text = TextMeter(tokenizer), 0, before + middle + after
    for turn, step in enumerate([*steps, len(text)]):
        meter.feed(text[end : end + step])
        end = min(end + step, len(text))
        if turn % ask == 0 or end == len(text):
            assert meter.count == tokenizer.count(text[:end])
            assert meter.lower <= meter.count <= meter.upper


@pytest.mark.parametrize("name", NAMES)
@given(pieces=chunked(), limit=st.integers(0, 25))
@example(pieces=["internation", "al"], limit=1)
@settings(max_examples=120)
def test_would_exceed_is_exact_and_feeds_nothing(name: str, pieces: list[str], limit: int) -> None:
    tokenizer = get_tokenizer(name)
    meter, text = TextMeter(tokenizer), ""
    for piece in pieces:
        assert meter.would_exceed(limit, piece) == (tokenizer.count(text + piece) > limit)
        assert meter.would_exceed(limit) == (tokenizer.count(text) > limit)
        meter.feed(piece)
        text += piece
    assert meter.count == tokenizer.count(text)


@pytest.mark.parametrize("name", NAMES)
@given(fed_before=any_texts, text=any_texts, limit=st.integers(0, 25))
@example(fed_before="", text="international", limit=1)
@example(fed_before="internation", text="al", limit=1)
@example(fed_before="", text="internation", limit=1)
@example(fed_before="\ud83d", text="\ude00", limit=1)
@example(fed_before="", text="x\ud83d\ude00", limit=2)
@settings(max_examples=120)
def test_take_is_the_longest_prefix_that_fits(
    name: str, fed_before: str, text: str, limit: int
) -> None:
    tokenizer = get_tokenizer(name)
    meter = fed(fed_before, name=name)
    fitting = [part for part in prefixes(text) if tokenizer.count(fed_before + part) <= limit]
    assert meter.take(text, limit) == (fitting[-1] if fitting else "")
    assert meter.count == tokenizer.count(fed_before)


@pytest.mark.parametrize("kind", ["letter", "spaces", "signs", "letters", "han"])
def test_take_inside_a_long_run(kind: str) -> None:
    text = "So: " + run(kind, 3000)
    limit = O200K.count(text) * 2 // 3
    fitting = [end for end in range(len(text)) if O200K.count(text[:end]) <= limit]
    taken = fed().take(text, limit)
    assert len(taken) == fitting[-1]
    assert O200K.count(taken) == limit


@pytest.mark.parametrize("limit", [0, 1, 2, 50, 299, 300])
@pytest.mark.parametrize("text", [ENGLISH, CODE], ids=["english", "code"])
def test_take_from_a_long_text(text: str, limit: int) -> None:
    taken = fed().take(text * 40, limit)
    assert O200K.count(taken) == limit
    assert O200K.count((text * 40)[: len(taken) + 1]) > limit


def test_nothing_is_tokenized_while_the_bytes_fit() -> None:
    spy = Spy()
    meter = TextMeter(spy)
    for start in range(0, 4000, 4):
        assert not meter.would_exceed(4000, CODE[start % 400 :][:4])
        meter.feed(CODE[start % 400 :][:4])
        meter.feed("")
    assert spy.calls == []
    assert meter.upper == 4000


def test_a_stream_to_its_limit_is_tokenized_about_log_limit_times() -> None:
    spy = Spy()
    meter, text, limit = TextMeter(spy), ENGLISH * 30, 8000
    for start in range(0, len(text), 4):
        if meter.would_exceed(limit, text[start : start + 4]):
            break
        meter.feed(text[start : start + 4])
    assert meter.count == limit
    assert len(spy.calls) < 120
    assert sum(spy.calls) < 2 * len(text)


@pytest.mark.parametrize("kind", ["letter", "spaces", "letters", "signs", "chinese", "line ends"])
def test_an_endless_run_is_tokenized_a_fixed_number_of_times(kind: str) -> None:
    """Work per character and memory stay the same when the run is four times as long."""
    work, kept = [], []
    for length in (12_000, 48_000):
        spy = Spy()
        meter = TextMeter(spy)
        text = run(kind, length)
        for start in range(0, length, 5):
            meter.feed(text[start : start + 5])
        assert meter.count == O200K.count(text)
        work.append(sum(spy.calls) / length)
        kept.append(len(meter._open))
    assert work[1] < 1.5 * work[0]
    assert max(kept) < 1500


def test_only_the_unsettled_rest_is_kept() -> None:
    meter = TextMeter(O200K)
    for start in range(0, 200_000, 7):
        meter.feed((ENGLISH * 2)[start % 1000 :][:7])
        assert len(meter._open) < 100
        assert sum(map(len, meter._pending)) <= 4200


def test_long_questions_are_decided_without_reading_them_through() -> None:
    spy = Spy()
    meter = TextMeter(spy)
    assert meter.would_exceed(100, "a" * 100_000)
    assert spy.calls == []
    assert meter.would_exceed(1000, ENGLISH * 30)
    assert sum(spy.calls) < 9000
    assert not meter.would_exceed(20_000, ENGLISH * 30)
    assert meter.upper == 0


def test_what_only_the_scan_settles_is_settled_in_a_stream() -> None:
    meter = TextMeter(O200K)
    for _ in range(3000):
        meter.feed("❤️")
    assert len(meter._open) < 3000
    assert meter.count == O200K.count("❤️" * 3000)


def test_a_look_from_outside_leaves_the_meter_as_it_is() -> None:
    meter = fed("one ", "two", " three")
    pending = list(meter._pending)
    assert meter.nearly == 3
    assert meter._pending == pending

    hopeless = fed("\n", *[" " * 1000] * 30)
    assert hopeless.nearly == hopeless.upper > hopeless.count


def test_a_copy_goes_its_own_way() -> None:
    meter = fed("one ", "two")
    other = meter.copy()
    other.feed(" three")
    meter.feed(" four five")
    assert (meter.count, other.count) == (4, 3)


def test_other_encodings_are_counted_whole() -> None:
    spy = Spy(name="somebody/elses")
    meter = TextMeter(spy)
    for start in range(0, len(ENGLISH), 5):
        meter.feed(ENGLISH[start : start + 5])
    assert spy.calls == []
    assert meter.count == O200K.count(ENGLISH)
    assert meter.upper == utf8_bytes(ENGLISH)
    assert meter.would_exceed(meter.count - 1)


def test_what_nothing_settles_ends_as_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "_HOPELESS", 20_000)
    meter = fed("\n")
    for _ in range(300):
        meter.feed(" " * 100)
    assert len(meter._open) < 21_000
    assert O200K.count("\n" + " " * 30_000) < meter.count <= 30_001


@given(any_texts)
def test_bytes_are_those_of_the_text_with_replacement_characters(text: str) -> None:
    if text == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"):
        assert utf8_bytes(text) == len(text.encode())
    else:
        assert utf8_bytes(text) == sum(
            3 if "\ud800" <= character <= "\udfff" else len(character.encode())
            for character in text
        )

"""Settled positions are settled: no continuation changes what is before them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from support.hostile import any_texts, runs, texts
from support.texts import CODE, ENGLISH

from streamguard.core.pretokens import grammar_for
from streamguard.core.segments import pieces
from streamguard.tokenizers import get_tokenizer

NAMES = ["o200k_base", "cl100k_base"]


def assert_settled(name: str, text: str, position: int, rest: str) -> None:
    encode = get_tokenizer(name).encode
    whole = encode(text + rest)
    assert encode(text[:position]) + encode(text[position:] + rest) == whole


@pytest.mark.parametrize("name", NAMES)
@given(text=any_texts, rest=any_texts)
@example(text="don'r", rest="E")
@example(text="don'rE", rest="")
@example(text="!\n", rest="/x")
@example(text="a\n ", rest="\nb")
@example(text="  x", rest="")
@example(text="字ABC", rest="d")
@example(text="字'", rest="s")
@settings(max_examples=200)
def test_pairs_are_settled(name: str, text: str, rest: str) -> None:
    grammar = grammar_for(name)
    assert grammar
    for end in range(len(text) + 1):
        if position := grammar.settled(text[:end]):
            assert_settled(name, text[:end], position, text[end:] + rest)


@pytest.mark.parametrize("name", NAMES)
@given(text=texts, rest=any_texts)
@example(text=" \n  xy", rest="")
@example(text="字ABC12", rest="d")
@example(text="\u0301AAAA!!!", rest="x")
@example(text="x'ſab! ", rest="c")
@settings(max_examples=200)
def test_the_scan_is_settled(name: str, text: str, rest: str) -> None:
    grammar = grammar_for(name)
    assert grammar
    if position := grammar.scanned(text):
        assert_settled(name, text, position, rest)


@pytest.mark.parametrize("name", NAMES)
@given(text=runs, rest=any_texts)
@settings(max_examples=60)
def test_the_scan_is_settled_in_long_runs(name: str, text: str, rest: str) -> None:
    grammar = grammar_for(name)
    assert grammar
    if position := grammar.scanned(text):
        assert_settled(name, text, position, rest)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [ENGLISH, CODE], ids=["english", "code"])
def test_ordinary_text_is_settled_but_for_its_last_word(name: str, text: str) -> None:
    grammar = grammar_for(name)
    assert grammar
    unsettled = [end - grammar.settled(text[:end]) for end in range(40, len(text))]
    assert max(unsettled) < 40
    assert sum(unsettled) / len(unsettled) < 9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text", ["❤️" * 40, "''s" * 40, "1" * 99, "!a" * 50, "é!è" * 30, "\u0301x!" * 30]
)
def test_the_scan_finds_what_pairs_do_not(name: str, text: str) -> None:
    grammar = grammar_for(name)
    assert grammar
    found = grammar.scanned(text)
    assert found > (0 if name == "cl100k_base" and "❤" in text else len(text) - 20) - 1


def test_a_start_keeps_the_search_to_what_is_new() -> None:
    grammar = grammar_for("o200k_base")
    assert grammar
    assert grammar.settled("one two", 2) == 3
    assert grammar.settled("one two", 4) == 0
    assert grammar.settled("don'rEx", 4) == 0


def test_other_encodings_have_no_grammar() -> None:
    assert grammar_for("p50k_base") is None


@pytest.mark.parametrize("name", NAMES)
@given(text=any_texts)
def test_pieces_are_tokenized_as_if_alone(name: str, text: str) -> None:
    grammar = grammar_for(name)
    assert grammar
    encode = get_tokenizer(name).encode
    parts = list(pieces(text, grammar, 8))
    assert "".join(parts) == text
    assert [token for part in parts for token in encode(part)] == encode(text)

"""Counts and ids equal tiktoken's on any text, with both engines."""

from __future__ import annotations

from functools import cache

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.hostile import RUNS, any_texts, run
from support.texts import ENGLISH

from streamguard.core.tokens import Tokenizer
from streamguard.tokenizers import get_tokenizer
from streamguard.tokenizers.encodings import ENCODINGS, encoding_spec
from streamguard.tokenizers.fast import FastTokenizer
from streamguard.tokenizers.reference import load_reference
from streamguard.tokenizers.vocabulary import load_vocabulary

NAMES = ["o200k_base", "cl100k_base"]


@cache
def plain_tiktoken(name: str) -> tiktoken.Encoding:
    """tiktoken itself, nothing of ours but the verified vocabulary."""
    spec = encoding_spec(name)
    return tiktoken.Encoding(
        name,
        pat_str=spec.pattern,
        mergeable_ranks={token: rank for rank, token in enumerate(load_vocabulary(spec))},
        special_tokens=dict(spec.special_tokens),
    )


@cache
def engines(name: str) -> list[Tokenizer]:
    fast = get_tokenizer(name)
    assert isinstance(fast, FastTokenizer)
    return [fast, fast.reference]


@pytest.mark.parametrize("name", NAMES)
@given(text=any_texts)
@example(text="x'ſy 'ſ'ſ ſ")
@example(text="<|endoftext|><|endofprompt|><|im_start|>")
@example(text="\U000323b0a\n//\u088f")
@example(text=" \n ")
@example(text="")
def test_ids_are_tiktokens(name: str, text: str) -> None:
    expected = plain_tiktoken(name).encode_ordinary(text)
    for tokenizer in engines(name):
        assert tokenizer.encode(text) == expected
        assert tokenizer.count(text) == len(expected)
    assert b"".join(map(engines(name)[0].token_bytes, expected)).decode() == text.encode(
        "utf-16", "surrogatepass"
    ).decode("utf-16", "replace")


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
@settings(max_examples=300)
def test_any_characters_in_the_places_where_their_class_matters(
    name: str, chars: list[str]
) -> None:
    text = "".join(f"a{c}b {c}A1{c}2 .{c}\n{c}'s{c} \n {c}" for c in chars)
    expected = plain_tiktoken(name).encode_ordinary(text)
    assert engines(name)[0].encode(text) == expected


def test_harmony_has_the_ids_of_o200k() -> None:
    harmony, o200k = get_tokenizer("o200k_harmony"), get_tokenizer("o200k_base")
    assert harmony.encode(ENGLISH) == o200k.encode(ENGLISH)
    assert harmony.name == "o200k_harmony"
    assert set(ENCODINGS) == {"o200k_base", "o200k_harmony", "cl100k_base"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", RUNS)
def test_long_runs_are_exact_with_both_engines(name: str, kind: str) -> None:
    text = "See " + run(kind, 70_000) + " and more."
    expected = plain_tiktoken(name).encode_ordinary(text)
    for tokenizer in engines(name):
        assert tokenizer.count(text) == len(expected)
        assert tokenizer.encode(text) == expected


@pytest.mark.parametrize("name", NAMES)
def test_long_prose_is_exact_with_both_engines(name: str) -> None:
    text = (ENGLISH + "\nEl niño — “quoted” 漢字 😀 and \ud800 'ſ x'ſy.\n") * 60
    expected = plain_tiktoken(name).encode_ordinary(text)
    for tokenizer in engines(name):
        assert tokenizer.count(text) == len(expected)
        assert tokenizer.encode(text) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_million_spaces_that_make_tiktoken_panic(name: str) -> None:
    text = " " * 1_200_000
    fast, reference = engines(name)
    assert fast.count(text) == reference.count(text) == len(reference.encode(text))
    assert fast.count(text) <= 10_000


def test_what_tiktoken_cannot_settle_is_bounded_by_its_bytes() -> None:
    text = "\n" + " " * 450_000
    reference = load_reference(encoding_spec("o200k_base"))
    assert get_tokenizer("o200k_base").count(text) < reference.count(text) == len(text)
    assert len(reference.encode(text)) < 10_000

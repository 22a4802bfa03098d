"""Long runs: tokens that no continuation can change, and the facts that rests on."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hostile import RUNS, any_texts, run

from streamguard.core import runs
from streamguard.core.characters import classify
from streamguard.core.runs import fold_run
from streamguard.core.segments import segments
from streamguard.core.tokens import Tokenizer
from streamguard.tokenizers import get_tokenizer
from streamguard.tokenizers.encodings import encoding_spec
from streamguard.tokenizers.vocabulary import load_vocabulary

NAMES = ["o200k_base", "cl100k_base"]


def is_first(byte: int) -> bool:
    """Whether a character starts with this byte."""
    return not 0x80 <= byte < 0xC0


def ends_inside(token: bytes) -> bool:
    """Whether a token ends in the middle of a character."""
    for back, byte in enumerate(reversed(token[-4:]), 1):
        if is_first(byte):
            return back < (1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
    return False


@pytest.mark.parametrize("name", NAMES)
def test_the_straddlers_are_all_the_tokens_that_start_and_end_inside_characters(name: str) -> None:
    straddlers = {
        token
        for token in load_vocabulary(encoding_spec(name))
        if not is_first(token[0]) and any(map(is_first, token)) and ends_inside(token)
    }
    assert straddlers
    assert all(runs._RULES[name].straddlers.fullmatch(token) for token in straddlers)
    assert runs._RULES[name].straddlers.pattern.count(b"|") == len(straddlers) - 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lead", [runs._LOWER_LEAD, runs._SIGN_LEAD])
def test_no_token_holds_the_end_of_a_lead_and_what_follows(name: str, lead: str) -> None:
    if (name, lead) == ("cl100k_base", runs._LOWER_LEAD):
        assert all(used != lead for _, used in runs._RULES[name].kinds)
        return
    end = lead[-1].encode()
    endings = [end[start:] for start in range(len(end))]
    for token in load_vocabulary(encoding_spec(name)):
        for ending in endings:
            assert not (
                token.startswith(ending)
                and len(token) > len(ending)
                and is_first(token[len(ending)])
            )


def test_leads_are_of_the_class_they_stand_for() -> None:
    assert classify(runs._LOWER_LEAD) == "a"
    assert classify(runs._SIGN_LEAD) == "$$"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("before", ["", " ", "x", "X", "!!", "字"])
def test_runs_fold_to_a_short_rest(name: str, kind: str, before: str) -> None:
    *_, last = segments(get_tokenizer(name), before + run(kind, 3000), 1500)
    if name == "o200k_base" and before == "字" and RUNS[kind].isupper():
        assert len(last.text) == 3001  # whether 字 is a pretoken depends on what comes after
    else:
        assert len(last.text) <= 1500


@pytest.mark.parametrize("name", NAMES)
@given(
    kind=st.sampled_from(sorted(RUNS)),
    length=st.integers(1100, 1800),
    before=st.sampled_from(["", "", " ", "x", "X", "!", "!!", " !", "字", "\n", "\t", "'"]),
    rest=any_texts,
)
@settings(max_examples=120)
def test_a_fold_is_settled(name: str, kind: str, length: int, before: str, rest: str) -> None:
    tokenizer = get_tokenizer(name)
    text = before + run(kind, length)
    fold = fold_run(tokenizer, text)
    if fold is None:
        return
    assert 0 < fold.position < len(text)
    for end in (0, 1, len(rest)):
        after = fold.lead + text[fold.position :] + rest[:end]
        assert fold.tokens + tokenizer.count(after) == tokenizer.count(text + rest[:end])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["letters", "signs", "han"])
def test_most_runs_do_fold(name: str, kind: str) -> None:
    assert fold_run(get_tokenizer(name), run(kind, 2000)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "a" * 900,
        "ქართული" * 200,
        "უ" * 2000,
        "\n" + " " * 2000,
        "a1" * 1000,
        "\U000323b0" * 2000,
        "",
    ],
    ids=["short", "georgian", "straddlers", "blanks after a line end", "digits", "unsure", "empty"],
)
def test_what_cannot_be_proved_is_left(text: str) -> None:
    assert fold_run(get_tokenizer("o200k_base"), text) is None


class _Mute:
    """A tokenizer that cannot spell its tokens."""

    name = "o200k_base"
    max_token_bytes = 128

    def count(self, text: str) -> int:
        return len(text)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


class _Other(_Mute):
    name = "other"


def test_needs_a_known_tokenizer_that_spells() -> None:
    assert fold_run(_Mute(), "a" * 2000) is None
    assert fold_run(_Other(), "a" * 2000) is None
    assert [part.text for part in segments(_Other(), "a b " * 99, 9)] == ["a b " * 99]


class _Fickle:
    """Never the same first token twice: nothing can be settled."""

    name = "o200k_base"
    max_token_bytes = 128

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._calls = 0
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        return self._tokenizer.count(text)

    def encode(self, text: str) -> list[int]:
        self._calls += 1
        return [token + self._calls for token in self._tokenizer.encode(text)]

    def token_bytes(self, token: int) -> bytes:
        return b"aaaaaaaa"


@pytest.mark.parametrize("text", ["a" * 4000, "a" * 1100, "X" * 900 + "a" * 1025])
def test_an_edge_that_moves_is_not_settled(text: str) -> None:
    assert fold_run(_Fickle(get_tokenizer("o200k_base")), text) is None


@pytest.mark.parametrize("name", NAMES)
@given(pieces=st.lists(st.sampled_from(sorted(RUNS)), min_size=1, max_size=3), rest=any_texts)
@settings(max_examples=40)
def test_segments_have_the_tokens_of_the_whole(name: str, pieces: list[str], rest: str) -> None:
    encode = get_tokenizer(name).encode
    text = "".join(run(kind, 1700) for kind in pieces) + rest
    ids: list[int] = []
    ends = [0]
    for segment in segments(get_tokenizer(name), text, 1200):
        ids += encode(segment.text)[len(encode(segment.lead)) :]
        ends.append(ends[-1] + len(segment.text) - len(segment.lead))
    assert ids == encode(text)
    assert ends[-1] == len(text)
    assert all(a <= b for a, b in pairwise(ends))

"""The public output counter."""

from __future__ import annotations

import pytest
from support.texts import ENGLISH

from streamguard.tokenizers import get_tokenizer
from streamguard.tokenizers.counter import OutputCounter


@pytest.mark.parametrize(
    ("name", "encoding", "exact"),
    [
        ("gpt-4o", "o200k_base", True),
        ("gpt-4", "cl100k_base", True),
        ("claude-sonnet-4-5", "o200k_base", False),
        ("cl100k_base", "cl100k_base", True),
        ("o200k_harmony", "o200k_harmony", True),
    ],
)
def test_takes_a_model_or_an_encoding(name: str, encoding: str, exact: bool) -> None:
    counter = OutputCounter(name)
    assert (counter.encoding, counter.exact) == (encoding, exact)


def test_counts_and_cuts_a_stream_at_the_exact_token() -> None:
    counter = OutputCounter("gpt-4o")
    kept = ""
    for start in range(0, len(ENGLISH), 3):
        delta = ENGLISH[start : start + 3]
        if counter.would_exceed(100, delta):
            kept += counter.take(delta, 100)
            counter.feed(counter.take(delta, 100))
            break
        kept += delta
        counter.feed(delta)
    tokenizer = get_tokenizer("o200k_base")
    assert counter.count == tokenizer.count(kept) == 100
    assert tokenizer.count(ENGLISH[: len(kept) + 1]) == 101
    assert counter.would_exceed(99)
    assert not counter.would_exceed(100)

"""Bounds, the cache of counts, and sampling for batch jobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hostile import any_texts
from support.texts import CODE, ENGLISH

from streamguard.core.bounds import fits, least_tokens
from streamguard.core.count_cache import CountCache
from streamguard.core.counting import count_prompt
from streamguard.core.metering import utf8_bytes
from streamguard.core.prompt import Part, Prompt
from streamguard.core.sampling import SampledCounts
from streamguard.tokenizers import get_tokenizer

O200K = get_tokenizer("o200k_base")
CL100K = get_tokenizer("cl100k_base")


class Counting:
    """Counts how often it is asked."""

    max_token_bytes = 128

    def __init__(self, name: str = "o200k_base") -> None:
        self.name = name
        self.asked: list[str] = []

    def count(self, text: str) -> int:
        self.asked.append(text)
        return O200K.count(text)

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError


@given(parts=st.lists(any_texts, max_size=4), limit=st.integers(0, 200))
def test_bounds_are_right_where_they_decide(parts: list[str], limit: int) -> None:
    size = sum(map(utf8_bytes, parts))
    tokens = sum(map(O200K.count, parts))
    assert least_tokens(size, O200K) <= tokens <= size
    assert fits(size, limit, O200K) in {None, tokens <= limit}


def test_bounds_decide_at_both_ends() -> None:
    assert fits(100, 100, O200K) is True
    assert fits(101, 100, O200K) is None
    assert fits(12_800, 100, O200K) is None
    assert fits(12_801, 100, O200K) is False


def test_an_append_only_conversation_costs_its_new_turn() -> None:
    tokenizer, cache = Counting(), CountCache()
    turns = [Part("history", f"{turn}: {ENGLISH}") for turn in range(10)]
    before = count_prompt(Prompt(tuple(turns)), tokenizer, cache)
    tokenizer.asked.clear()

    new = Part("user", "And now? " + CODE)
    after = count_prompt(Prompt((*turns, new)), tokenizer, cache)

    assert tokenizer.asked == [new.text]
    assert after.input_tokens == before.input_tokens + O200K.count(new.text)
    assert after.input_tokens == sum(O200K.count(part.text) for part in (*turns, new))


def test_the_cache_tells_encodings_apart() -> None:
    cache = CountCache()
    chinese = "你好世界" * 300
    for _ in range(2):
        assert cache(O200K, chinese) == O200K.count(chinese)
        assert cache(CL100K, chinese) == CL100K.count(chinese) != O200K.count(chinese)
    assert cache.entries == 2


def test_short_texts_are_not_worth_an_entry() -> None:
    cache, tokenizer = CountCache(), Counting()
    assert cache(tokenizer, "Hello") == cache(tokenizer, "Hello") == 1
    assert len(tokenizer.asked) == 2
    assert cache.entries == 0


def test_the_least_recently_used_goes_first() -> None:
    cache, tokenizer = CountCache(max_entries=2), Counting()
    first, second, third = (f"{number} {ENGLISH}" for number in range(3))
    for text in (first, second, first, third, first, second):
        assert cache(tokenizer, text) == O200K.count(text)
    assert tokenizer.asked == [first, second, third, second]
    assert cache.entries == 2


def test_the_cache_is_bounded_by_bytes() -> None:
    cache, tokenizer = CountCache(max_bytes=10_000), Counting()
    for number in range(20):
        cache(tokenizer, f"{number} {ENGLISH}")
        assert cache.size <= 10_000
    assert 2 <= cache.entries <= 6
    cache(tokenizer, ENGLISH * 10)
    assert (cache.entries, cache.size) == (0, 0)
    assert cache(tokenizer, ENGLISH + "\ud800") == O200K.count(ENGLISH + "\ud800")


def test_a_text_that_two_threads_count_at_once_is_kept_once() -> None:
    cache = CountCache()

    class Racing(Counting):
        def count(self, text: str) -> int:
            if not self.asked:
                self.asked.append(text)
                cache(self, text)
            return super().count(text)

    tokenizer = Racing()
    assert cache(tokenizer, ENGLISH) == O200K.count(ENGLISH)
    size = cache.size
    assert cache(tokenizer, ENGLISH) == O200K.count(ENGLISH)
    assert (cache.entries, cache.size) == (1, size)
    assert len(tokenizer.asked) == 3


def test_threads_share_the_cache() -> None:
    cache = CountCache(max_entries=8)
    texts = [f"{number} {ENGLISH}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda number: cache(O200K, texts[number % 16]), range(400)))
    assert counts == [O200K.count(texts[number % 16]) for number in range(400)]
    assert cache.entries == 8


def test_a_sample_stands_for_uniform_texts() -> None:
    tokenizer, sampled = Counting(), SampledCounts(learn=20, every=10)
    texts = [f"Classify ticket {number}: the parcel {number * 7} is late." for number in range(500)]
    exact = [O200K.count(text) for text in texts]
    counts = [sampled(tokenizer, text) for text in texts]

    assert len(tokenizer.asked) == 20 + 48
    assert counts[:20] == exact[:20]
    assert all(count >= true for count, true in zip(counts, exact, strict=True))
    assert sum(counts) <= 1.15 * sum(exact)


@pytest.mark.parametrize("odd", ["字典" * 30, "x" * 400, "!?" * 40])
def test_texts_of_another_kind_are_counted(odd: str) -> None:
    tokenizer, sampled = Counting(), SampledCounts(learn=5, every=2)
    for number in range(10):
        sampled(tokenizer, f"Is order {number} late, and by how much?")
    tokenizer.asked.clear()
    counts = [sampled(tokenizer, odd) for _ in range(4)]
    assert len(tokenizer.asked) >= 3
    assert counts[-1] == O200K.count(odd)


def test_a_denser_text_in_the_sample_starts_the_learning_anew() -> None:
    tokenizer, sampled = Counting(), SampledCounts(learn=5, every=2)
    for number in range(5):
        sampled(tokenizer, f"Is order {number} late, and by how much?")
    tokenizer.asked.clear()
    counts = [sampled(tokenizer, "!a?b" * 5) for _ in range(4)]
    assert len(tokenizer.asked) == 4
    assert counts == [O200K.count("!a?b" * 5)] * 4


def test_a_sampled_count_is_never_below_what_is_possible() -> None:
    tokenizer, sampled = Counting(), SampledCounts(learn=1, every=100)
    sampled(tokenizer, " " * 120)
    assert sampled(tokenizer, " " * 200) >= 2
    assert sampled(tokenizer, "") == 0

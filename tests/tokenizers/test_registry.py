"""Loading: once, in a thread where asked, with either engine."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
import toktok

from streamguard.core.tokens import Tokenizer
from streamguard.errors import ConfigurationError
from streamguard.tokenizers import (
    get_tokenizer,
    is_loaded,
    registry,
    warm_up,
)
from streamguard.tokenizers.encodings import encoding_spec
from streamguard.tokenizers.fast import FastTokenizer, load_fast
from streamguard.tokenizers.reference import ReferenceTokenizer, load_reference


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_loaded", {})


def test_a_tokenizer_is_what_the_core_asks_for() -> None:
    tokenizer = get_tokenizer("o200k_base")
    assert isinstance(tokenizer, Tokenizer)
    assert get_tokenizer("o200k_base") is tokenizer
    assert repr(tokenizer) == "<tokenizer o200k_base by toktok>"


def test_unknown_encodings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no encoding 'o300k'"):
        get_tokenizer("o300k")


@pytest.mark.usefixtures("nothing_loaded")
def test_many_threads_load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    start = threading.Barrier(8)

    def slow_load(spec):
        loads.append(spec.name)
        return load_fast(spec)

    def use(_: int) -> Tokenizer:
        start.wait()
        return get_tokenizer("cl100k_base")

    monkeypatch.setattr(registry, "load_fast", slow_load)
    with ThreadPoolExecutor(8) as pool:
        tokenizers = set(pool.map(use, range(8)))

    assert loads == ["cl100k_base"]
    assert len(tokenizers) == 1


@pytest.mark.usefixtures("nothing_loaded")
def test_warm_up_loads_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def noting_load(spec):
        threads.append(threading.get_ident())
        return load_fast(spec)

    async def main() -> None:
        assert not is_loaded("cl100k_base")
        await warm_up(["cl100k_base"])
        assert is_loaded("cl100k_base")
        await warm_up(["cl100k_base"])

    monkeypatch.setattr(registry, "load_fast", noting_load)
    anyio.run(main)
    assert len(threads) == 1
    assert threads != [threading.get_ident()]


@pytest.mark.usefixtures("nothing_loaded")
def test_warm_up_can_load_the_reference_too(monkeypatch: pytest.MonkeyPatch) -> None:
    anyio.run(lambda: warm_up(["cl100k_base"], reference=True))
    tokenizer = get_tokenizer("cl100k_base")
    assert isinstance(tokenizer, FastTokenizer)
    assert tokenizer._reference is not None


@pytest.mark.usefixtures("nothing_loaded")
def test_without_toktok_tiktoken_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toktok", None)
    anyio.run(lambda: warm_up(["cl100k_base"], reference=True))
    tokenizer = get_tokenizer("cl100k_base")
    assert isinstance(tokenizer, ReferenceTokenizer)
    assert repr(tokenizer) == "<tokenizer cl100k_base by tiktoken>"
    assert tokenizer.count("Hello, world") == 3


class _Impostor:
    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens = tokens

    def token_byte_values(self) -> list[bytes]:
        return self.tokens


@pytest.mark.parametrize("broken", ["other vocabulary", "no encoder", "unknown name"])
def test_a_toktok_that_is_not_as_expected_is_not_used(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = encoding_spec("cl100k_base")
    if broken == "other vocabulary":
        monkeypatch.setattr(toktok, "_encoding", lambda _: _Impostor([b"a", b"b"]))
    elif broken == "no encoder":
        monkeypatch.delattr(toktok, "_encoding")
    else:
        monkeypatch.setattr(toktok, "_encoding", {}.__getitem__)
    assert load_fast(spec) is None


def test_the_reference_is_loaded_by_the_first_text_that_needs_it() -> None:
    tokenizer = load_fast(encoding_spec("cl100k_base"))
    assert tokenizer is not None
    assert tokenizer.count("Straße, naïve — 漢字 😀") > 0
    assert tokenizer.count("lone \ud800 surrogate") == tokenizer.count("lone \ufffd surrogate")
    assert tokenizer._reference is None

    long_s = load_reference(encoding_spec("cl100k_base")).encode("x'ſy")
    assert tokenizer.encode("x'ſy") == long_s
    assert tokenizer._reference is not None

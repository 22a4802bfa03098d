"""The vocabularies in the package: right, verified, and never from the network."""

from __future__ import annotations

import lzma
import subprocess
import sys

import pytest
import tiktoken_ext.openai_public as published

from streamguard.errors import ConfigurationError
from streamguard.tokenizers import vocabulary
from streamguard.tokenizers.encodings import ENCODINGS, encoding_spec
from streamguard.tokenizers.vocabulary import load_vocabulary, unpack, verify


@pytest.mark.parametrize("name", ENCODINGS)
def test_patterns_special_tokens_and_sums_are_the_published_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = {}

    def no_download(_: str, expected_hash: str) -> dict[bytes, int]:
        sums[name] = expected_hash
        return {}

    monkeypatch.setattr(published, "load_tiktoken_bpe", no_download)
    theirs = published.ENCODING_CONSTRUCTORS[name]()
    spec = encoding_spec(name)

    assert spec.pattern == theirs["pat_str"]
    assert dict(spec.special_tokens) == theirs["special_tokens"]
    assert spec.sha256 == sums[name]


@pytest.mark.parametrize(("name", "size"), [("o200k_base", 199_998), ("cl100k_base", 100_256)])
def test_loads_the_whole_vocabulary(name: str, size: int) -> None:
    spec = encoding_spec(name)

    tokens = load_vocabulary(spec)

    assert len(tokens) == len(set(tokens)) == size
    assert max(map(len, tokens)) == spec.max_token_bytes
    assert {bytes([byte]) for byte in range(256)} <= set(tokens)


def test_unpacks() -> None:
    assert unpack(b"\0\0\0\3" + b"\1\3\2" + b"abcdef") == [b"a", b"bcd", b"ef"]


def test_an_unknown_encoding_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"no encoding 'p50k'.*o200k_harmony"):
        encoding_spec("p50k")


def test_other_tokens_fail_the_check() -> None:
    spec = encoding_spec("cl100k_base")
    tokens = load_vocabulary(spec)
    tokens[70_000], tokens[70_001] = tokens[70_001], tokens[70_000]

    with pytest.raises(ConfigurationError, match=f"from somewhere has sha256 .*{spec.sha256}"):
        verify(spec, tokens, "somewhere")


@pytest.mark.parametrize("data", [b"not xz", lzma.compress(b"\0\0\0\1\1a")])
def test_damaged_data_is_a_configuration_error(
    data: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    (tmp_path / "vocab").mkdir()
    (tmp_path / "vocab" / "o200k_base.xz").write_bytes(data)
    monkeypatch.setattr(vocabulary, "files", lambda _: tmp_path)

    with pytest.raises(ConfigurationError, match="reinstall"):
        load_vocabulary(encoding_spec("o200k_harmony"))


def test_missing_data_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(vocabulary, "files", lambda _: tmp_path)

    with pytest.raises(ConfigurationError, match=r"cannot read vocab/cl100k_base\.xz"):
        load_vocabulary(encoding_spec("cl100k_base"))


@pytest.mark.parametrize("engine", ["toktok", "tiktoken"])
def test_every_encoding_loads_and_counts_with_sockets_forbidden(engine: str) -> None:
    script = f"""
import socket, sys
if {engine!r} == "tiktoken":
    sys.modules["toktok"] = None
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket = socket.create_connection = socket.getaddrinfo = refuse
from streamguard.tokenizers import get_tokenizer
for name in ("o200k_base", "o200k_harmony", "cl100k_base"):
    tokenizer = get_tokenizer(name)
    assert {engine!r} in repr(tokenizer)
    print(tokenizer.name, tokenizer.count("Hello, world"), tokenizer.encode("Hello, world"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "o200k_base 3 [13225, 11, 2375]",
        "o200k_harmony 3 [13225, 11, 2375]",
        "cl100k_base 3 [9906, 11, 1917]",
    ]

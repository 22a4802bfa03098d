"""Tokenizers of Hugging Face models, from a local ``tokenizer.json``; never from the network.

Needs the extra ``streamguard[huggingface]``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from streamguard.core.characters import without_surrogates
from streamguard.core.tokens import NEVER, Tokenizer
from streamguard.errors import ConfigurationError

_SPACE = "\u2581"
"""What SentencePiece writes for a space; three bytes where the vocabulary lacks it."""

_GROWS = {
    "NFC": 3, "NFD": 4, "NFKC": 16, "NFKD": 16, "Precompiled": 16, "Lowercase": 2, "Strip": 1,
    "StripAccents": 1, "Nmt": 1, "BertNormalizer": 12, "Split": 1, "Digits": 1, "Punctuation": 1,
    "Whitespace": 1, "WhitespaceSplit": 1, "BertPreTokenizer": 1, "CharDelimiterSplit": 1,
    "UnicodeScripts": 1,
}  # fmt: skip
"""At most so many bytes (of tokens) a step makes of one. Sources: UAX #15, table 4, for the normal
forms (U+FDFA is the worst, with its spaces); BERT puts spaces around characters of NFD text.
"""

_UNKNOWN = 64
_KEEPS = frozenset({"ByteLevel", "Split", "Digits"})
"""Steps of which no byte gets lost."""


def _steps(step: Any) -> list[Mapping[str, Any]]:
    """The single steps of a normalizer or pre-tokenizer."""
    if not isinstance(step, Mapping):
        return []
    inner = step.get("normalizers", step.get("pretokenizers"))
    return [each for one in inner for each in _steps(one)] if inner is not None else [step]


def _growth(step: Mapping[str, Any], *, space_is_token: bool) -> int:
    kind = str(step.get("type"))
    if kind == "ByteLevel":
        return 2 if step.get("add_prefix_space", True) else 1
    text = {"Replace": "content", "Prepend": "prepend"}.get(kind)
    if text is not None:
        added = str(step.get(text, ""))
        size = 1 if added == _SPACE and space_is_token else len(added.encode())
        return max(1, size) if kind == "Replace" else 1 + size
    if kind == "Metaspace":
        return 2 if space_is_token else 6
    return _GROWS.get(kind, _UNKNOWN)


def bounds_of(spec: Mapping[str, Any]) -> tuple[int, bool]:
    """What a ``tokenizer.json`` says of bounds: the most tokens of a byte, and whether every byte
    is in some token (so that long texts surely have many).
    """
    model = spec.get("model") or {}
    vocab = model.get("vocab") or {}
    steps = [*_steps(spec.get("normalizer")), *_steps(spec.get("pre_tokenizer"))]
    space_is_token = isinstance(vocab, Mapping) and _SPACE in vocab
    grows = prod(_growth(step, space_is_token=space_is_token) for step in steps)
    split = all(step.get("behavior", "Isolated") == "Isolated" for step in steps)
    whole = model.get("type") == "BPE" and model.get("unk_token") is None
    byte_level = any(step.get("type") == "ByteLevel" for step in steps)
    keeps = {str(step.get("type")) for step in steps} <= _KEEPS
    return grows, split and whole and byte_level and keeps


class HuggingFaceTokenizer:
    """A ``Tokenizer`` over the ``tokenizers`` package: takes any ``str``, never raises.

    Texts are encoded without the special tokens that a model's template adds, and special-token
    look-alikes as plain text. Truncation and padding that the file asks for are off.

    Attributes:
        expansion: the most tokens that a UTF-8 byte can make: 1 where the text is cut as it is,
            more where the file normalizes it first.
    """

    __slots__ = ("_encode", "expansion", "max_token_bytes", "name")

    def __init__(self, name: str, tokenizer: Any) -> None:
        """``tokenizer`` is a ``tokenizers.Tokenizer``; it is changed to count whole texts."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self.name = name
        self.expansion, keeps = bounds_of(json.loads(tokenizer.to_str()))
        longest = max((len(token.encode()) for token in tokenizer.get_vocab()), default=1)
        self.max_token_bytes = longest if keeps else NEVER
        self._encode = tokenizer.encode

    def __repr__(self) -> str:
        return f"<tokenizer {self.name}>"

    def count(self, text: str) -> int:
        """Tokens of the whole text."""
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        """The token ids, without special tokens."""
        try:
            ids: list[int] = self._encode(text, add_special_tokens=False).ids
        except TypeError:  # what the package says of a lone surrogate
            ids = self._encode(without_surrogates(text), add_special_tokens=False).ids
        return ids


def load_huggingface(path: str | Path) -> Tokenizer:
    """The tokenizer in a ``tokenizer.json``; its name holds the start of the file's sha256.

    Raises:
        ConfigurationError: the extra is not installed, or the file is not there or not one.
    """
    try:
        from tokenizers import Tokenizer as Reader
    except ImportError:
        message = "Hugging Face tokenizers need an extra: pip install 'streamguard[huggingface]'"
        raise ConfigurationError(message) from None
    try:
        raw = Path(path).read_bytes()
        tokenizer = Reader.from_buffer(raw)
    except OSError as error:
        raise ConfigurationError(f"cannot read the tokenizer file {path}: {error}") from error
    except Exception as error:
        message = f"{path} is not a Hugging Face tokenizer.json; give the file, not its folder"
        raise ConfigurationError(message) from error
    return HuggingFaceTokenizer(f"huggingface-{hashlib.sha256(raw).hexdigest()[:12]}", tokenizer)


def tokenizer_at(path: str | Path) -> Tokenizer:
    """``load_huggingface``, once for a file as long as it is not written anew.

    Raises:
        ConfigurationError: see ``load_huggingface``.
    """
    try:
        changed = Path(path).stat().st_mtime_ns
    except OSError as error:
        raise ConfigurationError(f"cannot read the tokenizer file {path}: {error}") from error
    return _tokenizer_at(str(path), changed)


@lru_cache(maxsize=64)
def _tokenizer_at(path: str, _changed: int) -> Tokenizer:
    return load_huggingface(path)

"""Tokenizers of Hugging Face models, from a local ``tokenizer.json``; never from the network.

Needs the extra ``streamguard[huggingface]``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from streamguard.core.characters import without_surrogates
from streamguard.core.tokens import Tokenizer
from streamguard.errors import ConfigurationError


class HuggingFaceTokenizer:
    """A ``Tokenizer`` over the ``tokenizers`` package: takes any ``str``, never raises.

    Texts are encoded without the special tokens that a model's template adds, and special-token
    look-alikes as plain text. Truncation and padding that the file asks for are off.
    """

    __slots__ = ("_encode", "max_token_bytes", "name")

    def __init__(self, name: str, tokenizer: Any) -> None:
        """``tokenizer`` is a ``tokenizers.Tokenizer``; it is changed to count whole texts."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self.name = name
        self.max_token_bytes = max((len(t.encode()) for t in tokenizer.get_vocab()), default=1)
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

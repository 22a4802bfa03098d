"""Tokenizers by encoding or model: loaded once, on first use or by ``warm_up``."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple

import anyio.to_thread

from streamguard.core.tokens import Tokenizer
from streamguard.tokenizers.encodings import NEWEST, encoding_spec
from streamguard.tokenizers.fast import FastTokenizer, load_fast
from streamguard.tokenizers.models import encoding_for_model
from streamguard.tokenizers.reference import load_reference


class ModelTokenizer(NamedTuple):
    """A model's tokenizer; ``exact`` when it is known to be the model's own."""

    tokenizer: Tokenizer
    exact: bool


_loaded: dict[str, Tokenizer] = {}
_loading = Lock()


def get_tokenizer(encoding: str) -> Tokenizer:
    """The tokenizer of an encoding; the first call loads it (some 0.3 s, no network).

    toktok where it is installed, else tiktoken: the same counts either way.

    Raises:
        ConfigurationError: no such encoding, or its vocabulary is damaged.
    """
    return _loaded.get(encoding) or _load(encoding)


def _load(encoding: str) -> Tokenizer:
    spec = encoding_spec(encoding)
    with _loading:
        if encoding not in _loaded:
            _loaded[encoding] = load_fast(spec) or load_reference(spec)
        return _loaded[encoding]


def tokenizer_for_model(model: str) -> ModelTokenizer:
    """The tokenizer of a model and whether it is known to be the model's own.

    Unknown models get the newest encoding, not exact.

    Raises:
        ConfigurationError: the vocabulary is damaged.
    """
    found = encoding_for_model(model)
    return ModelTokenizer(get_tokenizer(found.encoding), found.exact)


def is_loaded(encoding: str) -> bool:
    """Whether ``get_tokenizer`` would return at once."""
    return encoding in _loaded


async def warm_up(encodings: Iterable[str] = (NEWEST,), *, reference: bool = False) -> None:
    """Load encodings in a thread: the event loop goes on, and first requests don't wait.

    Args:
        encodings: their names.
        reference: also load tiktoken beside toktok (65 MB for o200k): otherwise the first text
            with one of the rare characters that need it does, which takes some 0.3 s.

    Raises:
        ConfigurationError: no such encoding, or its vocabulary is damaged.
    """
    for encoding in encodings:
        if reference or not is_loaded(encoding):
            await anyio.to_thread.run_sync(_warm, encoding, reference)


def _warm(encoding: str, reference: bool) -> None:
    tokenizer = get_tokenizer(encoding)
    if reference and isinstance(tokenizer, FastTokenizer):
        _ = tokenizer.reference

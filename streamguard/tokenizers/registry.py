"""Tokenizers by encoding or model: loaded once, on first use or by ``warm_up``."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple

import anyio.to_thread

from streamguard.core.tokens import Tokenizer
from streamguard.tokenizers.encodings import NEWEST, EncodingSpec, encoding_spec
from streamguard.tokenizers.engines import Engine, load_engine
from streamguard.tokenizers.models import encoding_for_model


class BpeTokenizer:
    """A ``Tokenizer`` over an engine: takes any ``str``, never raises."""

    __slots__ = ("_count", "_encode", "max_token_bytes", "name")

    def __init__(self, spec: EncodingSpec, engine: Engine) -> None:
        self.name = spec.name
        self.max_token_bytes = spec.max_token_bytes
        self._count = engine.count
        self._encode = engine.encode_ordinary

    def __repr__(self) -> str:
        return f"<tokenizer {self.name}>"

    def count(self, text: str) -> int:
        """Tokens of the whole text."""
        try:
            return self._count(text)
        except UnicodeEncodeError:
            return self._count(without_surrogates(text))

    def encode(self, text: str) -> list[int]:
        """The token ids, equal to tiktoken's ``encode_ordinary``."""
        try:
            return self._encode(text)
        except UnicodeEncodeError:
            return self._encode(without_surrogates(text))


class ModelTokenizer(NamedTuple):
    """A model's tokenizer; ``exact`` when it is known to be the model's own."""

    tokenizer: Tokenizer
    exact: bool


def without_surrogates(text: str) -> str:
    """Surrogate pairs become the character they stand for, lone surrogates U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_loaded: dict[str, Tokenizer] = {}
_engines: dict[str, Engine] = {}
_loading = Lock()


def get_tokenizer(encoding: str) -> Tokenizer:
    """The tokenizer of an encoding; the first call loads it (some 0.3 s, no network).

    Raises:
        ConfigurationError: no such encoding, or its vocabulary is damaged.
    """
    return _loaded.get(encoding) or _load(encoding)


def _load(encoding: str) -> Tokenizer:
    spec = encoding_spec(encoding)
    with _loading:
        if spec.name not in _loaded:
            if spec.vocabulary not in _engines:
                _engines[spec.vocabulary] = load_engine(spec)
            _loaded[spec.name] = BpeTokenizer(spec, _engines[spec.vocabulary])
        return _loaded[spec.name]


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


async def warm_up(encodings: Iterable[str] = (NEWEST,)) -> None:
    """Load encodings in a thread, so that the event loop goes on and first requests don't wait.

    Raises:
        ConfigurationError: no such encoding, or its vocabulary is damaged.
    """
    for encoding in encodings:
        if not is_loaded(encoding):
            await anyio.to_thread.run_sync(get_tokenizer, encoding)

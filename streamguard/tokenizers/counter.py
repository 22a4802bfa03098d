"""The public output counter: a text meter with a model's tokenizer."""

from __future__ import annotations

from streamguard.core.metering import TextMeter
from streamguard.tokenizers.encodings import ENCODINGS
from streamguard.tokenizers.own import Paths, Tokenizers
from streamguard.tokenizers.registry import ModelTokenizer, get_tokenizer


class OutputCounter:
    """Counts a model's output as it streams in.

    ``count`` is exact for all text fed so far under the chosen encoding; ``exact`` says whether
    that encoding is known to be the model's own.

    >>> counter = OutputCounter("gpt-4o")
    >>> counter.feed("Hello")
    >>> counter.feed(", world")
    >>> counter.count
    3
    >>> counter.take("! And more.", limit=5)
    '! And'
    """

    __slots__ = ("_meter", "encoding", "exact")

    def __init__(self, model_or_encoding: str, *, tokenizers: Paths | None = None) -> None:
        """Take a model's name (``gpt-4o``) or an encoding's (``o200k_base``).

        ``tokenizers`` are names or patterns of models with the paths of their own
        ``tokenizer.json``, as in a guard's settings.

        Raises:
            ConfigurationError: the vocabulary is damaged, or the file is no tokenizer.
        """
        tokenizer, self.exact = _resolve(model_or_encoding, Tokenizers(tokenizers))
        self.encoding = tokenizer.name
        self._meter = TextMeter(tokenizer)

    def feed(self, text: str) -> None:
        """Add text."""
        self._meter.feed(text)

    @property
    def count(self) -> int:
        """Tokens of all text fed so far."""
        return self._meter.count

    def would_exceed(self, limit: int, text: str = "") -> bool:
        """Whether the text fed, followed by ``text``, is over ``limit`` tokens."""
        return self._meter.would_exceed(limit, text)

    def take(self, text: str, limit: int) -> str:
        """The longest prefix of ``text`` that stays within ``limit`` tokens in all.

        Nothing is fed: feed what you keep.
        """
        return self._meter.take(text, limit)


def _resolve(name: str, own: Tokenizers) -> ModelTokenizer:
    if name in ENCODINGS:
        return ModelTokenizer(get_tokenizer(name), exact=True)
    return own.for_model(name)

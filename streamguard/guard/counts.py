"""How a guard may be told to count prompts: options and their checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, get_args

from streamguard.core.wire import Request
from streamguard.errors import ConfigurationError
from streamguard.tokenizers.own import Tokenizers

Counting = Literal["exact", "sampled"]
"""Every prompt is counted, or a sample of uniform ones (``core.sampling``)."""

CountRemote = Callable[[Request], Awaitable[int | None]]
"""Asks a provider for a prompt's tokens; ``None`` where it is not this provider's request."""


def check_counting(tokenizers: Any, counting: Any, count_remote: Any) -> None:
    """Refuse options that cannot work.

    Raises:
        ConfigurationError: which one and why.
    """
    if not hasattr(tokenizers, "items"):
        message = f"tokenizers={tokenizers!r} must be a table of models and tokenizer.json paths"
        raise ConfigurationError(message)
    Tokenizers(tokenizers)
    if counting not in get_args(Counting):
        message = f"counting={counting!r}; use one of {get_args(Counting)}"
        raise ConfigurationError(message)
    if count_remote is not None and not callable(count_remote):
        message = (
            f"count_remote={count_remote!r} must be an async callable, such as "
            "streamguard.client.counting.anthropic_counts(client)"
        )
        raise ConfigurationError(message)

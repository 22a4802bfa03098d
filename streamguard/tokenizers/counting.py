"""Counting big texts without holding up the event loop."""

from __future__ import annotations

import anyio.to_thread

from streamguard.core.tokens import Tokenizer
from streamguard.tokenizers.registry import get_tokenizer, warm_up

BIG = 16_384
"""Characters above which a text is counted in a thread: at worst 2 ms of work with toktok."""


async def count_async(text: str, encoding: str) -> int:
    """Tokens of a text; loads the encoding if need be. Long texts are counted in a thread.

    Raises:
        ConfigurationError: no such encoding, or its vocabulary is damaged.
    """
    await warm_up([encoding])
    tokenizer: Tokenizer = get_tokenizer(encoding)
    if len(text) <= BIG:
        return tokenizer.count(text)
    return await anyio.to_thread.run_sync(tokenizer.count, text)

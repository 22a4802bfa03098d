"""A guarded OpenAI client of an upstream, and what its streams say."""

from __future__ import annotations

from typing import Any

import openai

from support.books import Books
from support.upstream import Upstream


def wrapped(upstream: Upstream, book: Books, kind: Any = openai.AsyncOpenAI) -> Any:
    """A client that does not try again by itself."""
    return book.guard.wrap(kind(base_url=upstream.base_url, api_key="k", max_retries=0))


async def drained(stream: Any) -> tuple[str, str | None]:
    """A stream's whole text and its finish reason."""
    text, finish = "", None
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish

"""Decisions by bounds: a byte is at most ``expansion`` tokens, a token ``max_token_bytes``."""

from __future__ import annotations

from streamguard.core.tokens import NEVER, Tokenizer, expansion


def least_tokens(text_bytes: int, tokenizer: Tokenizer) -> int:
    """A text of so many UTF-8 bytes has at least this many tokens."""
    if tokenizer.max_token_bytes >= NEVER:
        return 0
    return -(-text_bytes // tokenizer.max_token_bytes)


def fits(text_bytes: int, limit: int, tokenizer: Tokenizer) -> bool | None:
    """Whether texts of so many UTF-8 bytes in all have at most ``limit`` tokens, if certain.

    ``None`` when only counting can tell. The bytes may be of several texts, each tokenized
    alone.
    """
    if text_bytes * expansion(tokenizer) <= limit:
        return True
    if least_tokens(text_bytes, tokenizer) > limit:
        return False
    return None

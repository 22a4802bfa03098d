"""Decisions by bounds: a token is at least one UTF-8 byte and at most ``max_token_bytes``."""

from __future__ import annotations

from streamguard.core.tokens import Tokenizer


def least_tokens(text_bytes: int, tokenizer: Tokenizer) -> int:
    """A text of so many UTF-8 bytes has at least this many tokens."""
    return -(-text_bytes // tokenizer.max_token_bytes)


def fits(text_bytes: int, limit: int, tokenizer: Tokenizer) -> bool | None:
    """Whether texts of so many UTF-8 bytes in all have at most ``limit`` tokens, if certain.

    ``None`` when only counting can tell. The bytes may be of several texts, each tokenized
    alone.
    """
    if text_bytes <= limit:
        return True
    if least_tokens(text_bytes, tokenizer) > limit:
        return False
    return None

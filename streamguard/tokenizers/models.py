"""Which encoding a model uses, and whether that is known or only the nearest one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from streamguard.core.families import base_model
from streamguard.tokenizers.encodings import NEWEST


class ModelEncoding(NamedTuple):
    """An encoding's name; ``exact`` when it is known to be the model's own."""

    encoding: str
    exact: bool


_END = r"(?:$|[-_@])"
_RULES: tuple[tuple[re.Pattern[str], ModelEncoding], ...] = tuple(
    (re.compile(pattern), ModelEncoding(encoding, exact))
    for pattern, encoding, exact in (
        (rf"gpt-oss{_END}", "o200k_harmony", True),
        (rf"(?:chat)?gpt-4o{_END}", "o200k_base", True),
        (rf"gpt-4\.[15]{_END}", "o200k_base", True),
        (rf"gpt-5(?:\.\d+)?{_END}", "o200k_base", True),
        (rf"o[134]{_END}", "o200k_base", True),
        (rf"codex-mini{_END}", "o200k_base", True),
        (rf"gpt-4{_END}", "cl100k_base", True),
        (rf"gpt-3\.?5{_END}", "cl100k_base", True),
        (rf"text-embedding-(?:3-small|3-large|ada-002){_END}", "cl100k_base", True),
        (rf"(?:davinci|babbage)-002{_END}", "cl100k_base", True),
        (
            r"(?:text|code)-(?:davinci|curie|babbage|ada|cushman|search|similar)",
            "cl100k_base",
            False,
        ),
        (r"(?:davinci|curie|babbage|ada)$|gpt-?2(?:$|-)", "cl100k_base", False),
        (r"(?:davinci|cushman)-codex", "cl100k_base", False),
    )
)


@lru_cache(maxsize=1024)
def encoding_for_model(model: str) -> ModelEncoding:
    """The encoding of a model; the newest one, not exact, for any model that is not known.

    Loads nothing. Source: tiktoken's ``model.py``, and OpenAI's model list for what it lags.
    """
    name = base_model(model)
    for pattern, found in _RULES:
        if pattern.match(name):
            return found
    return ModelEncoding(NEWEST, exact=False)

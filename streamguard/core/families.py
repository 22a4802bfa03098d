"""Which family a model belongs to: how its prompts are rendered and how sure a count is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from streamguard.usage import Method


class Family(NamedTuple):
    """A group of models whose prompts are billed alike.

    ``ratio`` scales token counts of the nearest public encoding, ``margin`` is the fraction
    added on top so that under-counts are rare; both are fitted for calibrated families.
    """

    name: str
    method: Method = "exact"
    ratio: float = 1.0
    margin: float = 0.0


CLASSIC = Family("gpt")
"""GPT-3.5 to GPT-4.5 and the o-series: one message format since 2023."""

HARMONY = Family("gpt-5")
"""GPT-5 and newer: the format that OpenAI published with gpt-oss, under ``openai/harmony``."""

UNKNOWN = Family("unknown", "calibrated", 1.0, 0.25)
"""Other tokenizers (Llama, Qwen, Mistral, DeepSeek, …): most need up to a fifth more tokens
than o200k for English and code; other scripts vary more, hence the margin."""

_RULES: tuple[tuple[re.Pattern[str], Family], ...] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"gpt-(?:[5-9]|\d\d)[\d.]*-chat", CLASSIC),
        (r"gpt-(?:[5-9]|\d\d)", HARMONY),
        (r"gpt-[34]|gpt-35|chatgpt|o[1-9](?:$|-)|codex-mini", CLASSIC),
        (r"text-embedding|(?:davinci|babbage)-002|gpt-3\.5-turbo-instruct", CLASSIC),
    )
)
_REGION = re.compile(r"^(?:[a-z-]+\.)*(?:openai|anthropic|google|meta|mistral)\.")


def base_model(model: str) -> str:
    """The bare model name: without provider, region, fine-tuning and variant, lower case."""
    name = model.strip().lower().rsplit("/", 1)[-1].removeprefix("ft:").split(":", 1)[0]
    return _REGION.sub("", name)


@lru_cache(maxsize=1024)
def family_of(model: str) -> Family:
    """The family of a model by its name; ``UNKNOWN`` for any that no rule knows."""
    name = base_model(model)
    return next((family for pattern, family in _RULES if pattern.match(name)), UNKNOWN)


def is_reasoning(model: str) -> bool:
    """Whether OpenAI bills the model's prompts one token less, as it does for reasoning models."""
    name = base_model(model)
    return family_of(model) is HARMONY or bool(re.match(r"o[1-9](?:$|-)", name))

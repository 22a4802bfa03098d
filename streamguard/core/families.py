"""Which family a model belongs to: how its prompts are rendered and how sure a count is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from streamguard.core.estimate import Weights
from streamguard.core.prompt import Part, Prompt
from streamguard.errors import ProtocolError
from streamguard.usage import Method


class Family(NamedTuple):
    """A group of models whose prompts are billed alike.

    ``weights`` estimate texts from the nearest public encoding, ``margin`` is the fraction
    added on top so that under-counts are rare; both are fitted for calibrated families.
    """

    name: str
    method: Method = "exact"
    margin: float = 0.0
    weights: Weights | None = None
    ratio: float = 1.0


CLASSIC = Family("gpt")
"""GPT-3.5 to GPT-4.5 and the o-series: one message format since 2023."""

HARMONY = Family("gpt-5")
"""GPT-5 and newer: the format that OpenAI published with gpt-oss, under ``openai/harmony``."""

CLAUDE = Family("claude", "calibrated", 0.08, Weights(1.01, 1.45, 0.55))
"""Claude 3 to 4.6: one tokenizer."""

CLAUDE_NEW = Family("claude-new", "calibrated", 0.12, Weights(1.15, 1.9, 0.8))
"""Claude Opus 4.7 and newer: a tokenizer that makes more tokens of the same text."""

GEMINI = Family("gemini", "calibrated", 0.05, Weights(1.0, 0.15, 0.55, 1.0))
"""Gemini up to 2.5."""

GEMINI_3 = Family("gemini-3", "calibrated", 0.05, Weights(1.0, 0.15, 0.55, 1.0))
"""Gemini 3 and newer: the same tokenizer, other media."""

GPT_OSS = Family("gpt-oss", "calibrated", 0.02, Weights())
"""OpenAI's open models: their own tokenizer is known, what a host says around a prompt is not."""

UNKNOWN = Family("unknown", "calibrated", 0.2, Weights(1.0, 0.6, 0.3, 0.7))
"""Other tokenizers (Llama, Qwen, Mistral, DeepSeek, …): smaller vocabularies than o200k."""

_RULES: tuple[tuple[re.Pattern[str], Family], ...] = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"gpt-oss", GPT_OSS),
        (r"gpt-(?:[5-9]|\d\d)[\d.]*-chat", CLASSIC),
        (r"gpt-(?:[5-9]|\d\d)", HARMONY),
        (r"gpt-[34]|gpt-35|chatgpt|o[1-9](?:$|-)|codex-mini", CLASSIC),
        (r"claude-(?:opus-4-[7-9]|[a-z]+-[5-9])(?!\d)", CLAUDE_NEW),
        (r"claude-(?:instant|2|3|[a-z]+-[34])", CLAUDE),
        (r"claude", CLAUDE_NEW),
        (r"gemini-(?:[012]|pro|flash|embedding-0)|gemma|text-embedding-00", GEMINI),
        (r"gemini", GEMINI_3),
        (r"text-embedding|(?:davinci|babbage)-002|gpt-3\.5-turbo-instruct", CLASSIC),
    )
)
_REGION = re.compile(r"^(?:[a-z-]+\.)*(?:openai|anthropic|google|meta|mistral)\.")


def base_model(model: str) -> str:
    """The bare model name: without provider, region, fine-tuning and variant, lower case.

    ``openai/gpt-4o`` → ``gpt-4o``; ``ft:gpt-4o-mini:org::id`` → ``gpt-4o-mini``;
    ``openai/gpt-oss-20b:free`` → ``gpt-oss-20b``; ``openai.gpt-oss-120b-1:0`` → ``gpt-oss-120b-1``.
    """
    name = model.strip().lower().rsplit("/", 1)[-1].removeprefix("ft:").split(":", 1)[0]
    return _REGION.sub("", name)


@lru_cache(maxsize=1024)
def family_of(model: str) -> Family:
    """The family of a model by its name; ``UNKNOWN`` for any that no rule knows."""
    name = base_model(model)
    return next((family for pattern, family in _RULES if pattern.match(name)), UNKNOWN)


def prompt_of(parts: Iterable[Part], family: Family) -> Prompt:
    """The prompt of a family's model.

    Raises:
        ProtocolError: the body is nested too deeply to be read.
    """
    try:
        whole = tuple(parts)
    except RecursionError:
        raise ProtocolError("the body is nested too deeply; flatten it") from None
    return Prompt(whole, family.method, family.ratio, family.margin, family.weights)


def is_reasoning(model: str) -> bool:
    """Whether OpenAI bills the model's prompts one token less, as it does for reasoning models."""
    name = base_model(model)
    return family_of(model) is HARMONY or bool(re.match(r"o[1-9](?:$|-)", name))

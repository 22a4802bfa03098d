"""From a rendered prompt to its token count: pure arithmetic over a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from streamguard.core.prompt import Prompt, PromptCount
from streamguard.core.tokens import Tokenizer

CountText = Callable[[Tokenizer, str], int]
"""Counts a text, from a cache where it can."""


def count_prompt(
    prompt: Prompt, tokenizer: Tokenizer, cache: CountText | None = None
) -> PromptCount:
    """Count ``prompt`` with ``tokenizer``; the components sum to ``input_tokens``.

    The estimate is each part's text tokens times the prompt's ratio plus its fixed tokens;
    the margin is added on top and rounded up.
    """
    count = cache or _count
    sums: dict[str, float] = {}
    bound = False
    for part in prompt.parts:
        tokens = count(tokenizer, part.text) if part.text else 0
        value = tokens * prompt.ratio + part.tokens
        sums[part.component] = sums.get(part.component, 0.0) + value
        bound = bound or part.bound
    components = _rounded(sums, 1.0 + prompt.margin)
    return PromptCount(
        input_tokens=sum(components.values()),
        method="bound" if bound else prompt.method,
        margin=prompt.margin,
        components=components,
    )


def _count(tokenizer: Tokenizer, text: str) -> int:
    return tokenizer.count(text)


def _rounded(sums: dict[str, float], scale: float) -> dict[str, int]:
    """Whole tokens by component that sum to the rounded-up total."""
    rounded: dict[str, int] = {}
    running, given = 0.0, 0
    for component, value in sums.items():
        running += value * scale
        rounded[component] = max(0, ceil(running - 1e-6) - given)
        given += rounded[component]
    return rounded

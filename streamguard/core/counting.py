"""From a rendered prompt to its token count: pure arithmetic over a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

from streamguard.core.bounds import least_tokens
from streamguard.core.estimate import Estimator
from streamguard.core.families import GPT_OSS
from streamguard.core.metering import utf8_bytes
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.core.tokens import Tokenizer

CountText = Callable[[Tokenizer, str], int]
"""Counts a text, from a cache where it can."""


def count_prompt(
    prompt: Prompt,
    tokenizer: Tokenizer,
    cache: CountText | None = None,
) -> PromptCount:
    """Count ``prompt`` with ``tokenizer``; the components sum to ``input_tokens``.

    Texts are scaled by the prompt's ratio and margin and rounded up; fixed tokens are added.
    The method is "bound" as soon as one part is.
    """
    unit, counter = 1, tokenizer
    if prompt.weights is not None:
        unit, counter = 1000, Estimator(tokenizer, prompt.weights)
    count = cache or _count
    scale = prompt.ratio * (1.0 + prompt.margin) / unit
    texts: dict[str, float] = {}
    fixed: dict[str, int] = {}
    longest = 0
    for part in prompt.parts:
        tokens = count(counter, part.text) if part.text else 0
        texts[part.component] = texts.get(part.component, 0.0) + tokens
        fixed[part.component] = fixed.get(part.component, 0) + part.tokens
        longest = max(longest, ceil(tokens * scale) + part.tokens)
    components = _summed(texts, fixed, scale)
    return PromptCount(
        input_tokens=sum(components.values()),
        method="bound" if any(part.bound for part in prompt.parts) else prompt.method,
        margin=prompt.margin,
        components=components,
        ratio=prompt.ratio,
        longest=longest if prompt.separate else None,
    )


def count_least(prompt: Prompt, tokenizer: Tokenizer) -> PromptCount | None:
    """The fewest tokens ``prompt`` can have, without tokenizing; ``None`` where it is no one exact
    prompt, of which alone that is known.
    """
    inexact = prompt.method != "exact" or prompt.weights is not None or prompt.separate
    if inexact or any(part.bound for part in prompt.parts):
        return None
    least: dict[str, int] = {}
    for part in prompt.parts:
        tokens = least_tokens(utf8_bytes(part.text), tokenizer) + part.tokens
        least[part.component] = least.get(part.component, 0) + tokens
    components = {name: tokens for name, tokens in least.items() if tokens > 0}
    return PromptCount(max(0, sum(least.values())), "bound", components=components, at_least=True)


def with_own_tokenizer(prompt: Prompt) -> Prompt:
    """The prompt where its model's own tokenizer is at hand: texts are exact, only what the host's
    template says around them is not known.
    """
    if prompt.method == "exact":
        return prompt
    return replace(prompt, weights=None, ratio=GPT_OSS.ratio, margin=GPT_OSS.margin)


def _count(tokenizer: Tokenizer, text: str) -> int:
    return tokenizer.count(text)


def _summed(texts: dict[str, float], fixed: dict[str, int], scale: float) -> dict[str, int]:
    """Whole tokens by component: the scaled texts sum to their rounded-up total."""
    components = dict(fixed)
    running, given = 0.0, 0
    for component, value in texts.items():
        running += value * scale
        whole = ceil(running - 1e-6) - given
        given += whole
        components[component] = components[component] + whole
    return {component: max(0, tokens) for component, tokens in components.items() if tokens}

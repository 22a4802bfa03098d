"""Counts prompts with the model's tokenizer, off the event loop when they are big."""

from __future__ import annotations

from dataclasses import replace

import anyio.to_thread

from streamguard.core.counting import CountText, count_prompt
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.core.tokens import Tokenizer
from streamguard.tokenizers import encoding_for_model, get_tokenizer, warm_up

BIG = 32_768
"""Characters above which a prompt is counted in a thread: about 0.3 ms of work."""


class PromptCounter:
    """Counts prompts; parts seen before (system prompts, earlier turns) come from a cache."""

    def __init__(self, cache: CountText | None = None) -> None:
        """``cache`` counts a text, from memory where it can."""
        self._cache = cache

    async def count(self, prompt: Prompt, model: str) -> PromptCount:
        """The prompt's tokens for a model."""
        encoding = encoding_for_model(model).encoding
        await warm_up([encoding])
        tokenizer = get_tokenizer(encoding)
        if sum(len(part.text) for part in prompt.parts) > BIG:
            count = await anyio.to_thread.run_sync(self._count, prompt, tokenizer)
        else:
            count = self._count(prompt, tokenizer)
        return replace(count, model=model)

    def _count(self, prompt: Prompt, tokenizer: Tokenizer) -> PromptCount:
        return count_prompt(prompt, tokenizer, self._cache)

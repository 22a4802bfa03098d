"""Counts prompts with the model's tokenizer, off the event loop when they are big."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import anyio.to_thread

from streamguard.core.calibration import Calibrator
from streamguard.core.count_cache import CountCache
from streamguard.core.counting import CountText, count_prompt
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.guard.assess import Subject
from streamguard.tokenizers import encoding_for_model, get_tokenizer, warm_up

BIG = 32_768
"""Size above which a prompt is rendered and counted in a thread: some 0.3 ms of work."""

_MESSAGE = 64  # what one message costs beside its text, in characters


class Counted(NamedTuple):
    """A rendered prompt and its count."""

    prompt: Prompt
    result: PromptCount


class PromptCounter:
    """Counts prompts; parts seen before (system prompts, earlier turns) come from a cache."""

    def __init__(self, cache: CountText | None = None) -> None:
        """``cache`` counts a text, from memory where it can."""
        self._cache = cache or CountCache()
        self.calibrator = Calibrator()

    async def count(self, subject: Subject) -> Counted:
        """The prompt's tokens for the request's model.

        Raises:
            ProtocolError: the body cannot be rendered.
        """
        await warm_up([encoding_for_model(subject.request.model).encoding])
        if (subject.size or weight(subject.request.body)) > BIG:
            return await anyio.to_thread.run_sync(self._count, subject)
        return self._count(subject)

    def _count(self, subject: Subject) -> Counted:
        model = subject.request.model
        prompt = self.calibrator.corrected(subject.protocol.prompt(subject.request), model)
        tokenizer = get_tokenizer(encoding_for_model(model).encoding)
        count = count_prompt(prompt, tokenizer, self._cache)
        return Counted(prompt, replace(count, model=model))


def weight(body: Mapping[str, Any]) -> int:
    """About how many characters of prompt a body holds; cheap, for bodies that came decoded."""
    total = 0
    for key in ("messages", "input", "contents", "prompt"):
        turns = body.get(key)
        if isinstance(turns, str):
            total += len(turns)
        elif isinstance(turns, list):
            total += sum(_weight_of(turn) for turn in turns)
    return total


def _weight_of(turn: Any) -> int:
    content = turn.get("content", turn.get("parts")) if isinstance(turn, dict) else turn
    if isinstance(content, str):
        return _MESSAGE + len(content)
    if isinstance(content, list):
        return _MESSAGE + sum(
            len(text)
            for part in content
            if isinstance(part, dict) and isinstance(text := part.get("text", ""), str)
        )
    return _MESSAGE

"""Counts messages for a planner as the request that holds them will be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from streamguard.core.counting import CountText, count_prompt
from streamguard.core.planning_units import Message
from streamguard.core.prompt import PromptCount
from streamguard.core.tokens import Tokenizer
from streamguard.protocols.chat_prompt import render
from streamguard.tokenizers import tokenizer_for_model
from streamguard.usage import Method

_TOGETHER = frozenset({"tools", "functions", "response_format"})
_PLAIN = frozenset({"role", "name", "content"})


class Sheet:
    """One model and what its request holds beside the messages (tools, response format).

    ``cost`` is what messages add to a request; ``count`` is the count of a whole one, equal to
    ``count_request`` of its body. Texts are counted once where ``cache`` remembers them.
    """

    def __init__(
        self, model: str, request: Mapping[str, Any], cache: CountText | None = None
    ) -> None:
        self.model = model
        self.request = {key: value for key, value in request.items() if key != "messages"}
        self._cache = cache or _count

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, loaded on first use."""
        return tokenizer_for_model(self.model).tokenizer

    @cached_property
    def base(self) -> float:
        """Tokens of the request without messages."""
        return self._raw([])

    @cached_property
    def method(self) -> Method:
        """How plain text is counted for the model."""
        return self.count([]).method

    def body(self, messages: Sequence[Message]) -> dict[str, Any]:
        """The request's body with these messages."""
        return {**self.request, "model": self.model, "messages": list(messages)}

    def cost(self, messages: Sequence[Message]) -> float:
        """Tokens that the messages add to the request by themselves, margin included."""
        return max(0.0, self._raw(messages) - self.base)

    def text(self, text: str) -> float:
        """Tokens of a bare text, as part of a message that is there anyway."""
        around = self.cost([{"role": "user", "content": ""}])
        return max(0.0, self.cost([{"role": "user", "content": text}]) - around)

    def is_plain(self, messages: Sequence[Message]) -> bool:
        """Whether the messages cost the same together as one by one: plain text, no tools."""
        return not _TOGETHER & set(self.request) and all(
            set(message) <= _PLAIN and isinstance(message.get("content"), str)
            for message in messages
        )

    def count(self, messages: Sequence[Message]) -> PromptCount:
        """The count of the whole request."""
        prompt = render(self.body(messages), self.model)
        return count_prompt(prompt, self.tokenizer, self._cache)

    def _raw(self, messages: Sequence[Message]) -> float:
        prompt = render(self.body(messages), self.model)
        tokens = sum(
            (self._cache(self.tokenizer, part.text) if part.text else 0) * prompt.ratio
            + part.tokens
            for part in prompt.parts
        )
        return tokens * (1.0 + prompt.margin)


def _count(tokenizer: Tokenizer, text: str) -> int:
    return tokenizer.count(text)

"""Counts messages for a planner as the request that holds them will be counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from streamguard.core.count_cache import CountCache
from streamguard.core.counting import CountText, count_prompt
from streamguard.core.planning_units import Message
from streamguard.core.prompt import Prompt, PromptCount
from streamguard.core.tokens import Tokenizer
from streamguard.counting import renderer_of
from streamguard.tokenizers import tokenizer_for_model

_TOGETHER = frozenset({"tools", "functions", "response_format"})
_PLAIN = frozenset({"role", "name", "content"})

Render = Callable[[Mapping[str, Any], str], Prompt]


def by_shape(body: Mapping[str, Any], model: str) -> Prompt:
    """The prompt of a body in the wire format that its shape tells, as ``count_request`` has it."""
    return renderer_of(body, model)(body, model)


class Sheet:
    """One model and what its request holds beside the messages (tools, response format).

    ``cost`` is what messages add to a request by themselves; ``count`` is the count of a whole
    one. Where the model's tokenizer is its own, costs of plain text add up to the count.
    """

    def __init__(
        self,
        model: str,
        request: Mapping[str, Any],
        cache: CountText | None = None,
        render: Render = by_shape,
    ) -> None:
        """``cache`` counts a text, from memory where it can."""
        self.model = model
        self.request = {key: value for key, value in request.items() if key != "messages"}
        self._cache = cache or CountCache()
        self._render = render

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, loaded on first use."""
        return tokenizer_for_model(self.model).tokenizer

    @cached_property
    def base(self) -> int:
        """Tokens of the request without messages."""
        return self._empty.input_tokens

    @cached_property
    def _empty(self) -> PromptCount:
        return self.count([])

    def body(self, messages: Sequence[Message]) -> dict[str, Any]:
        """The request's body with these messages."""
        return {**self.request, "model": self.model, "messages": list(messages)}

    def cost(self, messages: Sequence[Message]) -> int:
        """Tokens that the messages add to the request by themselves."""
        return max(0, self.count(messages).input_tokens - self.base)

    def text(self, text: str) -> int:
        """Tokens of a bare text, as part of a message that is there anyway."""
        around = self.cost([{"role": "user", "content": ""}])
        return max(0, self.cost([{"role": "user", "content": text}]) - around)

    def is_plain(self, messages: Sequence[Message]) -> bool:
        """Whether the messages cost the same together as one by one: plain text, no tools."""
        together = bool(_TOGETHER & set(self.request)) or self._empty.method != "exact"
        return not together and all(
            set(message) <= _PLAIN and isinstance(message.get("content"), str)
            for message in messages
        )

    def count(self, messages: Sequence[Message]) -> PromptCount:
        """The count of the whole request."""
        prompt = self._render(self.body(messages), self.model)
        return count_prompt(prompt, self.tokenizer, self._cache)

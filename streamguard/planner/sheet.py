"""Counts messages for a planner as the request that holds them will be counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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

_FINE = 1_000
_LEAD: tuple[Message, ...] = (
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "x"},
)
"""What stands before messages that are counted: the first ones cost more in some formats."""

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
        self._around: tuple[Message | None, float] | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, loaded on first use."""
        return tokenizer_for_model(self.model).tokenizer

    def around(self, system: Message | None) -> float:
        """Tokens of the request beside its messages; tools may join the ``system`` message."""
        if self._around is None or self._around[0] is not system:
            first = [] if system is None else [system]
            tokens = self._fine([*first, *_LEAD]) - self.cost(_LEAD) - self.cost(first)
            self._around = (system, max(0.0, tokens))
        return self._around[1]

    @cached_property
    def _empty(self) -> PromptCount:
        return self.count([])

    @cached_property
    def _bare(self) -> Sheet:
        """The same without tools and formats, which would be counted again with each message."""
        kept = {"system": ""} if "system" in self.request else {}
        return Sheet(self.model, kept, self._cache, self._render)

    @cached_property
    def _lead(self) -> float:
        return self._bare._fine(_LEAD)  # noqa: SLF001

    def body(self, messages: Sequence[Message]) -> dict[str, Any]:
        """The request's body with these messages."""
        return {**self.request, "model": self.model, "messages": list(messages)}

    def cost(self, messages: Sequence[Message]) -> float:
        """Tokens that the messages add to the request by themselves; fractions where estimated."""
        return max(0.0, self._bare._fine([*_LEAD, *messages]) - self._lead)  # noqa: SLF001

    def text(self, text: str) -> float:
        """Tokens of a bare text, as part of a message that is there anyway."""
        around = self.cost([{"role": "user", "content": ""}])
        return max(0.0, self.cost([{"role": "user", "content": text}]) - around)

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

    def _fine(self, messages: Sequence[Message]) -> float:
        """The count before an estimate is rounded up, to a thousandth."""
        prompt = self._render(self.body(messages), self.model)
        if prompt.method == "exact":
            return count_prompt(prompt, self.tokenizer, self._cache).input_tokens
        fixed = sum(part.tokens for part in prompt.parts)
        finer = replace(prompt, ratio=prompt.ratio * _FINE)
        count = count_prompt(finer, self.tokenizer, self._cache)
        return (count.input_tokens - fixed) / _FINE + fixed

"""OpenAI Responses: the prompt as the API bills it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from streamguard.core.families import HARMONY, family_of, prompt_of
from streamguard.core.json_text import as_map, as_text, many, maps, spaced
from streamguard.core.prompt import Component, Part, Prompt
from streamguard.protocols import openai_prompt as common

Item = Mapping[str, Any]

BUILT_IN = {
    "web_search": 24_576,
    "web_search_2025_08_26": 24_576,
    "web_search_preview": 512,
    "file_search": 16_384,
    "code_interpreter": 2_048,
    "image_generation": 1_024,
    "mcp": 4_096,
    "tool_search": 640,
    "custom": 120,
}
"""Allowances for tools that OpenAI runs: their descriptions, and results that come back into
the same call. GPT-5 searches several times in a call; each result is billed as input."""

OTHER_TOOL = 4_096
ADDED_TOOLS = 104
"""What is said around tools that join a conversation later."""
PRO_MODE = 4_096
"""Reasoning in pro mode reads the prompt, and drafts of the answer, more than once."""
STORED_CALL = 3
"""A call that names the stored item it is, on models before GPT-5."""
_STATE = ("previous_response_id", "conversation", "prompt")
_CALLS = frozenset({"function_call", "custom_tool_call"})
_RESULTS = frozenset({"function_call_output", "custom_tool_call_output"})


def render(body: Mapping[str, Any], model: str) -> Prompt:
    """The prompt of a Responses ``body`` for ``model``.

    Raises:
        ProtocolError: a value is not JSON or nested too deeply.
    """
    return prompt_of(_Renderer(body, model).parts(), family_of(model))


class _Renderer:
    """One body: what its items need to know of the rest of it."""

    def __init__(self, body: Mapping[str, Any], model: str) -> None:
        self._body = body
        self._model = model
        self._dialect = common.dialect_of(model, responses=True)
        self._items: list[Item] = [
            item if isinstance(item, Mapping) else {"role": "user", "content": item}
            for item in many(body.get("input"))
        ]
        self._turn = common.turn_of([item.get("role") for item in self._items])

    def parts(self) -> Iterator[Part]:
        """All parts in order: instructions, items, tools, text format, state, priming."""
        instructions = self._body.get("instructions")
        if instructions:
            yield from self._message({"role": "system", "content": instructions}, "system")
        yield from self._all_items()
        yield from self._tools(self._body.get("tools"))
        yield from self._format()
        yield from (
            Part("history", tokens=common.UNSEEN, bound=True)
            for key in _STATE
            if self._body.get(key)
        )
        variables = as_map(as_map(self._body.get("prompt")).get("variables"))
        yield from common.content_parts(list(variables.values()), "user", self._model)
        if as_map(self._body.get("reasoning")).get("mode") == "pro":
            yield Part("overhead", tokens=PRO_MODE, bound=True)
        yield Part("overhead", tokens=common.priming(self._model))

    def _all_items(self) -> Iterator[Part]:
        index = 0
        while index < len(self._items):
            item = self._items[index]
            if as_text(item.get("type")) in _CALLS:
                calls = self._run(index, _CALLS)
                results = self._run(index + len(calls), _RESULTS)
                yield from self._call(calls, results, self._component(index))
                index += len(calls) + len(results)
            else:
                yield from self._item(item, self._component(index), index)
                index += 1

    def _run(self, start: int, kinds: frozenset[str]) -> list[Item]:
        """The items from ``start`` that are of these kinds."""
        end = start
        while end < len(self._items) and as_text(self._items[end].get("type")) in kinds:
            end += 1
        return self._items[start:end]

    def _component(self, index: int) -> Component:
        role = self._items[index].get("role")
        return common.component_of(role, current=index >= self._turn)

    def _call(self, calls: list[Item], results: list[Item], component: Component) -> Iterator[Part]:
        made = [common.call_of(call, rewrite=False) for call in calls]
        texts: list[str] = []
        for result in results:
            output = result.get("output")
            texts.append(output if isinstance(output, str) else "")
            if not isinstance(output, str):
                yield from common.content_parts(output, component, self._model)
        yield from common.call_parts(made, texts, component, self._dialect)
        if self._dialect is common.RESPONSES and all(call.get("id") for call in calls):
            yield Part("overhead", tokens=STORED_CALL)

    def _item(self, item: Item, component: Component, index: int) -> Iterator[Part]:
        kind = as_text(item.get("type")) or "message"
        if kind == "message":
            yield from self._message(item, component)
        elif kind in _RESULTS:
            yield Part("overhead", tokens=8)
            output = item.get("output")
            yield from common.content_parts(output, component, self._model)
        elif kind == "reasoning":
            yield from self._reasoning(item, component, index)
        elif kind == "item_reference":
            yield Part(component, tokens=common.UNSEEN, bound=True)
        elif kind in {"additional_tools", "tool_search_output"}:
            yield from self._tools(item.get("tools"))
            yield Part("tools", tokens=ADDED_TOOLS, bound=True)
        else:
            yield from self._opaque(item, component)

    def _message(self, item: Item, component: Component) -> Iterator[Part]:
        yield common.head_part(as_text(item.get("role")), self._dialect)
        yield from common.content_parts(item.get("content"), component, self._model)

    def _reasoning(self, item: Item, component: Component, index: int) -> Iterator[Part]:
        """Reasoning is kept while its turn goes on; encrypted text tells how long it is."""
        keeps = as_map(self._body.get("reasoning")).get("context") == "all_turns"
        if index < self._turn and not keeps and family_of(self._model) is HARMONY:
            return
        yield from common.content_parts(item.get("content"), component, self._model)
        secret = item.get("encrypted_content")
        tokens = encrypted_tokens(secret) if isinstance(secret, str) else common.UNSEEN
        yield Part(component, tokens=tokens, bound=True)

    def _opaque(self, item: Item, component: Component) -> Iterator[Part]:
        """An item of another kind: its JSON, without what is only an id or a picture."""
        secret = item.get("encrypted_content")
        if isinstance(secret, str):
            yield Part(component, tokens=encrypted_tokens(secret), bound=True)
        if item.get("type") == "image_generation_call":
            yield common.image_part(None, None, self._model)
        hidden = {"id", "encrypted_content", "result", "status"}
        shown = {key: value for key, value in item.items() if key not in hidden}
        yield Part(component, text=spaced(shown), tokens=16, bound=True)

    def _tools(self, tools: Any) -> Iterator[Part]:
        functions = [tool for tool in maps(tools) if tool.get("type") == "function"]
        yield from common.namespace_parts(functions, self._dialect)
        for tool in maps(tools):
            kind = as_text(tool.get("type"))
            if kind == "namespace":
                yield from self._tools(tool.get("tools"))
            elif kind != "function":
                allowance = BUILT_IN.get(kind, OTHER_TOOL)
                yield common.opaque_tool(tool, allowance)

    def _format(self) -> Iterator[Part]:
        given = as_map(as_map(self._body.get("text")).get("format"))
        if given.get("type") == "json_schema":
            text = common.format_text(given)
            yield Part("response_format", text=text, tokens=self._dialect.schema)
        else:
            yield from common.unknown_format(given)


def encrypted_tokens(secret: str) -> int:
    """Tokens inside an encrypted text at most: some 850 characters are its envelope."""
    return max(64, (len(secret) - 850) * 10 // 48)

"""OpenAI Chat Completions: the prompt as the API bills it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streamguard.core.families import family_of, prompt_of
from streamguard.core.json_text import as_list, as_map, as_text, maps
from streamguard.core.prompt import Component, Part, Prompt
from streamguard.protocols import openai_prompt as common

_EXAMPLES = frozenset({"example_user", "example_assistant"})
Message = Mapping[str, Any]


def render(body: Mapping[str, Any], model: str) -> Prompt:
    """The prompt of a Chat Completions ``body`` for ``model``.

    Raises:
        ProtocolError: a value is not JSON or nested too deeply.
    """
    return prompt_of(_Renderer(body, model).parts(), family_of(model))


class _Renderer:
    """One body: what its messages need to know of the rest of it."""

    def __init__(self, body: Mapping[str, Any], model: str) -> None:
        self._body = body
        self._model = model
        self._dialect = common.dialect_of(model)
        self._messages = maps(body.get("messages"))
        self._turn = common.turn_of([message.get("role") for message in self._messages])
        self._functions = common.functions_of(body.get("tools")) + maps(body.get("functions"))
        schema = as_map(body.get("response_format")).get("json_schema")
        self._format = common.format_text(schema) if isinstance(schema, Mapping) else ""
        self._answer = as_text(as_map(schema).get("name")) if self._dialect.answers else ""
        systems = (m for m in self._messages if as_text(m.get("role")) in common.SYSTEM_ROLES)
        self._system = next(systems, None) if self._dialect.joins else None
        self._joins = self._system is not None

    def parts(self) -> Iterator[Part]:
        """All parts in order: messages, tools, response format, priming."""
        yield from self._all_messages()
        yield from self._tools()
        yield from self._response_format()
        yield from self._rest()
        template = common.TEMPLATES.get(family_of(self._model).name, 0)
        yield Part("overhead", tokens=common.priming(self._model) + template)

    def _all_messages(self) -> Iterator[Part]:
        index = 0
        while index < len(self._messages):
            message = self._messages[index]
            component = self._component(index)
            calls = self._calls(message)
            if calls:
                yield from self._says(message, component)
                results = self._results(index + 1, len(calls))
                yield from common.call_parts(calls, results, component, self._dialect)
                yield from self._media(index + 1, len(results), component)
                index += len(results)
            else:
                yield from self._message(message, component)
            index += 1

    def _component(self, index: int) -> Component:
        message = self._messages[index]
        if as_text(message.get("name")) in _EXAMPLES:
            return "few_shot"
        return common.component_of(message.get("role"), current=index >= self._turn)

    def _calls(self, message: Message) -> list[common.Call]:
        calls = [
            call.get("function", call.get("custom")) for call in maps(message.get("tool_calls"))
        ]
        if not calls and isinstance(message.get("function_call"), Mapping):
            calls = [message["function_call"]]
        return [common.call_of(call, rewrite=True) for call in calls]

    def _results(self, start: int, most: int) -> list[str]:
        """The texts of the tool messages that answer the calls."""
        results: list[str] = []
        for message in self._messages[start : start + most]:
            if as_text(message.get("role")) not in {"tool", "function"}:
                break
            results.append(_text_of(message.get("content")))
        return results

    def _media(self, start: int, many: int, component: Component) -> Iterator[Part]:
        """What is not text in tool messages."""
        for message in self._messages[start : start + many]:
            for part in common.content_parts(message.get("content"), component, self._model):
                if part.bound or part.tokens:
                    yield part

    def _says(self, message: Message, component: Component) -> Iterator[Part]:
        """What an assistant says before it calls."""
        if message.get("content") or message.get("refusal"):
            yield from self._message(message, component)

    def _message(self, message: Message, component: Component) -> Iterator[Part]:
        role, name = as_text(message.get("role")), as_text(message.get("name"))
        yield common.head_part(role, self._dialect, name)
        content = list(common.content_parts(message.get("content"), component, self._model))
        joined = message is self._system and (self._functions or self._format)
        yield from _with_end(content, "\n\n") if joined else content
        for key in ("refusal", "reasoning_content", "reasoning"):
            if message.get(key):
                yield Part(component, text=as_text(message[key]))
        if message.get("audio"):
            yield Part("files", tokens=common.UNSEEN, bound=True)
        if role == "assistant" and self._answer:
            yield Part("overhead", text=self._answer, tokens=2)

    def _tools(self) -> Iterator[Part]:
        parts = list(common.namespace_parts(self._functions, self._dialect))
        yield from parts
        if parts and self._dialect.joins and not self._joins:
            yield Part("overhead", tokens=common.PER_MESSAGE + 1)
        for tool in maps(self._body.get("tools")):
            if not isinstance(tool.get("function"), Mapping):
                yield common.opaque_tool(tool, 120)
        yield from self._choice()

    def _choice(self) -> Iterator[Part]:
        """The function that must be called is named in the header of the answer."""
        for choice in (self._body.get("tool_choice"), self._body.get("function_call")):
            name = as_map(as_map(choice).get("function", choice)).get("name")
            if isinstance(name, str) and self._dialect.named_choice is not None:
                yield Part("tools", text=name, tokens=self._dialect.named_choice)

    def _response_format(self) -> Iterator[Part]:
        if not self._format:
            yield from common.unknown_format(self._body.get("response_format"))
            return
        yield Part("response_format", text=self._format, tokens=self._dialect.schema)
        if self._dialect.joins and self._functions:
            yield Part("response_format", text="\n\n")
        elif self._dialect.joins:
            yield Part("response_format", text=self._answer, tokens=2 if self._joins else 6)

    def _rest(self) -> Iterator[Part]:
        """What else costs tokens: a prediction (as output, where it fails), web search."""
        prediction = as_map(self._body.get("prediction")).get("content")
        yield from common.content_parts(prediction, "user", self._model)
        if self._body.get("web_search_options") is not None:
            yield Part("tools", tokens=common.UNSEEN, bound=True)


def _with_end(parts: list[Part], end: str) -> list[Part]:
    """The parts with ``end`` in the last text, where it may merge into a token."""
    for index in range(len(parts) - 1, -1, -1):
        if parts[index].text:
            parts[index] = parts[index]._replace(text=parts[index].text + end)
            return parts
    return [*parts, Part("system", text=end)]


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    pieces: Sequence[Any] = as_list(content)
    return "".join(as_text(as_map(piece).get("text")) for piece in pieces)

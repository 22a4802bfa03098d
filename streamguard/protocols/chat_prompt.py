"""OpenAI Chat Completions: the prompt as the API bills it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streamguard.core.prompt import Component, Part, Prompt

PER_MESSAGE = 3
PRIMING = 3
SYSTEM_ROLES = frozenset({"system", "developer"})


def render(body: Mapping[str, Any], model: str) -> Prompt:
    """The prompt of a Chat Completions ``body`` for ``model``."""
    messages = [m for m in _list(body.get("messages")) if isinstance(m, Mapping)]
    parts: list[Part] = []
    last = _last_user(messages)
    for index, message in enumerate(messages):
        parts.extend(_message(message, _component(message, index, last)))
    for key in ("tools", "functions"):
        if body.get(key):
            parts.append(Part("tools", text=_json(body[key]), bound=True))
    if isinstance(body.get("response_format"), Mapping) and len(body["response_format"]) > 1:
        parts.append(Part("response_format", text=_json(body["response_format"]), bound=True))
    parts.append(Part("overhead", tokens=PRIMING - _is_reasoning(model)))
    return Prompt(tuple(parts))


def _message(message: Mapping[str, Any], component: Component) -> Iterator[Part]:
    role, name = message.get("role"), message.get("name")
    yield Part("overhead", text=f"{role}:{name}" if name else str(role), tokens=PER_MESSAGE)
    content = message.get("content")
    for piece in [content] if isinstance(content, str) else _list(content):
        if isinstance(piece, str):
            yield Part(component, text=piece)
        elif isinstance(piece, Mapping) and isinstance(piece.get("text"), str):
            yield Part(component, text=piece["text"])
        else:
            yield Part(component, text=_json(piece), bound=True)
    for key in ("tool_calls", "function_call", "refusal"):
        if message.get(key):
            yield Part(component, text=_json(message[key]), bound=True)


def _component(message: Mapping[str, Any], index: int, last: int) -> Component:
    if message.get("name") in {"example_user", "example_assistant"}:
        return "few_shot"
    if message.get("role") in SYSTEM_ROLES:
        return "system"
    return "user" if index >= last else "history"


def _last_user(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where the last user turn starts; what follows it belongs to it."""
    users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    return users[-1] if users else 0


def _is_reasoning(model: str) -> bool:
    name = model.rsplit("/", 1)[-1]
    return name.startswith(("o1", "o3", "o4", "gpt-5", "gpt-6"))


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

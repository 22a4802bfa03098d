"""Anthropic Messages: an estimate of the prompt, calibrated on reported usage.

Claude 3 and newer have no public tokenizer. What Anthropic documents (the hidden prompt that
comes with tools, image sizes) is taken from its guides; the rest is fitted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from streamguard.core.documents import document_tokens
from streamguard.core.families import CLAUDE, CLAUDE_NEW, base_model, family_of, prompt_of
from streamguard.core.image_size import Size, size_of_data
from streamguard.core.json_text import as_map, as_text, compact, many, maps
from streamguard.core.prompt import Component, Part, Prompt

FIRST_MESSAGE = 7
MORE_MESSAGES = 4
THINKING = 34
"""What is said to a model that thinks first."""
TASK_BUDGET = 48
SCHEMA = 170
"""What is said around an output schema."""
UNSEEN = 20_480
"""Allowed for what only Anthropic can see: a stored file, a container."""

_BUILT_IN = (
    ("web_search", 24_576),
    ("web_fetch", 24_576),
    ("code_execution", 24_576),
    ("advisor", 4_096),
    ("computer", 1_536),
    ("memory", 2_048),
    ("text_editor", 1_024),
    ("bash", 512),
    ("tool_search", 1_536),
)
_OTHER_TOOL = 4_096


class ToolPrompt(NamedTuple):
    """The hidden prompt that comes with tools: free choice, a tool must be called, a call."""

    free: int
    forced: int
    call: int = 75


_TOOL_PROMPTS: tuple[tuple[re.Pattern[str], ToolPrompt], ...] = tuple(
    (re.compile(pattern), ToolPrompt(*tokens))
    for pattern, tokens in (
        (r"claude-3-opus", (545, 545)),
        (r"claude-3-(?:sonnet|haiku)", (300, 395)),
        (r"claude-3-5-haiku", (300, 410)),
        (r"claude-3", (355, 410)),
        (r"claude-(?:opus|sonnet)-4(?:-0|-1|-20\d{6})?(?:$|-(?:0|1|20\d{6}))", (355, 370)),
        (r"claude-\w+-4-5", (525, 645)),
        (r"claude-\w+-4-6", (550, 675)),
    )
)
_NEWEST = ToolPrompt(420, 560, 95)


def render(body: Mapping[str, Any], model: str) -> Prompt:
    """The prompt of a Messages ``body`` for ``model``.

    Raises:
        ProtocolError: a value is not JSON or nested too deeply.
    """
    family = family_of(model)
    if family not in {CLAUDE, CLAUDE_NEW}:
        family = CLAUDE_NEW
    return prompt_of(_Renderer(body, model).parts(), family)


def _tool_prompt(model: str) -> ToolPrompt:
    name = base_model(model)
    return next((found for pattern, found in _TOOL_PROMPTS if pattern.match(name)), _NEWEST)


class _Renderer:
    """One body: what its messages need to know of the rest of it."""

    def __init__(self, body: Mapping[str, Any], model: str) -> None:
        self._body = body
        self._newest = family_of(model) is not CLAUDE
        self._tools = maps(body.get("tools"))
        self._tool_prompt = _tool_prompt(model)
        self._messages = maps(body.get("messages"))
        self._turn = _last_turn(self._messages)

    def parts(self) -> Iterator[Part]:
        """All parts in order: system, tools, messages, what comes with options."""
        yield from self._content(self._body.get("system"), "system", thinks=False)
        yield from self._all_tools()
        for index, message in enumerate(self._messages):
            component = self._component(message, index)
            yield Part("overhead", tokens=MORE_MESSAGES if index else FIRST_MESSAGE)
            current = index > self._turn
            yield from self._content(message.get("content"), component, thinks=current)
        yield from self._options()

    def _component(self, message: Mapping[str, Any], index: int) -> Component:
        if as_text(message.get("role")) == "system":
            return "system"
        return "user" if index >= self._turn else "history"

    def _all_tools(self) -> Iterator[Part]:
        if self._tools:
            kind = as_text(as_map(self._body.get("tool_choice")).get("type"))
            forced = kind in {"any", "tool"}
            known = self._tool_prompt
            yield Part("tools", tokens=known.forced if forced else known.free)
        for tool in self._tools:
            yield from _tool(tool)
        if self._body.get("mcp_servers") or self._body.get("container"):
            yield Part("tools", tokens=UNSEEN, bound=True)

    def _options(self) -> Iterator[Part]:
        if as_text(as_map(self._body.get("thinking")).get("type")) not in {"", "disabled"}:
            yield Part("overhead", tokens=THINKING)
        schemas = (
            as_map(self._body.get("output_config")).get("format"),
            self._body.get("output_format"),
        )
        if as_map(self._body.get("output_config")).get("task_budget"):
            yield Part("overhead", tokens=TASK_BUDGET)
        for schema in schemas:
            if schema:
                yield Part("response_format", text=compact(schema), tokens=SCHEMA)

    def _content(self, content: Any, component: Component, *, thinks: bool) -> Iterator[Part]:
        if isinstance(content, str):
            yield Part(component, text=content)
            return
        for block in many(content):
            if isinstance(block, Mapping):
                yield from self._block(block, component, thinks=thinks)
            else:
                yield Part(component, text=as_text(block), bound=True)

    def _block(
        self, block: Mapping[str, Any], component: Component, *, thinks: bool
    ) -> Iterator[Part]:
        kind = as_text(block.get("type"))
        if kind == "text" or (not kind and isinstance(block.get("text"), str)):
            yield Part(component, text=as_text(block.get("text")))
        elif kind == "tool_use":
            text = f"{as_text(block.get('name'))}{compact(block.get('input'))}"
            yield Part(component, text=text, tokens=self._tool_prompt.call)
        elif kind == "tool_result":
            yield from self._content(block.get("content"), component, thinks=False)
        elif kind in {"thinking", "redacted_thinking"}:
            if thinks:
                yield from _thinking(block, component)
        elif kind == "image":
            yield image_part(as_map(block.get("source")), newest=self._newest)
        elif kind == "document":
            yield from self._document(block)
        else:
            yield from self._opaque(block, component)

    def _document(self, block: Mapping[str, Any]) -> Iterator[Part]:
        source = as_map(block.get("source"))
        if source.get("type") == "text":
            yield Part("files", text=as_text(source.get("data")), tokens=40)
        elif source.get("type") == "content":
            yield from self._content(source.get("content"), "files", thinks=False)
        elif isinstance(source.get("data"), str):
            tokens = document_tokens(source["data"]) * 3 // 2
            yield Part("files", tokens=tokens, bound=True)
        else:
            yield Part("files", tokens=UNSEEN, bound=True)
        for key in ("title", "context"):
            if block.get(key):
                yield Part("files", text=as_text(block[key]))

    def _opaque(self, block: Mapping[str, Any], component: Component) -> Iterator[Part]:
        """A block of another kind, such as what a server tool left behind: its JSON."""
        if as_text(block.get("type")) in {"container_upload", "tool_addition"}:
            yield Part("files", tokens=UNSEEN, bound=True)
        yield Part(component, text=compact(block), tokens=40, bound=True)


def _last_turn(messages: list[Mapping[str, Any]]) -> int:
    """The last user message that is more than tool results; what follows is the same turn."""
    last = 0
    for index, message in enumerate(messages):
        if as_text(message.get("role")) == "user" and not _only_results(message.get("content")):
            last = index
    return last


def _only_results(content: Any) -> bool:
    blocks = maps(content)
    return bool(blocks) and all(block.get("type") == "tool_result" for block in blocks)


def _tool(tool: Mapping[str, Any]) -> Iterator[Part]:
    kind = as_text(tool.get("type")) or "custom"
    if kind == "custom":
        name, described = as_text(tool.get("name")), as_text(tool.get("description"))
        yield Part("tools", text=f"{name}\n{described}\n{compact(tool.get('input_schema'))}")
        return
    allowance = next((n for name, n in _BUILT_IN if kind.startswith(name)), _OTHER_TOOL)
    yield Part("tools", text=compact(tool), tokens=allowance, bound=True)


def _thinking(block: Mapping[str, Any], component: Component) -> Iterator[Part]:
    """Thinking of the current turn; redacted or omitted, its size tells the most it can be."""
    text = as_text(block.get("thinking"))
    if text:
        yield Part(component, text=text)
        return
    hidden = as_text(block.get("data")) or as_text(block.get("signature"))
    yield Part(component, tokens=len(hidden) // 3, bound=True)


def image_part(source: Mapping[str, Any], *, newest: bool) -> Part:
    """Width times height / 750, after shrinking to what the model takes.

    Source: Anthropic's guide "Vision".
    """
    edge, most = (2576, 4_784) if newest else (1568, 1_600)
    data = source.get("data")
    size = size_of_data(data) if isinstance(data, str) else None
    if size is None:
        return Part("images", tokens=most * 26 // 25 + 8, bound=True)
    return Part("images", tokens=min(_pixels(size, edge), most) * 26 // 25 + 8)


def _pixels(size: Size, edge: int) -> int:
    shrink = min(1.0, edge / max(size))
    return math.ceil(size.width * size.height * shrink * shrink / 750)

"""Gemini ``generateContent``: an estimate of the prompt, calibrated on reported usage.

Field names come in camel case and in snake case; Google takes both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from streamguard.core.documents import audio_tokens, document_tokens
from streamguard.core.families import GEMINI, GEMINI_3, base_model, family_of, prompt_of
from streamguard.core.image_size import Size, size_of_data
from streamguard.core.json_text import as_map, as_text, compact, many, maps
from streamguard.core.prompt import Component, Part, Prompt
from streamguard.core.typescript import MAX_DEPTH
from streamguard.errors import ProtocolError

UNSEEN = 20_480
"""Allowed for what only Google can see: a stored file, cached content."""

SYSTEM = 2
FUNCTION = 24
"""What is said around a function declaration."""
PROPERTY = 14
"""And around each of its parameters, the nested ones too."""
FORCED = 8
"""And where one must be called."""
CALL = 12
THOUGHT = 8

_TILE = 258
_RESOLUTIONS = {"low": 280, "medium": 560, "high": 1_120, "ultra_high": 2_240}
_BUILT_IN = {"googleSearch": 4_096, "codeExecution": 4_096, "urlContext": 24_576}
_OTHER_TOOL = 16_384
_SNAKE = re.compile(r"_([a-z])")


def render(body: Mapping[str, Any], model: str) -> Prompt:
    """The prompt of a ``generateContent`` or ``embedContent`` body for ``model``.

    Raises:
        ProtocolError: a value is not JSON or nested too deeply.
    """
    family = family_of(model)
    if family not in {GEMINI, GEMINI_3}:
        family = GEMINI_3
    return prompt_of(_Renderer(_camel(body), model).parts(), family)


def _camel(value: Any) -> Mapping[str, Any]:
    """A mapping with its own keys in camel case.

    Raises:
        ProtocolError: a field is there in both spellings; which one is read is Google's secret.
    """
    given = as_map(value)
    turned = {_SNAKE.sub(lambda m: m[1].upper(), str(k)): v for k, v in given.items()}
    if len(turned) < len(given):
        raise ProtocolError("a field is there in camel case and in snake case; send one of them")
    return turned


class _Renderer:
    """One body: what its contents need to know of the rest of it."""

    def __init__(self, body: Mapping[str, Any], model: str) -> None:
        self._body = body
        self._model = model
        self._first = bool(re.match(r"gemini-(?:1|2\.0|pro)", base_model(model)))
        self._third = family_of(model) is not GEMINI
        self._config = _camel(body.get("generationConfig"))
        self._contents = _contents(body)
        roles = [content.get("role", "user") for content in self._contents]
        self._turn = max((i for i, role in enumerate(roles) if role == "user"), default=0)

    def parts(self) -> Iterator[Part]:
        """All parts in order: system, tools, contents, options.

        A ``responseJsonSchema`` is not billed; of a ``responseSchema``, the words are.
        """
        system = self._body.get("systemInstruction")
        if system:
            yield Part("overhead", tokens=0 if self._first else SYSTEM)
            yield from self._parts_of(_content(system), "system")
        yield from self._tools()
        for index, content in enumerate(self._contents):
            component: Component = "user" if index >= self._turn else "history"
            yield from self._parts_of(content, component)
        yield from self._options()

    def _parts_of(self, content: Mapping[str, Any], component: Component) -> Iterator[Part]:
        for part in many(content.get("parts")):
            if isinstance(part, Mapping):
                yield from self._part(_camel(part), component)
            else:
                yield Part(component, text=as_text(part), bound=True)

    def _part(self, part: Mapping[str, Any], component: Component) -> Iterator[Part]:
        if (text := part.get("text")) is not None:
            yield Part(component, text=as_text(text), bound=not isinstance(text, str))
        if part.get("inlineData"):
            yield self._inline(_camel(part["inlineData"]))
        if part.get("fileData"):
            yield self._file(_camel(part["fileData"]))
        for key in ("functionCall", "functionResponse"):
            if part.get(key):
                shown = {k: v for k, v in as_map(part[key]).items() if k not in {"id", "parts"}}
                yield Part(component, text=compact(shown), tokens=CALL)
                yield from self._parts_of(as_map(part[key]), component)
        if part.get("thoughtSignature"):
            hidden = as_text(part["thoughtSignature"])
            yield Part(component, tokens=len(hidden) * 23 // 100 + THOUGHT if self._third else 0)
        for key in ("executableCode", "codeExecutionResult", "toolCall", "toolResponse"):
            if part.get(key):
                yield Part(component, text=compact(part[key]), tokens=CALL, bound=True)

    def _inline(self, blob: Mapping[str, Any]) -> Part:
        kind, data = as_text(blob.get("mimeType")), as_text(blob.get("data"))
        if kind.startswith("image/"):
            return self._image(size_of_data(data))
        if kind.startswith("audio/"):
            return Part("files", tokens=audio_tokens(data, kind[6:], "gemini"), bound=True)
        if kind.startswith("text/"):
            return Part("files", tokens=len(data) * 3 // 4, bound=True)
        return Part("files", tokens=document_tokens(data), bound=True)

    def _file(self, file: Mapping[str, Any]) -> Part:
        """A file elsewhere: an image at its most, anything else allowed ``UNSEEN``."""
        if as_text(file.get("mimeType")).startswith("image/"):
            return self._image(None)._replace(bound=True)
        return Part("files", tokens=UNSEEN, bound=True)

    def _image(self, size: Size | None) -> Part:
        if self._third:
            asked = as_text(self._config.get("mediaResolution")).lower()
            name = asked.removeprefix("media_resolution_")
            return Part("images", tokens=_RESOLUTIONS.get(name, 1_120))
        if size is None:
            return Part("images", tokens=16 * _TILE, bound=True)
        return Part("images", tokens=tiles(size) * _TILE)

    def _tools(self) -> Iterator[Part]:
        for tool in maps(self._body.get("tools")):
            for key, value in _camel(tool).items():
                if key == "functionDeclarations":
                    yield from map(self._declared, maps(value))
                else:
                    allowance = _BUILT_IN.get(key, _OTHER_TOOL)
                    yield Part("tools", text=compact(value), tokens=allowance, bound=True)
        calling = _camel(_camel(self._body.get("toolConfig")).get("functionCallingConfig"))
        if as_text(calling.get("mode")).upper() in {"ANY", "VALIDATED"}:
            yield Part("tools", tokens=FORCED)

    def _declared(self, function: Mapping[str, Any]) -> Part:
        """A function's words; models since 2.5 are told its shape as well."""
        words: list[str] = []
        names = _read(function, words)
        shape = CALL if self._first else FUNCTION + PROPERTY * names
        return Part("tools", text="\n".join(words), tokens=shape)

    def _options(self) -> Iterator[Part]:
        words: list[str] = []
        _read(self._config.get("responseSchema"), words)
        if words:
            yield Part("response_format", text="\n".join(words))
        if self._body.get("cachedContent"):
            yield Part("history", tokens=UNSEEN, bound=True)
        if self._third and base_model(self._model):
            yield Part("overhead", tokens=1)


def _contents(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Contents as a list of mappings, in whichever form they were given."""
    given = body.get("contents", body.get("content"))
    if isinstance(given, list):
        return [_content(one) for one in given]
    return [_content(given)] if given else []


def _content(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        return {"role": "user", "parts": [{"text": value}]}
    content = as_map(value)
    if "parts" not in content and content:
        return {"role": "user", "parts": [content]}
    return content


_SILENT = frozenset(
    {"type", "required", "default", "additionalProperties", "additional_properties"}
)


def _read(value: Any, words: list[str], depth: int = 0) -> int:
    """Collect what a declaration says in words: names, descriptions, choices; count names."""
    if depth > MAX_DEPTH:
        words.append(compact(value))
    elif isinstance(value, str):
        words.append(value)
    elif isinstance(value, list):
        return sum(_read(item, words, depth + 1) for item in value)
    elif isinstance(value, Mapping):
        return sum(_member(key, item, words, depth + 1) for key, item in value.items())
    return 0


def _member(key: Any, item: Any, words: list[str], depth: int) -> int:
    if key == "properties" and isinstance(item, Mapping):
        words.extend(str(name) for name in item)
        return len(item) + sum(_read(shape, words, depth) for shape in item.values())
    return 0 if key in _SILENT else _read(item, words, depth)


def tiles(size: Size) -> int:
    """One for a small image, else as many squares as it is cut into.

    Source: Google's guide "Image understanding".
    """
    if max(size) <= 384:  # noqa: PLR2004
        return 1
    unit = max(1, math.floor(min(size) / 1.5))
    unit = min(max(unit, 256), 768)
    return math.ceil(size.width / unit) * math.ceil(size.height / unit)

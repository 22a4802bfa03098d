"""JSON Schema as the TypeScript that OpenAI shows its models.

Function tools are billed as the text of a TypeScript namespace. The public part of the form
is in OpenAI's ``harmony`` repository (gpt-oss); the rest (one-line objects, titles, unions,
arrays of commented objects) was derived from reported usage.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamguard.core.json_text import as_list, as_map, compact, maps

MAX_DEPTH = 48
"""Schemas inside each other; what is deeper is rendered as JSON."""

MAX_REFERRED = 300_000
"""Characters rendered through references in all: they may multiply without end."""

ENDLESS = 2_000_000
"""Tokens to count for what is beyond that: more than any window takes."""

_TYPES = {
    "integer": "number",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "null": "null",
}
_UNIONS = ("anyOf", "oneOf", "allOf")
_MOST_TYPES = 8
_MEMBER = 8
"""Characters that a member of an object or a union has at least, with what stands around it."""
_RANGES = ("minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern")


class Rendered(NamedTuple):
    """The text, and whether all of it is there: past ``MAX_REFERRED`` types are ``any``."""

    text: str
    complete: bool


class _Notes(NamedTuple):
    """The comments before and after a type."""

    head: str = ""
    tail: str = ""


def namespace(functions: Sequence[Mapping[str, Any]]) -> Rendered:
    """The namespace of the functions, without the line that opens it.

    Raises:
        ProtocolError: a value is not JSON or nested too deeply.
    """
    budget = _Budget()
    text = "".join(_function(function, budget) for function in functions)
    return Rendered(text + "} // namespace functions", budget.left > 0)


class _Budget:
    """Characters that may still come out of references."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_REFERRED


def _function(function: Mapping[str, Any], budget: _Budget) -> str:
    comment = _comment(function.get("description"))
    parameters = as_map(function.get("parameters"))
    name = function.get("name", "")
    if not as_map(parameters.get("properties")):
        return f"{comment}type {name} = () => any;\n\n"
    head = _head(parameters)
    shape = _Renderer(parameters, budget).object_type(parameters, 0)
    return f"{comment}type {name} = (_:{' ' + head if head else ' '}{shape}) => any;\n\n"


def _comment(text: object) -> str:
    """Comment lines, each stripped of its indentation."""
    if not isinstance(text, str) or not text.strip():
        return ""
    lines = text.strip().split("\n")
    return "".join(f"// {line.strip()}".rstrip() + "\n" for line in lines)


def _head(schema: Mapping[str, Any]) -> str:
    """The comment above a schema: its title, an empty line, its description."""
    texts = [schema.get("title"), schema.get("description")]
    return _comment("\n\n".join(text for text in texts if isinstance(text, str) and text))


def _tail(schema: Mapping[str, Any]) -> str:
    """The comment after a property: its default and ranges."""
    notes = [f"{key}: {compact(schema[key])}" for key in _RANGES if key in schema]
    if "default" in schema:
        default = schema["default"]
        bare = isinstance(default, str) and "enum" in schema
        notes.insert(0, f"default: {default if bare else compact(default)}")
    return f" // {', '.join(notes)}" if notes else ""


class _Renderer:
    """One function's parameters: resolves references, within a budget."""

    def __init__(self, root: Mapping[str, Any], budget: _Budget) -> None:
        self._root = root
        self._budget = budget
        self._open: list[str] = []

    def object_type(self, schema: Mapping[str, Any], depth: int) -> str:
        """The members in one line, or one each when any of them has a comment."""
        properties = as_map(schema.get("properties"))
        if not self._affords(_MEMBER * len(properties)):
            return "any"
        members = {str(key): self._resolved(value) for key, value in properties.items()}
        notes = {key: self._notes(value) for key, value in members.items()}
        required = {key for key in as_list(schema.get("required")) if isinstance(key, str)}
        marks = {key: "" if key in required else "?" for key in members}
        if not any(map(any, notes.values())):
            inner = (
                f"{key}{marks[key]}:{self._member(value, depth)}" for key, value in members.items()
            )
            return "{ " + ", ".join(inner) + " }" if members else self._record(schema, depth)
        lines = (
            f"{notes[key].head}{key}{marks[key]}:{self._member(value, depth)},{notes[key].tail}\n"
            for key, value in members.items()
        )
        return "{\n" + "".join(lines) + "}"

    def _record(self, schema: Mapping[str, Any], depth: int) -> str:
        """An object without named members."""
        values = schema.get("additionalProperties")
        if not isinstance(values, Mapping):
            return "object"
        return f"{{ [key: string]: {self._type(self._resolved(values), depth + 1)} }}"

    def _member(self, resolved: tuple[Mapping[str, Any], str], depth: int) -> str:
        text = self._type(resolved, depth + 1)
        return text if text.startswith("\n") else f" {text}"

    def _resolved(self, schema: Any) -> tuple[Mapping[str, Any], str]:
        """A schema with its reference followed once, and the reference.

        What stands beside ``$ref`` overrides what it refers to.
        """
        schema = as_map(schema)
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema, ""
        target: Any = self._root
        for step in reference.split("/")[1:65]:
            target = as_map(target).get(step.replace("~1", "/").replace("~0", "~"))
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        # A view, not a copy: a thousand references to one large schema are no large body.
        return (ChainMap(beside, as_map(target)) if beside else as_map(target)), reference  # type: ignore[arg-type]

    def _affords(self, size: int) -> bool:
        """Whether the budget has so many characters; outside references all is as it was sent."""
        if self._open:
            self._budget.left -= size
        return not self._open or self._budget.left > 0

    def _notes(self, resolved: tuple[Mapping[str, Any], str]) -> _Notes:
        """The comments around a type, while the budget has room for those that were referred to."""
        schema, reference = resolved
        counts = bool(reference or self._open)
        if counts and self._budget.left <= 0:
            return _Notes()
        notes = _Notes(_head(schema), _tail(schema))
        self._budget.left -= sum(map(len, notes)) if counts else 0
        return notes

    def _type(self, resolved: tuple[Mapping[str, Any], str], depth: int) -> str:
        schema, reference = resolved
        if reference and reference in self._open:
            return "any"
        if not reference and not self._open:
            return compact(dict(schema)) if depth > MAX_DEPTH else self._shape(schema, depth)
        if self._budget.left > 0:
            self._budget.left -= 16 + len(schema)
        if self._budget.left <= 0:
            return "any"
        if depth > MAX_DEPTH:
            text = compact(dict(schema))
            self._budget.left -= len(text)
            return text
        self._open.append(reference)
        try:
            return self._shape(schema, depth)
        finally:
            self._open.pop()

    def _shape(self, schema: Mapping[str, Any], depth: int) -> str:
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(values, list):
            text = " | ".join(map(compact, values))
            self._budget.left -= len(text) if self._open else 0
            return text
        kind = schema.get("type")
        variants = next((v for key in _UNIONS if isinstance(v := schema.get(key), list)), None)
        if isinstance(kind, list):
            bare = {k: v for k, v in schema.items() if k not in {"default", "title"}}
            variants = [{**bare, "type": one} for one in kind[:_MOST_TYPES]]
        if variants is not None:
            return self._union(maps(variants), depth)
        if kind == "object" or "properties" in schema:
            return self.object_type(schema, depth)
        if kind == "array":
            return self._array(schema.get("items"), depth)
        return _TYPES.get(kind, "any") if isinstance(kind, str) else "any"

    def _union(self, variants: Sequence[Mapping[str, Any]], depth: int) -> str:
        if not self._affords(_MEMBER * len(variants)):
            return "any"
        resolved = [self._resolved(variant) for variant in variants]
        noted = [(self._notes(value), value) for value in resolved]
        return "".join(
            f"\n{notes.head} | {self._type(value, depth + 1)}{notes.tail}" for notes, value in noted
        ) + ("\n" if resolved else "any")

    def _array(self, items: Any, depth: int) -> str:
        if not items:
            return "any[]"
        resolved = self._resolved(items)
        inner = self._type(resolved, depth + 1)
        head = self._notes(resolved).head
        if head or "\n" in inner:
            return f"Array<\n{head}{inner}\n>"
        return f"{inner}[]"

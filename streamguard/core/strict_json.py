"""JSON as a request body may be: one meaning only, finite, shallow, Unicode.

Two parsers must not read two meanings out of one body, or a client smuggles a cap past the
guard. So what parsers differ in is refused: duplicate keys, NaN and Infinity, numbers out of
range, lone surrogates, a byte-order mark. Errors say where, never what.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from streamguard.errors import ProtocolError

MAX_DEPTH = 64
"""Objects and arrays inside each other; a deep JSON schema needs about 30."""

MAX_WEIGHT = 500_000
"""Items of objects and arrays; those that are more than a number or a short field's text, which
cost a renderer some 10 µs each, weigh five: a body of 4 MB may hold a million empty messages.
"""
_HEAVY = 4

_OFFSET = re.compile(r"\(byte (\d+)\)")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


class _DuplicateKeyError(ValueError):
    pass


class _Pairs(list[tuple[str, Any]]):
    """An object as written, duplicates kept."""


def loads(data: bytes, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Decode a body whose top level must be an object.

    Raises:
        ProtocolError: not UTF-8, malformed, ambiguous, deeper than ``max_depth`` or of too many
            values; the message gives the offset or the path and no value.
    """
    value = _read(data, max_depth)
    if not isinstance(value, dict):
        raise ProtocolError("the body's top level must be a JSON object")
    _check_size(value, max_depth)
    try:
        json.loads(data, object_pairs_hook=_unique)
    except _DuplicateKeyError:
        raise ProtocolError(_duplicate_message(data)) from None
    return value


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON.

    Raises:
        ProtocolError: nested too deeply to be written.
    """
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        raise ProtocolError("the value is nested too deeply to be written as JSON") from None


def _read(data: bytes, max_depth: int) -> Any:
    """What msgspec reads: it refuses more than the standard library does, and sooner."""
    try:
        data.decode()
        return msgspec.json.decode(data)
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 at byte {error.start}"
    except msgspec.ValidationError:
        message = "the body holds a number that is out of range"
    except msgspec.DecodeError as error:
        found = _OFFSET.search(str(error))
        message = f"the body is not valid JSON{f' at byte {found[1]}' if found else ''}"
    except RecursionError:
        raise ProtocolError(_depth_message(max_depth)) from None
    raise ProtocolError(f"{message}; send one JSON object in UTF-8")


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _DuplicateKeyError


def _check_size(value: dict[str, Any], max_depth: int) -> None:
    level: list[Any] = [value]
    weight = 0
    for _ in range(max_depth):
        weight += sum(map(len, level)) + _HEAVY * sum(map(_heavy, level))
        if weight > MAX_WEIGHT:
            raise ProtocolError("the body holds too many values; send fewer, longer ones")
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise ProtocolError(_depth_message(max_depth))


def _heavy(node: Any) -> int:
    """Items of a list or an object that are lists and objects again, and texts in a list."""
    kinds = list(map(type, node.values() if type(node) is dict else node))
    return kinds.count(dict) + kinds.count(list) + (kinds.count(str) if type(node) is list else 0)


def _depth_message(max_depth: int) -> str:
    return f"the body is nested deeper than {max_depth} levels; flatten it"


def _duplicate_message(data: bytes) -> str:
    where = _duplicate(json.loads(data, object_pairs_hook=_Pairs), "$")
    return f"the body has a duplicate key at {where}; send each key once"


def _duplicate(node: Any, path: str) -> str | None:
    """The path of the first key that is there twice."""
    seen: set[str] = set()
    children: list[tuple[str, Any]] = []
    if isinstance(node, _Pairs):
        for key, child in node:
            place = f"{path}.{key if _PLAIN_KEY.fullmatch(key) else '…'}"
            if key in seen:
                return place
            seen.add(key)
            children.append((place, child))
    elif isinstance(node, list):
        children = [(f"{path}[{position}]", child) for position, child in enumerate(node)]
    found = (_duplicate(child, place) for place, child in children)
    return next(filter(None, found), None)

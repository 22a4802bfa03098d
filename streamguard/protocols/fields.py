"""Reading the fields of a body that a budget depends on, and what many formats share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from posixpath import normpath
from typing import Any
from urllib.parse import unquote

import msgspec

from streamguard.core.pricing import as_tier
from streamguard.core.wire import Request, Served
from streamguard.errors import ProtocolError, StreamGuardError

MOST = 2**31 - 1
"""Largest count that any provider takes; more is a mistake or an attack."""

_MOST_OTHERS = 32
_NOBODY = Served()

_NAMES = frozenset(
    {
        "model", "messages", "input", "prompt", "suffix", "system", "instructions", "template",
        "context", "images", "tools", "functions", "format", "response_format", "n", "best_of",
        "max_tokens", "max_completion_tokens", "max_output_tokens", "stream", "stream_options",
        "options", "thinking", "role", "content", "name", "tool_calls", "function_call",
        "refusal", "reasoning", "reasoning_content", "models", "fallbacks", "service_tier", "speed",
    }
)  # fmt: skip


@lru_cache(maxsize=1024)
def spelled(path: str) -> str:
    """One spelling for all that servers take for the same path: ``//``, ``/./``, a slash at the
    end, percent-escapes, a query; letter case stays.
    """
    for _ in range(4):
        plain = unquote(path)
        if plain == path:
            break
        path = plain
    path = re.split(r"[?#;]", path.replace("\\", "/"), maxsplit=1)[0]
    return normpath("/" + path.strip().lstrip("/"))


def check_spelling(body: Mapping[str, Any]) -> None:
    """Refuse a body or a message with a field such as ``Messages``: servers written in Go
    (Ollama, many proxies) read it as ``messages``, and others do not.

    Source: Go's ``encoding/json``, "preferring exact matches but also accepting
    case-insensitive matches".

    Raises:
        ProtocolError: a known field in another spelling.
    """
    turns = body.get("messages")
    for holder in (body, *(turns if isinstance(turns, list) else ())):
        for key in holder if isinstance(holder, Mapping) else ():
            if key not in _NAMES and (folded := key.casefold()) in _NAMES:
                raise ProtocolError(f"write the field {folded!r} so; servers differ in the rest")


def whole(body: Mapping[str, Any], name: str, *, least: int = 1, most: int = MOST) -> int | None:
    """A whole number, ``None`` where it is absent or null.

    Raises:
        ProtocolError: a bool, a float, a string, or outside ``least``..``most``.
    """
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise ProtocolError(f"{name} must be a whole number between {least} and {most}")
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A boolean, False where it is absent or null.

    Raises:
        ProtocolError: anything else; 1 and "true" are not booleans.
    """
    value = body.get(name)
    if value is not None and type(value) is not bool:
        raise ProtocolError(f"{name} must be true or false")
    return bool(value)


def name_of(body: Mapping[str, Any], name: str = "model") -> str:
    """A non-empty string.

    Raises:
        ProtocolError: absent, empty, over 256 characters, or not a string.
    """
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 256:  # noqa: PLR2004
        raise ProtocolError(f"{name} must be a string of 1 to 256 characters")
    return value


def others_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Models that may answer instead of the one asked for.

    Source: OpenRouter's "Model Fallbacks": ``models`` is a list of names, ``fallbacks`` one of
    objects; LiteLLM's proxy takes ``fallbacks`` as names.

    Raises:
        ProtocolError: something else, or too many.
    """
    names: list[str] = []
    for key in ("models", "fallbacks"):
        given = body.get(key)
        if given is None:
            continue
        if not isinstance(given, list) or len(given) > _MOST_OTHERS:
            raise ProtocolError(f"{key} must be a list of at most {_MOST_OTHERS} models")
        names += [name_of(one if isinstance(one, Mapping) else {"model": one}) for one in given]
    return tuple(names)


def models_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The model asked for, and those that may answer instead.

    Raises:
        ProtocolError: there is none, or a name is none.
    """
    others = others_of(body)
    first = others[0] if others and body.get("model") is None else name_of(body)
    return tuple(dict.fromkeys((first, *others)))


def tier_of(body: Mapping[str, Any], *names: str) -> str:
    """The service tier asked for under one of ``names``; empty for the usual one.

    Raises:
        ProtocolError: not a string of up to 64 characters.
    """
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or len(value) > 64:  # noqa: PLR2004
            raise ProtocolError(f"{name} must be a string of at most 64 characters")
        if tier := as_tier(value):
            return tier
    return ""


def served(doc: Mapping[str, Any], before: Served = _NOBODY) -> Served:
    """The model and tier that a document names; what it leaves out stays as ``before``."""
    return Served(word(doc, "model") or before.model, word(doc, "service_tier") or before.tier)


def mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object, empty where it is absent or null.

    Raises:
        ProtocolError: not an object.
    """
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ProtocolError(f"{name} must be an object")
    return value


def objects(body: Mapping[str, Any], name: str) -> list[Any]:
    """A list of objects.

    Raises:
        ProtocolError: absent, not a list, or an item is not an object.
    """
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ProtocolError(f"{name} must be a list of objects")
    return value


def one_of(body: Mapping[str, Any], *names: str) -> str | None:
    """Which of several names for one thing is used.

    Raises:
        ProtocolError: more than one; providers differ in which one wins.
    """
    given = [name for name in names if body.get(name) is not None]
    if len(given) > 1:
        raise ProtocolError(f"{' and '.join(given)} are both set; send only one of them")
    return given[0] if given else None


def opaque(body: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Those of ``names`` that are set: they stand for input that only the provider knows."""
    return tuple(name for name in names if body.get(name))


def clamp(request: Request, output_cap: int | None) -> dict[str, Any]:
    """The change that keeps a request's own cap within ``output_cap``, or sets one."""
    own = MOST if request.output_cap is None else request.output_cap
    if output_cap is None or own <= output_cap:
        return {}
    return {request.cap_field: output_cap}


def count(usage: Any, *path: str) -> int | None:
    """A reported number of tokens, ``None`` where it is absent or not one."""
    for name in path:
        if not isinstance(usage, Mapping):
            return None
        usage = usage.get(name)
    return usage if type(usage) is int and usage >= 0 else None


def read_json(data: bytes) -> Any:
    """A provider's JSON, read as clients read it; ``None`` where it is not JSON at all.

    Lenient where request bodies are not (bytes that are not UTF-8, lone surrogates, NaN):
    whatever a client could read must be counted.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def read_object(data: bytes) -> dict[str, Any]:
    """A provider's JSON object; empty where it is none."""
    doc = read_json(data)
    return doc if isinstance(doc, dict) else {}


def word(doc: Mapping[str, Any], name: str = "type") -> str:
    """A string of a provider's document; empty where there is none."""
    value = doc.get(name)
    return value if isinstance(value, str) else ""


def child(doc: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object inside a provider's document; empty where there is none."""
    value = doc.get(name)
    return value if isinstance(value, dict) else {}


def write_json(value: Any) -> bytes:
    """JSON as the bytes of a stream; lone surrogates, which UTF-8 has not, as escapes."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def ending_error(error: StreamGuardError | None) -> StreamGuardError:
    """The error an ending tells of; without one, the upstream broke off."""
    message = "the upstream broke the stream off; the output is incomplete, ask again"
    return error or StreamGuardError(message)


def figures(error: StreamGuardError | None) -> dict[str, Any]:
    """What an ending says of the limit that cut the stream; empty when nothing is known."""
    if error is None:
        return {}
    numbers = {"code": error.http_code, "limit": error.limit, "used": error.used}
    kept = {key: _plain(value) for key, value in numbers.items() if value is not None}
    return {"streamguard": kept}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, str)) else str(value)

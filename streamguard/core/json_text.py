"""JSON as text that is counted, and safe reading of values of any shape."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from streamguard.errors import ProtocolError


def compact(value: Any, *, ascii_only: bool = False) -> str:
    """JSON without spaces.

    Raises:
        ProtocolError: nested too deeply, circular, or not JSON.
    """
    return _dumps(value, (",", ":"), ascii_only=ascii_only)


def spaced(value: Any) -> str:
    """JSON with a space after commas and colons.

    Raises:
        ProtocolError: nested too deeply, circular, or not JSON.
    """
    return _dumps(value, (", ", ": "), ascii_only=False)


def _dumps(value: Any, separators: tuple[str, str], *, ascii_only: bool) -> str:
    try:
        return json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    except (TypeError, ValueError, RecursionError):
        message = "the body holds a value that is not JSON or is nested too deeply; flatten it"
        raise ProtocolError(message) from None


def canonical(text: str) -> str:
    """JSON text rewritten without spaces; the text itself when it is not JSON."""
    try:
        return compact(json.loads(text))
    except (ValueError, RecursionError, ProtocolError):
        return text


def as_list(value: Any) -> Sequence[Any]:
    """A list; empty for anything else."""
    return value if isinstance(value, list) else ()


def many(value: Any) -> Sequence[Any]:
    """A list; another value as a list of it alone, as lenient servers read it; null is empty."""
    if isinstance(value, list):
        return value
    return () if value is None else (value,)


def as_map(value: Any) -> Mapping[str, Any]:
    """A mapping; empty for anything else."""
    return value if isinstance(value, Mapping) else {}


def as_text(value: Any) -> str:
    """A string; other JSON as its text, null as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else compact(value)


def maps(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list."""
    return [item for item in as_list(value) if isinstance(item, Mapping)]

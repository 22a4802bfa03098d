"""Where in a TOML file a key stands, so that an error can name the line."""

from __future__ import annotations

import re

Place = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w*-]+|"[^"]*"|'[^']*'""")
_WHERE = re.compile(r"[\w.*-]+\[\d+\]|\b(?:plans|tenants)\.[\w*-]+|\btell(?:\.\w+)*")
_NAMED = re.compile(r"""['"]([\w.*-]+)['"]|\b([a-z_]+)\s*(?:=|:| must\b)""")


def line_of(text: str, message: str) -> int:
    """The line, from 1, of the key that an error message is about, as near as the text tells.

    Messages name tables by their place (``plans.free: limits[1]``) and keys as ``key=`` or
    ``'key'``.
    """
    lines = _lines(text)
    base: Place = ()
    for found in _WHERE.finditer(message):
        base = _nearest(lines, base, base + _parts(found[0]))
    for found in _NAMED.finditer(message):
        place = (*base, found[1] or found[2])
        if place in lines:
            return lines[place]
    return lines.get(base, 1)


def _nearest(lines: dict[Place, int], base: Place, place: Place) -> Place:
    """The innermost part of a place below ``base`` that has a line: inline tables have none."""
    ends = range(len(place), len(base), -1)
    return next((place[:end] for end in ends if place[:end] in lines), base)


def _lines(text: str) -> dict[Place, int]:
    """Every table and key of the file with its line."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            place = table = _table(header, counts)
        elif key := _KEY.match(line):
            place = table + _parts(key[1])
        else:
            continue
        for depth in range(1, len(place) + 1):
            found.setdefault(place[:depth], number)
    return found


def _table(header: re.Match[str], counts: dict[Place, int]) -> Place:
    """The place that a table header begins; lists of tables are counted."""
    place: Place = ()
    parts = _parts(header[2])
    for at, part in enumerate(parts):
        place = (*place, part)
        if header[1] == "[[" and at == len(parts) - 1:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _parts(dotted: str) -> Place:
    """``plans.free`` or ``limits[1]`` as a place."""
    name, _, index = dotted.partition("[")
    parts = tuple(part.strip("\"'") for part in _PART.findall(name))
    return (*parts, int(index.rstrip("]"))) if index else parts

"""A column chart for the terminal, out of block characters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

BLOCKS = " ▁▂▃▄▅▆▇█"
HEIGHT = 6
WIDTH = 72


def steps(series: Sequence[dict[str, Any]], step: int) -> list[tuple[int, int]]:
    """(start, tokens) of every step from the first to the last, quiet ones as 0."""
    if not series:
        return []
    tokens = {row["at"]: row["total_tokens"] or 0 for row in series}
    return [(at, tokens.get(at, 0)) for at in range(min(tokens), max(tokens) + step, step)]


def merged(points: Sequence[tuple[int, int]], width: int = WIDTH) -> list[tuple[int, int]]:
    """At most ``width`` points: neighbours are added up, the same number everywhere."""
    each = -(-len(points) // width)
    parts = (points[start : start + each] for start in range(0, len(points), each or 1))
    return [(part[0][0], sum(tokens for _at, tokens in part)) for part in parts]


def columns(values: Sequence[int], height: int = HEIGHT) -> list[str]:
    """The chart's lines, top first; a value above 0 is always seen."""
    most = max(values, default=0) or 1
    eighths = [-(-value * height * 8 // most) for value in values]
    return [
        "".join(BLOCKS[max(0, min(8, level - 8 * row))] for level in eighths)
        for row in reversed(range(height))
    ]


def chart(series: Sequence[dict[str, Any]], step: int) -> str:
    """Tokens by time, with the largest column's figure and the first and last time."""
    points = merged(steps(series, step))
    if not points:
        return ""
    values = [tokens for _at, tokens in points]
    lines = columns(values)
    spread = (len(points) and (points[-1][0] - points[0][0]) // max(1, len(points) - 1)) or step
    first, last = (_when(at) for at in (points[0][0], points[-1][0]))
    ends = first if len(points) == 1 else f"{first}{last:>{max(len(points) - len(first), 18)}}"
    title = f"tokens per {_span(spread)}, at most {max(values):,}"
    return "\n".join([title, *(f"│{line}" for line in lines), f"└{'─' * len(values)}", f" {ends}"])


def _when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _span(seconds: int) -> str:
    for name, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % length == 0:
            count = seconds // length
            return name if count == 1 else f"{count} {name}s"
    return f"{seconds} s"

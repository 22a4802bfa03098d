"""A picture of the window: for the terminal (rich) and as SVG.

Colours are Okabe and Ito's, told apart by the colour-blind; every part also has a letter and its
figures, so nothing is said by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamguard.planner.report import Report

_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999",
)  # fmt: skip
_FREE, _RESERVED = "#FFFFFF", "#4D4D4D"
_BAR = 64
_LINE, _TOP = 20, 74


class Band(NamedTuple):
    """One part of the window, from left to right."""

    letter: str
    name: str
    tokens: int
    colour: str
    note: str


def bands(report: Report) -> list[Band]:
    """The window's parts: components, overhead, summaries, what is free, the output's reserve."""
    parts: list[tuple[str, int, str]] = [
        (each.name, each.tokens, _trimmed(each.trimmed, each.needed - each.tokens))
        for each in report.components
        if each.needed
    ]
    if report.summaries:
        parts.append(("summaries", report.summaries, "of what was dropped"))
    parts.append(("overhead", report.overhead, "tools, formats, priming"))
    found = [
        Band(chr(ord("A") + at % 26), name, tokens, _COLOURS[at % len(_COLOURS)], note)
        for at, (name, tokens, note) in enumerate(parts)
    ]
    found.append(Band("·", "free", report.remaining, _FREE, "could still be added"))
    found.append(Band("▒", "output", report.reserve, _RESERVED, "reserved"))
    return found


def renderable(report: Report) -> RenderableType:
    """A bar of the window and a table of its parts, for ``rich``."""
    found = bands(report)
    bar = Text()
    for band, cells in zip(found, _cells([band.tokens for band in found], _BAR), strict=True):
        bar.append(
            band.letter * cells, style="dim" if band.letter == "·" else f"bold {band.colour}"
        )
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("component")
    table.add_column("tokens", justify="right")
    table.add_column("of window", justify="right")
    table.add_column("")
    for band in found:
        share = f"{band.tokens / report.window:.1%}"
        letter = Text(band.letter, style=f"bold {band.colour}")
        table.add_row(letter, band.name, f"{band.tokens:,}", share, band.note)
    return Group(Text(_title(report)), bar, table)


def svg(report: Report, width: int) -> str:
    """The same as an SVG image; its text is real text, its title and description are read out."""
    found = bands(report)
    height = _TOP + _LINE * len(found) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}"',
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(_title(report))}</title>",
        f"<desc>{escape('; '.join(f'{b.name} {b.tokens:,} tokens' for b in found))}</desc>",
        f'<rect width="{width}" height="{height}" fill="#FFFFFF"/>',
        f'<text x="10" y="22" font-weight="600" fill="#111111">{escape(_title(report))}</text>',
        *_bar(found, report.window, width - 20),
        *_legend(found, report.window),
        "</svg>",
    ]
    return "\n".join(lines)


def _bar(found: Sequence[Band], window: int, width: int) -> Iterator[str]:
    x = 10.0
    for band in found:
        size = width * band.tokens / window
        yield (
            f'<rect x="{x:.1f}" y="34" width="{size:.1f}" height="26" fill="{band.colour}" '
            'stroke="#111111" stroke-width="0.5"/>'
        )
        if size > 14:  # noqa: PLR2004 - pixels that a letter takes
            yield (
                f'<text x="{x + size / 2:.1f}" y="52" text-anchor="middle" font-weight="600" '
                f'fill="{_ink(band.colour)}">{band.letter}</text>'
            )
        x += size


def _legend(found: Sequence[Band], window: int) -> Iterator[str]:
    for at, band in enumerate(found):
        y = _TOP + _LINE * at
        note = f" ({band.note})" if band.note else ""
        said = f"{band.letter}  {band.name}: {band.tokens:,} tokens, {band.tokens / window:.1%}"
        yield (
            f'<rect x="10" y="{y}" width="12" height="12" fill="{band.colour}" stroke="#111111" '
            'stroke-width="0.5"/>'
        )
        yield f'<text x="30" y="{y + 11}" fill="#111111">{escape(said + note)}</text>'


def _cells(tokens: Sequence[int], width: int) -> list[int]:
    """Whole cells in proportion that add up to ``width``; what is there gets one at least."""
    total = max(1, sum(tokens))
    cells = [max(1, round(width * each / total)) if each > 0 else 0 for each in tokens]
    widest = max(range(len(cells)), key=lambda at: cells[at])
    cells[widest] += width - sum(cells)
    return cells


def _title(report: Report) -> str:
    return (
        f"{report.model}: {report.input_tokens:,} input tokens ({report.method}) of "
        f"{report.window:,}, {report.remaining:,} free, {report.reserve:,} reserved for the output"
    )


def _trimmed(units: int, tokens: int) -> str:
    return f"{units:,} trimmed, {tokens:,} tokens" if units else ""


def _ink(colour: str) -> str:
    """Black or white, whichever is read better on the colour (WCAG relative luminance)."""
    red, green, blue = (_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return "#111111" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#FFFFFF"  # noqa: PLR2004


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4  # noqa: PLR2004

"""What ``streamguard usage`` found, as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from streamguard.cli.usage_plot import chart

Found = Mapping[str, Any]
_FIGURES = ("calls", "cut", "refused", "input_tokens", "output_tokens", "cost_usd")
_DRIFT = (
    *("model", "method", "calls", "exact", "under", "input_counted", "input_reported"),
    *("input_drift", "worst_under", "output_drift"),
)
_OUTLIER = (
    *("at", "request_id", "tenant", "user", "feature", "model", "total_tokens"),
    *("outcome", "cost_usd"),
)
_MANY = 5
_GROWTH = ("conversation", "tenant", "user", "feature", "model", "calls", "input_tokens")


def wide_console() -> Console:
    """The terminal, or lines long enough for a table where the output goes elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def show(found: Found) -> None:
    """Print what was asked for."""
    console = wide_console()
    if not found["totals"]["calls"]:
        console.print("no calls in this period")
        return
    _totals(console, found["totals"])
    for by, rows in found.get("top", {}).items():
        _table(console, f"by {by}", (by, *_FIGURES), rows)
    console.print(chart(found["series"], found["step"]), markup=False, soft_wrap=True)
    if "outliers" in found:
        title = f"calls over {found['over']:,} tokens"
        _table(console, title, _OUTLIER, found["outliers"])
    if "growth" in found:
        _table(console, "conversations whose prompt grew most", _GROWTH, found["growth"])
    if "drift" in found:
        _table(console, "counted against reported", _DRIFT, found["drift"])


def _totals(console: Console, totals: Found) -> None:
    first, last = (_when(totals[name]) for name in ("first_at", "last_at"))
    console.print(f"{totals['calls']:,} calls, {first} to {last} UTC")
    console.print(
        f"{totals['settled']:,} settled ({totals['cut']:,} of them cut), "
        f"{totals['refused']:,} refused; {_number(totals['input_tokens'])} input and "
        f"{_number(totals['output_tokens'])} output tokens; {dollars(totals['cost_usd'])}"
    )
    if totals["unpriced"]:
        console.print(f"{totals['unpriced']:,} calls have no known price and are not in the cost")
    if totals["cached_tokens"] or totals["cache_write_tokens"]:
        console.print(
            f"of the input, {_number(totals['cached_tokens'])} tokens were read from a cache and "
            f"{_number(totals['cache_write_tokens'])} written to one"
        )


def _table(
    console: Console, title: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    console.print(f"\n[bold]{title}[/bold]")
    if not rows:
        console.print("none")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        numeric = any(isinstance(row.get(name), int | float) for row in rows) and name != "at"
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(name, row.get(name)) for name in names))
    console.print(table)


def _cell(name: str, value: Any) -> str:
    form = _FORMS.get(name, _number)
    return form(value).replace("[", "\\[")


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def dollars(value: float | None) -> str:
    """An amount for people: to the millionth where it is below a dollar."""
    if value is None:
        return "-"
    return f"${value:,.2f}" if value >= 1 else f"${value:.6f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2%}"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _grown(value: Any) -> str:
    if not isinstance(value, list):
        return _number(value)
    known = [f"{tokens:,}" for tokens in value if tokens is not None]
    return " → ".join([*known[:2], "…", *known[-2:]] if len(known) > _MANY else known)


_FORMS: dict[str, Callable[[Any], str]] = {
    "at": _when,
    "cost_usd": dollars,
    "input_drift": _percent,
    "output_drift": _percent,
    "input_tokens": _grown,
    "conversation": lambda value: str(value)[:12],
    "request_id": lambda value: str(value)[:20],
}

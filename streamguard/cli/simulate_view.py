"""What a replay found, as tables and plots for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from streamguard.cli.usage_plot import chart
from streamguard.cli.usage_view import dollars, wide_console

Found = Mapping[str, Any]


def show(found: Found) -> None:
    """Print the totals, the limits that acted, the parts, and both plots."""
    console = wide_console()
    totals = found["totals"]
    if not totals["calls"]:
        console.print("no settled calls to replay")
        return
    _totals(console, totals)
    _limits(console, found["limits"])
    _parts(console, found["by"], found["top"])
    for name in ("before", "after"):
        series = [
            {"at": row["at"], "total_tokens": row[f"tokens_{name}"]} for row in found["series"]
        ]
        title = "as recorded" if name == "before" else "under these limits"
        console.print(f"\n[bold]{title}[/bold]")
        console.print(chart(series, found["step"]), markup=False, soft_wrap=True)


def _totals(console: Console, totals: Found) -> None:
    calls, refused, cut = (totals[name] for name in ("calls", "refused", "cut"))
    console.print(
        f"{calls:,} calls: {refused:,} would be refused ({refused / calls:.1%}), {cut:,} cut "
        f"({cut / calls:.1%}), {calls - refused - cut:,} pass unchanged"
    )
    console.print(
        f"tokens {totals['tokens_before']:,} -> {totals['tokens_after']:,}, "
        f"spent {dollars(totals['cost_usd_before'])} -> {dollars(totals['cost_usd_after'])}"
    )
    if totals["unpriced"]:
        console.print(f"{totals['unpriced']:,} calls have no recorded cost")


def _limits(console: Console, limits: Sequence[Found]) -> None:
    for row in limits:
        console.print(f"  {row['limit']}: {row['outcome']} {row['calls']:,}", markup=False)


def _parts(console: Console, by: str, rows: Sequence[Found]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(by)
    for name in ("calls", "refused", "cut", "tokens", "-> tokens", "spent", "-> spent"):
        table.add_column(name, justify="right")
    for row in rows:
        figures = [f"{row[name]:,}" for name in _COUNTS]
        money = [dollars(row[name]) for name in ("cost_usd_before", "cost_usd_after")]
        table.add_row(str(row[by] or "-").replace("[", "\\["), *figures, *money)
    console.print()
    console.print(table)


_COUNTS = ("calls", "refused", "cut", "tokens_before", "tokens_after")

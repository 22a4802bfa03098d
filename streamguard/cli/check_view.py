"""What ``streamguard check`` found, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from streamguard.cli.usage_view import wide_console


def show(found: Mapping[str, Any]) -> None:
    """Print the store, the limits in words and dollars, the settings, the warnings."""
    console = wide_console()
    store = found["store"]
    state = "answers" if store["ok"] else f"does not work: {store['problem']}"
    console.print(f"{found['config']}: valid; store {store['kind']} {state}", markup=False)
    for url in found["upstreams"]:
        console.print(f"forwards to {url}", markup=False)
    console.print(_limits(found["limits"]))
    for name, value in found["settings"].items():
        if value not in (None, [], {}, False):
            console.print(f"{name} = {json.dumps(value)}", markup=False)
    for warning in found["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}")


def _limits(limits: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    for name in ("limit", "allows", "with"):
        table.add_column(name)
    for name in ("at least", "at most", "30 days"):
        table.add_column(name, justify="right")
    for limit in limits:
        name = limit["name"] if limit["plan"] is None else f"{limit['plan']}: {limit['name']}"
        cells = [name, limit["words"]]
        for row in limit["dollars"]:
            money = (_usd(row[key]) for key in ("low", "high", "month"))
            table.add_row(*map(escape, cells), escape(row["model"]), *money)
            cells = ["", ""]
    return table


def _usd(amount: float | None) -> str:
    if amount is None:
        return "-"
    return f"${amount:,.2f}" if amount >= 0.01 else f"${amount:.6f}"  # noqa: PLR2004

"""What the demo shows in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

Figures = Mapping[str, Any]

_INTRO = (
    "A model server, a guarded app in front of it, and the ordinary openai client: all on this "
    "machine, over real HTTP. No key, no account, nothing leaves it."
)
_TITLES = {
    "stream": "A stream within its budget",
    "cut": "A stream that would run on",
    "incident": "The night of the retry loop",
    "window": "A tenant's minute runs out",
    "fallback": "A model's day is spent",
}
_LEDES = {
    "stream": "It passes as it is.",
    "cut": "This model server does not honour max_tokens. The budget is 120 tokens: the guard ends "
    "the reply at the exact token, in the protocol's own form, and closes the upstream.",
    "incident": "An agent keeps every answer in its conversation and tries every error again. The "
    "guard's rule: no prompt over 32,000 tokens. One bar a turn, as tall as the prompt; one x for "
    "fifteen requests that were refused.",
    "window": "500 tokens a minute for one tenant: its last reply is cut to what is left, the next "
    "call is told when to come back, other tenants go on.",
    "fallback": "A quarter of a cent a day for gpt-4o. When it is spent, a cheaper model answers "
    "instead of an error.",
}


class Screen:
    """Shows each scene as it plays, then its figures."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.console.print("\n[bold]streamguard demo[/bold]")
        self._say(_INTRO)

    def hear(self, name: str, figures: Figures | None) -> None:
        """A scene begins (``None``), or ended with these figures."""
        if figures is None:
            self.console.print()
            self.console.rule(f"[bold]{_TITLES[name]}", align="left")
            self._say(f"[italic]{_LEDES[name]}[/]\n")
        else:
            self.console.print("\n")
            self.console.print(Padding(_TABLES[name](figures), (0, 0, 0, 2)))

    def watch(self, text: str) -> None:
        """What happens in a scene, as it happens."""
        self.console.print(text, end="", style="dim cyan", markup=False, soft_wrap=True)

    def close(self, figures: Figures) -> None:
        """The moral."""
        incident = figures["scenes"]["incident"]
        self.console.rule()
        self.console.print(
            f"[bold green]Saved in one night: ${incident['saved_usd']:.2f}[/] and "
            f"{incident['without']['oversized_upstream']} oversized requests. "
            f"All of this took {figures['seconds']:.1f} s.\n"
        )

    def _say(self, text: str) -> None:
        self.console.print(text, width=min(self.console.width, 100))


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _stream(figures: Figures) -> Table:
    return _reply(figures, figures["finish_reason"], "")


def _cut(figures: Figures) -> Table:
    closed = f"closed {figures['upstream_closed_after_ms']} ms after the last token"
    return _reply(figures, f"[bold yellow]{figures['finish_reason']}[/]", closed)


def _reply(figures: Figures, finish: str, closed: str) -> Table:
    table = _table("", "tokens", "finish_reason")
    if "budget_tokens" in figures:
        table.add_row("the budget", str(figures["budget_tokens"]), "")
    table.add_row("the client got", str(figures["received_tokens"]), finish)
    table.add_row("the model server sent", str(figures["upstream_sent_tokens"]), closed)
    return table


def _incident(figures: Figures) -> Table:
    table = _table("", "unguarded", "guarded", "+ retry_policy")
    three = (figures["without"], figures["with"], figures["with_retry_policy"])
    labels = {
        "requests_made": "requests the loop made",
        "requests_upstream": "requests sent upstream",
        "oversized_upstream": "oversized ones of them",
        "oversized_tokens_upstream": "rate limit they used up",
        "tokens_billed": "tokens billed",
    }
    for key, label in labels.items():
        table.add_row(label, *(f"{side[key]:,}" for side in three))
    table.add_row("dollars", *(f"${side['cost_usd']:.2f}" for side in three), style="bold")
    table.add_row("refused at last with", *(str(side["last_status"]) for side in three))
    return table


def _window(figures: Figures) -> Table:
    table = _table("call", "status", "what it is told")
    for number, call in enumerate(figures["calls"], start=1):
        if call["status"] == HTTPStatus.OK:
            table.add_row(str(number), "[green]200[/]", f"{call['remaining']:,} tokens left")
        else:
            told = f"{call['code']}: come back in {call['retry_after']} s"
            table.add_row(str(number), f"[bold red]{call['status']}[/]", told)
    table.add_row("another tenant", "[green]200[/]", figures["other_tenant_finish_reason"])
    return table


def _fallback(figures: Figures) -> Table:
    table = _table("call", "asked for", "answered by", "cost")
    for number, call in enumerate(figures["calls"], start=1):
        same = call["answered_by"] == figures["asked_for"]
        answered = f"[{'green' if same else 'yellow'}]{call['answered_by']}[/]"
        table.add_row(str(number), figures["asked_for"], answered, f"${call['cost_usd']:.6f}")
    return table


_TABLES: Mapping[str, Callable[[Figures], Table]] = {
    "stream": _stream,
    "cut": _cut,
    "incident": _incident,
    "window": _window,
    "fallback": _fallback,
}

"""``streamguard demo``: the whole story on this machine, with real servers and a real client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from streamguard.cli.demo_scenes import Figures, Stage, Watch

    Scene = Callable[[Stage, Watch], Awaitable[Figures]]

_INTRO = (
    "A model server, a guarded app in front of it, and the ordinary openai client: all on this "
    "machine, over real HTTP. No key, no account, nothing leaves it."
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all figures.")
def demo(as_json: bool) -> None:
    """See a stream pass, a stream cut, a runaway loop stopped and a budget run out."""
    if as_json:
        click.echo(
            json.dumps(asyncio.run(_play(lambda _title: None, lambda _text: None)), indent=2)
        )
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"\n[bold]streamguard demo[/bold]\n{_INTRO}")

    def watch(text: str) -> None:
        console.print(text, end="", style="dim", markup=False, soft_wrap=True)

    figures = asyncio.run(_play(lambda title: console.rule(f"[bold]{title}", align="left"), watch))
    _report(console, figures)


async def _play(announce: Callable[[str], None], watch: Watch) -> dict[str, Any]:
    from streamguard.cli import demo_scenes as scenes

    plan: tuple[tuple[str, str, Scene], ...] = (
        ("stream", "1. A stream within its budget", scenes.normal_stream),
        ("cut", "2. A stream that would run on", scenes.cut_stream),
        ("incident", "3. A loop that resends an oversized prompt all night", scenes.incident),
        ("window", "4. A tenant's minute runs out", scenes.window),
    )
    began, figures = time.monotonic(), {}
    with scenes.stage() as stage:
        for name, title, scene in plan:
            announce(title)
            figures[name] = dict(await scene(stage, watch))
            watch("\n")
    return {"scenes": figures, "seconds": round(time.monotonic() - began, 2)}


def _report(console: Console, figures: Mapping[str, Any]) -> None:
    scenes = figures["scenes"]
    console.rule("[bold]What happened", align="left")
    console.print(_streams_table(scenes["stream"], scenes["cut"]))
    console.print(_incident_table(scenes["incident"]))
    console.print(_window_table(scenes["window"]))
    console.print(
        f"\n[bold green]Saved in one night: ${scenes['incident']['saved_usd']:.2f}[/] and "
        f"{scenes['incident']['without']['oversized_upstream']} oversized requests. "
        f"The demo took {figures['seconds']:.1f} s.\n"
    )


def _table(title: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _streams_table(stream: Figures, cut: Figures) -> Table:
    table = _table("Streams", "", "within its budget", "cut at its budget")
    closed = f"{cut['upstream_closed_after_ms']} ms after the last token"
    rows = (
        ("budget", "none", f"{cut['budget_tokens']} tokens"),
        ("the client got", f"{stream['received_tokens']} tokens",
         f"{cut['received_tokens']} tokens"),
        ("the model server sent", f"{stream['upstream_sent_tokens']} tokens",
         f"{cut['upstream_sent_tokens']} tokens"),
        ("finish_reason", stream["finish_reason"], cut["finish_reason"]),
        ("upstream closed", "at its end", closed),
    )  # fmt: skip
    for row in rows:
        table.add_row(*row)
    return table


def _incident_table(incident: Figures) -> Table:
    table = _table("The night of the retry loop", "", "without streamguard", "with it")
    labels = {
        "requests_made": "requests the loop made",
        "requests_upstream": "requests that reached the model server",
        "oversized_upstream": "oversized ones among them",
        "oversized_tokens_upstream": "tokens of rate limit they burnt",
        "tokens_billed": "tokens billed",
    }
    pair = (incident["without"], incident["with"])
    for key, label in labels.items():
        table.add_row(label, *(f"{side[key]:,}" for side in pair))
    table.add_row("dollars", *(f"${side['cost_usd']:.2f}" for side in pair), style="bold")
    table.add_row("what the loop saw in the end", *(side["last_error"] for side in pair))
    return table


def _window_table(window: Figures) -> Table:
    table = _table(
        f"A minute of {window['budget_tokens']} tokens", "call", "status", "left after it"
    )
    for number, call in enumerate(window["calls"], start=1):
        if call["status"] == HTTPStatus.OK:
            table.add_row(str(number), "[green]200[/]", f"{call['remaining']:,} tokens")
        else:
            again = f"retry after {call['retry_after']} s"
            table.add_row(str(number), f"[red]{call['status']} {call['code']}[/]", again)
    table.add_row("another tenant", "[green]200[/]", "not touched")
    return table

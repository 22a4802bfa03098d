"""``streamguard demo``: the whole story on this machine, with real servers and a real client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from streamguard.cli.demo_scenes import Figures, Stage, Watch

    Scene = Callable[[Stage, Watch], Awaitable[Figures]]
    Hear = Callable[[str, Figures | None], None]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all figures.")
def demo(as_json: bool) -> None:
    """See a stream pass, a stream cut, a runaway loop stopped and a budget run out."""
    asyncio.run(_print() if as_json else _show())


async def _print() -> None:
    figures = await _play(lambda _name, _figures: None, lambda _text: None)
    click.echo(json.dumps(figures, indent=2))


async def _show() -> None:
    from streamguard.cli.demo_tables import Screen

    screen = Screen()
    screen.close(await _play(screen.hear, screen.watch))


async def _play(hear: Hear, watch: Watch) -> dict[str, Any]:
    """All scenes; ``hear`` is told of each as it begins (no figures yet) and ends."""
    from streamguard.cli import demo_scenes as scenes
    from streamguard.cli.demo_fallback import fallback
    from streamguard.cli.demo_incident import incident

    plan: dict[str, Scene] = {
        "stream": scenes.normal_stream,
        "cut": scenes.cut_stream,
        "incident": incident,
        "window": scenes.window,
        "fallback": fallback,
    }
    began = time.monotonic()
    figures: dict[str, Figures] = {}
    with scenes.stage() as stage:
        for name, scene in plan.items():
            hear(name, None)
            figures[name] = await scene(stage, watch)
            hear(name, figures[name])
    return {"scenes": figures, "seconds": round(time.monotonic() - began, 2)}

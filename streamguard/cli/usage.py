"""``streamguard usage``: what the ledger knows."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from streamguard.cli.ledger import checked_period, ledger_options, opened, step_of
from streamguard.limits import DIMENSIONS


@click.command()
@ledger_options
@click.option(
    "--by",
    type=click.Choice(DIMENSIONS),
    multiple=True,
    default=("tenant", "model"),
    show_default=True,
    help="Top values of this; give it again for more.",
)
@click.option("--tenant", help="Only this tenant; likewise the next four.")
@click.option("--user")
@click.option("--feature")
@click.option("--model")
@click.option("--endpoint")
@click.option("--outliers", type=click.IntRange(0), metavar="TOKENS", help="Calls of more tokens.")
@click.option("--growth", is_flag=True, help="Conversations whose prompt grew most.")
@click.option("--drift", is_flag=True, help="Counted against reported tokens, by model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def usage(db: str, as_json: bool, **asked: Any) -> None:
    """Totals, top spenders and a plot; outliers, growing prompts and drift when asked for.

    \b
    streamguard usage --since 7d --by user --by feature
    streamguard usage --outliers 100000
    streamguard usage --tenant acme --growth
    """  # noqa: D301 - click's mark for lines to keep
    found = _ask(db, asked)
    if as_json:
        click.echo(json.dumps(found))
        return
    from streamguard.cli.usage_view import show

    show(found)


def _ask(db: str, asked: dict[str, Any]) -> dict[str, Any]:
    since, until = checked_period(asked["since"], asked["until"])
    with opened(db) as engine:
        from streamguard.sinks.ledger_queries import Ledger, Period

        only: dict[str, str] = {name: asked[name] for name in DIMENSIONS if asked[name] is not None}
        return _answers(Ledger(engine), Period(since, until, only), asked)


def _answers(ledger: Any, period: Any, asked: dict[str, Any]) -> dict[str, Any]:
    totals = ledger.totals(period)
    step = step_of(asked["every"], _spread(totals))
    found = {
        "since": period.since,
        "until": period.until,
        "only": period.only,
        "totals": totals,
        "top": {by: ledger.top(by, asked["top"], period) for by in asked["by"]},
        "step": step,
        "series": ledger.series(step, period),
    }
    if asked["outliers"] is not None:
        found |= {
            "over": asked["outliers"],
            "outliers": ledger.outliers(asked["outliers"], asked["top"], period),
        }
    if asked["growth"]:
        found["growth"] = ledger.growth(asked["top"], period)
    if asked["drift"]:
        found["drift"] = ledger.drift(period)
    return found


def _spread(totals: dict[str, Any]) -> float:
    """Seconds from the first call to the last; without any, a day is the step."""
    first, last = totals["first_at"], totals["last_at"]
    return math.inf if first is None else last - first

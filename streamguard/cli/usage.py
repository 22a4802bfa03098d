"""``streamguard usage``: what the ledger knows."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import click

from streamguard.errors import ConfigurationError
from streamguard.limits import DIMENSIONS

DEFAULT_DB = "sqlite:///usage.db"
_STEPS = {"minute": 60, "hour": 3_600, "day": 86_400}
_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([1-9]\d{0,5})([mhdw])")
_FINE = 3 * 86_400  # a shorter period is plotted by hour


class Moment(click.ParamType[float]):
    """A time: 90m, 24h, 7d or 2w ago, or an ISO date or time (UTC unless it says otherwise)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Unix seconds."""
        if ago := _AGO.fullmatch(str(value)):
            return time.time() - int(ago[1]) * _UNITS[ago[2]]
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            known = "24h, 7d, 2026-11-24 or 2026-11-24T09:00"
            self.fail(f"{value!r} is no time; write {known}", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@click.command()
@click.option(
    "--db",
    envvar="STREAMGUARD_DB",
    default=DEFAULT_DB,
    show_default=True,
    show_envvar=True,
    help="The ledger: sqlite:///FILE or postgresql://USER@HOST/NAME.",
)
@click.option("--since", type=Moment(), help="From then on: 24h, 7d, 2026-11-24, ….")
@click.option("--until", type=Moment(), help="Before then.")
@click.option(
    "--by",
    type=click.Choice(DIMENSIONS),
    multiple=True,
    default=("tenant", "model"),
    show_default=True,
    help="Top values of this; give it again for more.",
)
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 1000))
@click.option("--tenant", help="Only this tenant; likewise the next four.")
@click.option("--user")
@click.option("--feature")
@click.option("--model")
@click.option("--endpoint")
@click.option("--every", type=click.Choice(list(_STEPS)), help="The plot's step; fitted if absent.")
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
    try:
        from sqlalchemy.exc import SQLAlchemyError

        from streamguard.sinks.ledger_queries import Ledger, Period
    except ImportError as error:
        raise ConfigurationError("the ledger needs pip install 'streamguard[sql]'") from error
    only: dict[str, str] = {name: asked[name] for name in DIMENSIONS if asked[name] is not None}
    engine = _engine(db)
    try:
        return _answers(Ledger(engine), Period(asked["since"], asked["until"], only), asked)
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"cannot read a usage ledger at {_shown(db)} ({type(error).__name__}); is it the one "
            "that LedgerSink writes, can it be reached, and did this version's LedgerSink open it?"
        ) from error
    finally:
        engine.dispose()


def _engine(db: str) -> Any:
    from streamguard.sinks.ledger_database import connect, file_of

    file = file_of(db)
    if file is not None and not file.is_file():
        raise ConfigurationError(f"no usage ledger at {file}; name it with --db")
    return connect(db)


def _shown(db: str) -> str:
    from streamguard.sinks.ledger_table import shown_url

    return shown_url(db)


def _answers(ledger: Any, period: Any, asked: dict[str, Any]) -> dict[str, Any]:
    totals = ledger.totals(period)
    step = _STEPS[asked["every"] or _fitting(totals)]
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


def _fitting(totals: dict[str, Any]) -> str:
    if totals["first_at"] is None:
        return "day"
    return "hour" if totals["last_at"] - totals["first_at"] < _FINE else "day"

"""The usage ledger on the command line: which calls of which ledger, and what is wrong with it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from streamguard.errors import ConfigurationError

_STEPS = {"minute": 60, "hour": 3_600, "day": 86_400}
_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([1-9]\d{0,5})([mhdw])")
_DAYS = {"today": 0, "yesterday": 1}
_FINE = 3 * 86_400  # a shorter period is plotted by hour


class Moment(click.ParamType[float]):
    """A time: 90m, 24h, 7d or 2w ago, the beginning of today or yesterday, or an ISO date or time;
    UTC unless it says otherwise.
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Unix seconds."""
        if ago := _AGO.fullmatch(str(value)):
            return time.time() - int(ago[1]) * _UNITS[ago[2]]
        if value in _DAYS:
            return (time.time() // 86_400 - _DAYS[value]) * 86_400
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            known = "24h, 7d, yesterday, 2026-11-24 or 2026-11-24T09:00"
            self.fail(f"{value!r} is no time; write {known}", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_OPTIONS = (
    click.option(
        "--db",
        envvar="STREAMGUARD_DB",
        default="sqlite:///usage.db",
        show_default=True,
        show_envvar=True,
        help="The ledger: sqlite:///FILE or postgresql://USER@HOST/NAME.",
    ),
    click.option(
        "--since",
        type=Moment(),
        help="Calls from then on: 24h, 7d, yesterday, 2026-11-24, … (UTC).",
    ),
    click.option("--until", type=Moment(), help="Calls before then."),
    click.option(
        "--top",
        default=10,
        show_default=True,
        type=click.IntRange(1, 1000),
        help="How many of each, the largest first.",
    ),
    click.option(
        "--every", type=click.Choice(list(_STEPS)), help="The plot's step; fitted if absent."
    ),
)


def ledger_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--db``, ``--since``, ``--until``, ``--top`` and ``--every``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def checked_period(since: float | None, until: float | None) -> tuple[float | None, float | None]:
    """Raise ``click.UsageError`` for a period that ends before it begins."""
    if since is not None and until is not None and until <= since:
        raise click.UsageError("--until is not after --since, so no call is in between")
    return since, until


def step_of(every: str | None, spread: float) -> int:
    """Seconds between two points of a plot, as asked or to fit ``spread`` seconds."""
    return _STEPS[every or ("hour" if spread < _FINE else "day")]


@contextmanager
def opened(url: str, otherwise: str = "") -> Iterator[Any]:
    """A ledger's engine, to read it; ``otherwise`` is what may be named in its stead.

    Raises:
        ConfigurationError: no ledger there, or it cannot be read.
    """
    try:
        from sqlalchemy import exc

        from streamguard.sinks.ledger_database import connect, file_of
        from streamguard.sinks.ledger_table import shown_url
    except ImportError as error:
        raise ConfigurationError("the ledger needs pip install 'streamguard[sql]'") from error
    file = file_of(url)
    if file is not None and not file.is_file():
        raise ConfigurationError(f"no usage ledger at {file}; name it with --db{otherwise}")
    engine = connect(url)
    try:
        yield engine
    except exc.SQLAlchemyError as error:
        raise ConfigurationError(
            f"cannot read a usage ledger at {shown_url(url)} ({type(error).__name__}); is it the "
            "one that LedgerSink writes, can it be reached, and did this version's LedgerSink "
            "open it?"
        ) from error
    finally:
        engine.dispose()

"""Recorded calls for a replay: from the usage ledger, or from a log of JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.cli.ledger import opened
from streamguard.core.replay import Record
from streamguard.errors import ConfigurationError
from streamguard.limits import DIMENSIONS

_NAMES: dict[str, tuple[str, ...]] = {
    "event": ("event",),
    "at": ("streamguard.at", "at"),
    "seconds": ("streamguard.duration", "duration"),
    "tenant": ("streamguard.tenant", "tenant"),
    "user": ("user.id", "user_id", "user"),
    "feature": ("streamguard.feature", "feature"),
    "model": ("gen_ai.request.model", "model"),
    "endpoint": ("streamguard.endpoint", "endpoint"),
    "within": ("streamguard.within", "within"),
    "input": ("streamguard.charged.input_tokens", "charged_input", "input_tokens"),
    "output": ("streamguard.charged.output_tokens", "charged_output", "output_tokens"),
    "cap": ("streamguard.output_limit", "output_limit"),
    "cost": ("streamguard.cost", "cost_nano_usd"),
}
"""What a field may be called: in streamguard's own log, in its ledger, in a list made by hand."""

_MICRO = 1_000_000
_YEAR_5000 = 95_617_584_000  # larger times are microseconds


def from_lines(path: Path) -> Iterator[Record]:
    """The settled calls of a log, one JSON object a line, in the order in which they began.

    Raises:
        ConfigurationError: the file cannot be read, or a line is no such call.
    """
    yield from sorted(_lines(path), key=lambda record: record.at)


def _lines(path: Path) -> Iterator[Record]:
    try:
        with click.open_file(str(path), "rb") as file:  # "-" is stdin
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield from _record(_decoded(line, path, number), f"{path}, line {number}")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def _decoded(line: bytes, path: Path, number: int) -> Mapping[str, Any]:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        message = f"{path}, line {number} is not JSON: {error}; a log has one JSON object a line"
        raise ConfigurationError(message) from error
    if not isinstance(row, dict):
        raise ConfigurationError(f"{path}, line {number} must be a JSON object")
    return row


def _record(row: Mapping[str, Any], where: str) -> Iterator[Record]:
    """The call of a row; other events, and calls made inside another one, are passed over."""
    found = {
        field: next((row[name] for name in names if row.get(name) is not None), None)
        for field, names in _NAMES.items()
    }
    if found["event"] not in (None, "settled") or found["within"] is not None:
        return
    for field in ("at", "input", "output"):
        if not isinstance(found[field], (int, float)) or isinstance(found[field], bool):
            unit = "in Unix seconds" if field == "at" else "in tokens"
            raise ConfigurationError(f"{where} needs the number {_NAMES[field][-1]!r}, {unit}")
    yield _made(found)


@lru_cache(maxsize=100_000)
def _scope(*values: str) -> dict[str, str]:
    """One object for all calls of a scope: a million rows have few of them."""
    return dict(zip(DIMENSIONS, values, strict=True))


def _made(found: Mapping[str, Any]) -> Record:
    at, seconds = float(found["at"]), float(found["seconds"] or 0)
    ended = at / _MICRO if at > _YEAR_5000 else at
    return Record(
        at=ended - seconds,
        seconds=seconds,
        scope=_scope(*(str(found[name] or "") for name in DIMENSIONS)),
        input_tokens=int(found["input"]),
        output_tokens=int(found["output"]),
        cap=found["cap"],
        cost=found["cost"],
    )


def from_ledger(url: str, since: float | None, until: float | None) -> Iterator[Record]:
    """The settled calls of a usage ledger, in the order in which they began.

    Raises:
        ConfigurationError: no ledger there, or it cannot be read.
    """
    with opened(url, ", or a log as FILE") as engine:
        from sqlalchemy import select

        from streamguard.sinks.ledger_queries import Period
        from streamguard.sinks.ledger_table import USAGE

        query = select(USAGE).where(USAGE.c.event == "settled", Period(since, until).condition())
        with engine.connect() as database:
            rows = database.execution_options(yield_per=10_000).execute(query).mappings()
            found = [each for row in rows for each in _record(dict(row), "the ledger")]
    yield from sorted(found, key=lambda record: record.at)

"""``streamguard simulate``: recorded usage against other limits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from streamguard.cli.ledger import checked_period, ledger_options, step_of
from streamguard.cli.records import from_ledger, from_lines
from streamguard.core.replay import Policy, Record, Replay, Replayed
from streamguard.core.replay_totals import Totals
from streamguard.limits import DIMENSIONS
from streamguard.usage import Usage


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path),
    help="The limits to try: a guard's or a gateway's TOML file.",
)
@ledger_options
@click.option("--by", type=click.Choice(DIMENSIONS), default="tenant", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(file: Path | None, config: Path, as_json: bool, **asked: Any) -> None:
    """Replay recorded usage (a log FILE, - for stdin, or the ledger) against another set of limits.

    Each settled call is reserved and settled again by the ledger's rules and its own clock. A
    call that would be refused does not come again; one that would be cut costs what it got.

    \b
    streamguard simulate --config stricter.toml --db sqlite:///usage.db --since 7d
    streamguard simulate events.jsonl --config stricter.toml --by user
    """  # noqa: D301 - click's mark for lines to keep
    records = _records(file, asked)
    found = _replayed(records, config, asked)
    if as_json:
        click.echo(json.dumps(found))
        return
    from streamguard.cli.simulate_view import show

    show(found)


def _records(file: Path | None, asked: dict[str, Any]) -> list[Record]:
    since, until = checked_period(asked["since"], asked["until"])
    if file is None:
        return list(from_ledger(asked["db"], since, until))
    return [
        record
        for record in from_lines(file)
        if (since is None or record.at >= since) and (until is None or record.at < until)
    ]


def _replayed(records: Sequence[Record], config: Path, asked: dict[str, Any]) -> dict[str, Any]:
    spread = records[-1].at - records[0].at if records else 0
    totals = Totals(asked["by"], step_of(asked["every"], spread))
    for found in _run(records, config):
        totals.add(found)
    return totals.as_dict(asked["top"])


def _run(records: Sequence[Record], config: Path) -> Iterator[Replayed]:
    from streamguard.cli.configs import load
    from streamguard.core.admission import Rates

    loaded = load(config)
    settings, catalog = loaded.settings, loaded.catalog
    policy = Policy(settings.adaptive_reserve, settings.reserve_output, settings.min_output)

    def rates(model: str) -> Rates:
        info = catalog.model_info(model)
        return Rates(info.context_window, info.input_rate, info.output_rate)

    def price(model: str, usage: Usage, at: float) -> int | None:
        return catalog.cost_nano(model, usage, at=at)

    yield from Replay(loaded.limits_for, rates, price, policy).run(records)

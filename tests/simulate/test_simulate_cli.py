"""``streamguard simulate``: from a log and from the ledger, with figures known beforehand."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner

from streamguard import Identity, Usage, UsageEvent, cli
from streamguard.sinks.ledger import LedgerSink
from streamguard.sinks.ledger_row import encode
from streamguard.sinks.schema import flatten

START = 1_790_000_000

LIMITS = """
[[limits]]
name = "an hour"
tokens = 270
per = "hour"
scope = ["tenant"]
"""


def events():
    for number in range(6):
        yield UsageEvent(
            "settled",
            f"sg-{number}",
            START + 600.0 * number,
            identity=Identity("big" if number < 4 else "small", f"u{number}"),
            model="gpt-4o",
            endpoint="/v1/chat/completions",
            charged=Usage(60, 40),
            cost_nano_usd=550_000,
            outcome="completed",
            duration=2.0,
        )
    yield UsageEvent("refused", "sg-9", START + 1.0, identity=Identity("big"))
    yield UsageEvent("settled", "sg-8", START + 1.0, charged=Usage(9, 9), within="sg-0")


def run(*args, **env):
    args = ["simulate", *map(str, args)]
    return CliRunner().invoke(cli.main, args, prog_name="streamguard", env=env)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tight.toml"
    path.write_text(LIMITS)
    return path


def lines(form):
    if form == "log":
        return [json.dumps({"event": each.event, **flatten(each)}) for each in events()]
    return [encode(each).decode() for each in events()]


def check(found):
    assert found["totals"] == {
        "calls": 6, "refused": 1, "cut": 1, "tokens_before": 600, "tokens_after": 470,
        "unpriced": 0, "cost_usd_before": 0.0033, "cost_usd_after": pytest.approx(0.00245),
    }  # fmt: skip
    big, small = found["top"]
    assert (big["tenant"], big["calls"], big["refused"], big["cut"]) == ("big", 4, 1, 1)
    assert (small["tenant"], small["refused"], small["tokens_after"]) == ("small", 0, 200)
    assert {row["limit"] for row in found["limits"]} == {"an hour"}
    assert sum(row["tokens_before"] for row in found["series"]) == 600


@pytest.mark.parametrize("form", ["log", "rows"])
def test_a_log_is_replayed(tmp_path, config, form):
    log = tmp_path / "events.jsonl"
    log.write_text("\n\n".join(lines(form)))
    result = run(log, "--config", config, "--json")
    assert result.exit_code == 0, result.output
    check(json.loads(result.output))


def test_the_ledger_is_replayed_and_periods_narrow_it(tmp_path, config):
    url = f"sqlite:///{tmp_path / 'usage.db'}"

    async def fill():
        sink = LedgerSink(url, spool=tmp_path / "spool")
        await sink.open()
        for event in events():
            sink.emit(event)
        await sink.close()

    asyncio.run(fill())
    check(json.loads(run("--config", config, "--db", url, "--json").output))
    later = run("--config", config, "--db", url, "--json", "--since", "2026-09-21T14:50")
    assert json.loads(later.output)["totals"]["calls"] < 6


def test_people_get_tables_and_two_plots(tmp_path, config):
    log = tmp_path / "events.jsonl"
    log.write_text("\n".join(lines("log")))
    text = run(log, "--config", config, "--every", "minute").output
    assert "6 calls: 1 would be refused (16.7%), 1 cut (16.7%), 4 pass unchanged" in text
    assert "an hour: refused 1" in text
    assert text.count("tokens per") == 2
    assert "as recorded" in text
    assert "under these limits" in text
    assert "\x1b[" in run(log, "--config", config, FORCE_COLOR="1").output


def test_rows_by_hand_need_no_more_than_time_and_tokens(tmp_path, config):
    log = tmp_path / "hand.jsonl"
    rows = [{"at": START + at, "input_tokens": 200, "output_tokens": 100} for at in (0, 4_000)]
    log.write_text("\n".join(map(json.dumps, rows)))
    result = run(log, "--config", config, "--by", "model")
    assert "2 calls: 0 would be refused (0.0%), 2 cut" in result.output
    assert "2 calls have no recorded cost" in result.output
    until = run(log, "--config", config, "--json", "--until", "2026-09-21T14:30")
    assert json.loads(until.output)["totals"]["calls"] == 1


def test_plans_of_a_gateway_hold_for_their_tenants(tmp_path):
    config = tmp_path / "gateway.toml"
    config.write_text(
        'upstreams = [{url = "http://127.0.0.1:9/v1"}]\n'
        '[plans.free]\n[[plans.free.limits]]\nname = "free day"\nrequests = 1\nper = "day"\n'
        'scope = ["tenant"]\n[tenants]\nbig = "free"\n'
    )
    log = tmp_path / "events.jsonl"
    log.write_text("\n".join(lines("log")))
    found = json.loads(run(log, "--config", config, "--json").output)
    assert [(row["tenant"], row["refused"]) for row in found["top"]] == [("big", 3), ("small", 0)]


def test_nothing_to_replay(tmp_path, config):
    log = tmp_path / "empty.jsonl"
    log.write_text("")
    assert run(log, "--config", config).output == "no settled calls to replay\n"
    assert json.loads(run(log, "--config", config, "--json").output)["totals"]["calls"] == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "line 1 is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"at": 1, "input_tokens": 3}', "line 1 needs the number 'output_tokens', in tokens"),
        ('{"at": true, "input_tokens": 3, "output_tokens": 3}', "needs the number 'at', in Unix"),
        ('{"at": "9:00", "input_tokens": 3, "output_tokens": 3}', "'at', in Unix seconds"),
    ],
)
def test_a_line_that_is_no_call_is_named(tmp_path, config, text, says):
    log = tmp_path / "bad.jsonl"
    log.write_text(text)
    result = run(log, "--config", config)
    assert result.exit_code == 1
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_log_can_come_from_stdin(config):
    given = ["simulate", "-", "--config", str(config), "--json"]
    result = CliRunner().invoke(cli.main, given, input="\n".join(lines("log")))
    assert json.loads(result.stdout)["totals"]["calls"] == 6


def test_a_period_that_ends_before_it_begins_is_bad_usage(tmp_path, config):
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines("log")))
    result = run(log, "--config", config, "--since", "1d", "--until", "2d")
    assert result.exit_code == 2
    assert "--until is not after --since" in result.stderr


def test_what_is_missing_is_named(tmp_path, config):
    assert "cannot read" in run(tmp_path / "none.jsonl", "--config", config).stderr
    nowhere = run("--config", config, "--db", f"sqlite:///{tmp_path / 'none.db'}")
    assert nowhere.exit_code == 1
    assert "no usage ledger" in nowhere.stderr
    broken = tmp_path / "broken.db"
    broken.write_text("not a database, and long enough to be looked at as one" * 40)
    assert (
        "cannot read a usage ledger"
        in run("--config", config, "--db", f"sqlite:///{broken}").stderr
    )
    assert run(tmp_path / "none.jsonl").exit_code == 2
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines("log")))
    assert "cannot read" in run(log, "--config", tmp_path / "none.toml").stderr


def test_without_sqlalchemy_the_extra_is_named(monkeypatch, config):
    import sys

    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert "streamguard[sql]" in run("--config", config).stderr

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support.events import START, refused, settled

from streamguard import Usage, cli
from streamguard.cli.ledger import Moment
from streamguard.cli.usage_plot import HEIGHT, WIDTH, chart, columns, merged, steps
from streamguard.identity import Identity
from streamguard.sinks.ledger_database import Inserter, connect
from streamguard.sinks.ledger_row import encode
from streamguard.sinks.ledger_table import migrate

HOUR, DAY = 3_600, 86_400


def events():
    for number in range(20):
        who = Identity("acme" if number % 2 else "[bold]umbra", f"user-{number % 3}", "chat")
        tokens = 150_000 if number == 7 else 600 * (number + 1)
        yield settled(
            number,
            at=START + number * 6 * HOUR,
            identity=who,
            tokens=tokens,
            cost_nano_usd=None if number == 3 else tokens * 10_000,
            counted=Usage(tokens, 5),
            outcome="cut" if number == 5 else "completed",
        )
    yield refused(90, at=START + HOUR)


def fill(url, rows):
    engine = connect(url)
    migrate(engine)
    if rows:
        Inserter(engine).insert([encode(event) for event in rows])
    engine.dispose()


@pytest.fixture
def db(database):
    fill(database, list(events()))
    return database


def run(*args, db=None, env=None):
    given = ["usage", *(["--db", db] if db else []), *args]
    return CliRunner().invoke(cli.main, given, prog_name="streamguard", env=env)


def found(*args, db):
    result = run(*args, "--json", db=db)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_totals_and_top_are_there_by_themselves(db):
    answer = found(db=db)
    totals = answer["totals"]
    assert (totals["calls"], totals["settled"], totals["cut"], totals["refused"]) == (21, 20, 1, 1)
    assert list(answer["top"]) == ["tenant", "model"]
    assert [row["tenant"] for row in answer["top"]["tenant"]] == ["acme", "[bold]umbra"]
    assert answer["step"] == DAY
    assert sum(row["calls"] for row in answer["series"]) == 21
    assert {"outliers", "growth", "drift"}.isdisjoint(answer)


def test_what_is_asked_for_is_added(db):
    answer = found(
        *("--outliers", "100000", "--growth", "--drift", "--by", "user", "--top", "2"), db=db
    )
    assert [row["request_id"] for row in answer["outliers"]] == ["sg-7"]
    assert answer["over"] == 100_000
    (talk,) = answer["growth"]
    assert talk["input_tokens"][:3] == [600, 1_200, 1_800]
    assert answer["drift"][0]["model"] == "gpt-4o"
    assert len(answer["top"]["user"]) == 2


def test_a_period_and_a_filter(db):
    since = datetime.fromtimestamp(START + 12 * HOUR, UTC).isoformat()
    until = datetime.fromtimestamp(START + 36 * HOUR, UTC).isoformat()
    answer = found("--since", since, "--until", until, "--tenant", "acme", db=db)
    assert answer["totals"]["calls"] == 2
    assert (answer["since"], answer["until"]) == (START + 12 * HOUR, START + 36 * HOUR)
    assert answer["only"] == {"tenant": "acme"}
    assert answer["step"] == HOUR
    assert found("--every", "minute", db=db)["step"] == 60


def test_the_tables_say_the_same(db):
    result = run("--outliers", "100000", "--growth", "--drift", "--by", "tenant", db=db)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "21 calls, 2026-09-21 14:13:20 to 2026-09-26 08:13:20 UTC"
    assert lines[1].startswith("20 settled (1 of them cut), 1 refused; ")
    assert lines[2] == "1 calls have no known price and are not in the cost"
    assert any(line.startswith("[bold]umbra") for line in lines)
    most = max(row["total_tokens"] for row in found(db=db)["series"])
    assert f"tokens per day, at most {most:,}\n" in result.stdout
    assert "calls over 100,000 tokens" in result.stdout
    assert "600 → 1,200 → … → 11,400 → 12,000" in result.stdout
    assert "counted against reported" in result.stdout


def test_a_terminal_gets_the_same_tables(db, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert "\x1b[1mby tenant" in run(db=db).stdout


def test_small_and_unknown_figures(database):
    small = settled(1, tokens=60, cost_nano_usd=1_500, reported=None, conversation=None)
    none = refused(3, identity=Identity("none"))
    fill(database, [small, settled(2, tokens=60, conversation="x"), none])
    result = run("--growth", "--outliers", "9", "--drift", db=database)
    assert "$0.000062" in result.stdout
    assert [line.split() for line in result.stdout.splitlines() if line.startswith("none  ")] == [
        ["none", "1", "0", "1", "-", "-", "-"]
    ]
    assert "no known price" not in result.stdout
    assert "conversations whose prompt grew most\nnone" in result.stdout


def test_what_caches_took_part_in_is_told(database):
    fill(database, [settled(1, charged=Usage(100, 5))])
    assert "cache" not in run(db=database).stdout
    fill(database, [settled(2, charged=Usage(100, 5, None, None, 60))])
    result = run(db=database)
    assert "of the input, - tokens were read from a cache and 60 written to one" in result.stdout


def test_nothing_in_the_period(db):
    result = run("--until", "2020-01-01", db=db)
    assert (result.exit_code, result.stdout) == (0, "no calls in this period\n")
    assert found("--until", "2020-01-01", db=db)["step"] == DAY


def test_the_ledger_is_named_by_the_environment(db):
    result = run("--json", env={"STREAMGUARD_DB": db})
    assert json.loads(result.stdout)["totals"]["calls"] == 21


def complaint(*args, **given):
    result = run(*args, **given)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return result.exit_code, line


def test_no_ledger_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complaint() == (1, "Error: no usage ledger at usage.db; name it with --db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_ledger(tmp_path):
    (tmp_path / "x.db").write_text("not a database, whatever its name may say")
    code, line = complaint(db=f"sqlite:///{tmp_path}/x.db")
    assert code == 1
    assert "cannot read a usage ledger at sqlite://" in line
    assert "(DatabaseError)" in line


def test_a_database_out_of_reach_does_not_show_its_password():
    code, line = complaint(db="postgresql://u:secret@127.0.0.1:1/d")
    assert (code, "secret" in line, "(OperationalError)" in line) == (1, False, True)


def test_sqlalchemy_missing_says_what_to_install(monkeypatch, db):
    for name in [name for name in sys.modules if name.startswith("streamguard.sinks.ledger")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy.exc", None)
    assert complaint(db=db) == (1, "Error: the ledger needs pip install 'streamguard[sql]'")


@pytest.mark.parametrize("args", [["--since", "tomorrow"], ["--by", "colour"], ["--top", "0"]])
def test_bad_usage(args, db):
    assert complaint(*args, db=db)[0] == 2


@pytest.mark.parametrize(
    ("text", "ago"), [("90m", 5_400), ("24h", DAY), ("7d", 7 * DAY), ("2w", 14 * DAY)]
)
def test_a_time_ago(text, ago):
    assert Moment().convert(text, None, None) == pytest.approx(time.time() - ago, abs=60)


def test_a_time_by_the_calendar():
    assert Moment().convert("2026-11-24", None, None) == 1_795_478_400
    assert Moment().convert("2026-11-24T01:00+01:00", None, None) == 1_795_478_400


def test_a_day_by_its_name_begins_at_midnight(monkeypatch):
    monkeypatch.setattr("streamguard.cli.ledger.time.time", lambda: 1_795_478_400 + 5 * HOUR + 0.5)
    assert Moment().convert("today", None, None) == 1_795_478_400
    assert Moment().convert("yesterday", None, None) == 1_795_478_400 - DAY


def test_a_period_that_ends_before_it_begins_is_bad_usage(tmp_path):
    for since, until in (("1d", "2d"), ("2026-11-24", "2026-11-24")):
        result = run("--since", since, "--until", until, db=f"sqlite:///{tmp_path}/none.db")
        assert result.exit_code == 2
        assert "--until is not after --since, so no call is in between" in result.stderr


SERIES = st.dictionaries(st.integers(0, 500), st.none() | st.integers(0, 10**9), max_size=30)


def rows(series, step):
    return [{"at": at * step, "total_tokens": series[at]} for at in sorted(series)]


@given(SERIES, st.sampled_from([60, HOUR, DAY]))
def test_the_plot_adds_up_to_the_series(series, step):
    points = steps(rows(series, step), step)
    assert sum(tokens for _at, tokens in points) == sum(tokens or 0 for tokens in series.values())
    parts = merged(points)
    assert sum(tokens for _at, tokens in parts) == sum(tokens for _at, tokens in points)
    assert len(parts) <= WIDTH
    assert [at for at, _tokens in parts] == sorted(at for at, _tokens in parts)


@given(st.lists(st.integers(0, 10**9), max_size=30))
def test_columns_are_as_high_as_their_values(values):
    lines = columns(values)
    assert len(lines) == HEIGHT
    heights = [sum(" ▁▂▃▄▅▆▇█".index(line[at]) for line in lines) for at in range(len(values))]
    for value, height in zip(values, heights, strict=True):
        assert (height > 0) == (value > 0)
        assert height == -(-value * HEIGHT * 8 // max(values)) if value else height == 0


@given(SERIES, st.sampled_from([60, HOUR, DAY]))
def test_every_series_has_a_chart(series, step):
    text = chart(rows(series, step), step)
    assert bool(text) == bool(series)
    if series:
        assert text.count("\n") == HEIGHT + 2


def test_a_chart_of_odd_steps_is_labelled_in_seconds():
    assert chart([{"at": 0, "total_tokens": 5}], 90).startswith("tokens per 90 s, at most 5\n")
    wide = [{"at": at * DAY, "total_tokens": 1} for at in range(2 * WIDTH)]
    assert chart(wide, DAY).startswith("tokens per 2 days, at most 2\n")

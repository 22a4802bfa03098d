"""Every query against an obvious computation over the same events, on both databases."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from support.events import START, refused, settled

from streamguard.core.alerts import DAY
from streamguard.identity import Identity
from streamguard.sinks.ledger_database import Inserter, connect
from streamguard.sinks.ledger_queries import Ledger, Period
from streamguard.sinks.ledger_row import encode
from streamguard.sinks.ledger_table import DIMENSIONS, migrate
from streamguard.usage import Usage

HOUR = 3_600


def history(count=400):
    """A fortnight of calls: some refused, some cut, some inside others, some without a price."""
    rng = random.Random(5)
    for number in range(count):
        who = Identity(rng.choice("ab"), rng.choice("uvw"), rng.choice(["chat", None]))
        at = START + rng.randrange(14 * DAY)
        if rng.random() < 0.1:
            yield refused(number, at=at, identity=who, model=rng.choice("mn"))
            continue
        counted = rng.randrange(10, 5_000)
        told = counted + rng.choice([0, 0, 0, -3, 7])
        yield settled(
            number,
            at=at,
            identity=who,
            model=rng.choice("mn"),
            endpoint=rng.choice(["/v1/messages", "/v1/chat/completions"]),
            counted=Usage(counted, 20),
            reported=rng.choice([Usage(told, 21), Usage(told, None), None]),
            charged=Usage(told, rng.randrange(900), None, *rng.choice([(7, None), (None, 3)])),
            method=rng.choice(["exact", "calibrated"]),
            cost_nano_usd=rng.choice([None, rng.randrange(10**9)]),
            outcome=rng.choice(["completed", "completed", "cut"]),
            within=rng.choice([None, None, None, "sg-0"]),
            conversation=rng.choice([None, *"0123456789"]),
        )


EVENTS = list(history())
TOP = [event for event in EVENTS if event.within is None]


def filled(url, events):
    engine = connect(url)
    migrate(engine)
    if events:
        Inserter(engine).insert([encode(event) for event in events])
    return engine


@pytest.fixture
def ledger(database):
    engine = filled(database, EVENTS)
    yield Ledger(engine)
    engine.dispose()


PERIODS = {
    "all": (Period(), lambda _event: True),
    "a week": (
        Period(START + 3 * DAY, START + 10 * DAY),
        lambda event: START + 3 * DAY <= event.at < START + 10 * DAY,
    ),
    "a tenant's chat": (
        Period(only={"tenant": "a", "feature": "chat"}),
        lambda event: (event.identity.tenant, event.identity.feature) == ("a", "chat"),
    ),
}


@pytest.fixture(params=PERIODS)
def period(request):
    return PERIODS[request.param][0]


@pytest.fixture
def events(period):
    (keep,) = [keep for given, keep in PERIODS.values() if given is period]
    return [event for event in TOP if keep(event)]


def caches(events):
    done = [event.charged for event in events if event.event == "settled"]
    read = [usage.cached_tokens for usage in done if usage.cached_tokens]
    written = [usage.cache_write_tokens for usage in done if usage.cache_write_tokens]
    return {
        "cached_tokens": sum(read) if read else None,
        "cache_write_tokens": sum(written) if written else None,
    }


def figures(events):
    done = [event for event in events if event.event == "settled"]
    costs = [event.cost_nano_usd for event in done if event.cost_nano_usd is not None]
    taken = sum(event.charged.input_tokens for event in done) if done else None
    made = sum(event.charged.output_tokens for event in done) if done else None
    return {
        "calls": len(events),
        "settled": len(done),
        "cut": sum(event.outcome == "cut" for event in done),
        "refused": len(events) - len(done),
        "input_tokens": taken,
        "output_tokens": made,
        "total_tokens": taken + made if done else None,
        "cost_usd": pytest.approx(sum(costs) / 1e9) if costs else None,
        "unpriced": len(done) - len(costs),
    }


def dimension(event, name):
    return getattr(event, name) if name in ("model", "endpoint") else getattr(event.identity, name)


def test_totals(ledger, period, events):
    ends = {
        "first_at": min(event.at for event in events),
        "last_at": max(event.at for event in events),
    }
    assert ledger.totals(period) == figures(events) | caches(events) | ends


@pytest.mark.parametrize("by", DIMENSIONS)
def test_top_of_each_dimension(ledger, period, events, by):
    groups = defaultdict(list)
    for event in events:
        groups[dimension(event, by)].append(event)
    found = ledger.top(by, 10, period)
    assert {row[by]: row for row in found} == {
        value: {by: value} | figures(group) for value, group in groups.items()
    }
    costs = [row["cost_usd"] or 0 for row in found]
    assert costs == sorted(costs, reverse=True)
    assert ledger.top(by, 1, period) == found[:1]


@pytest.mark.parametrize("step", [HOUR, DAY])
def test_figures_by_time(ledger, period, events, step):
    groups = defaultdict(list)
    for event in events:
        groups[int(event.at // step) * step].append(event)
    found = ledger.series(step, period)
    assert found == [{"at": at} | figures(groups[at]) for at in sorted(groups)]


def test_outliers(ledger, period, events):
    sizes = {}
    for event in events:
        used = event.counted if event.charged is None else event.charged
        sizes[event.request_id] = (used.input_tokens or 0) + (used.output_tokens or 0)
    over = sorted((size for size in sizes.values() if size > 4_000), reverse=True)
    found = ledger.outliers(4_000, 5, period)
    assert [row["total_tokens"] for row in found] == over[:5]
    for row in found:
        assert sizes[row["request_id"]] == row["total_tokens"]
        assert START <= row["at"] < START + 14 * DAY
        assert "user" in row
        assert None not in row.values()


def test_growth_by_conversation(ledger, period, events):
    talks = defaultdict(list)
    for event in sorted(events, key=lambda event: event.at):
        if event.conversation is not None:
            talks[event.conversation].append(event)
    grew = {
        key: max(e.counted.input_tokens for e in talk) - min(e.counted.input_tokens for e in talk)
        for key, talk in talks.items()
    }
    found = ledger.growth(4, period)
    assert [grew[row["conversation"]] for row in found] == sorted(
        (more for more in grew.values() if more), reverse=True
    )[:4]
    for row in found:
        talk = talks[row["conversation"]]
        assert row["calls"] == len(talk)
        assert row["input_tokens"] == [event.counted.input_tokens for event in talk][-50:]
        assert row["last_at"] == talk[-1].at


def test_drift_by_model_and_method(ledger, period, events):
    groups = defaultdict(list)
    for event in events:
        if event.reported is not None:
            groups[event.model, event.method].append(event)
    found = {(row["model"], row["method"]): row for row in ledger.drift(period)}
    assert set(found) == set(groups)
    for key, group in groups.items():
        pairs = [(e.counted.input_tokens, e.reported.input_tokens) for e in group]
        outs = [(20, 21) for e in group if e.reported.output_tokens is not None]
        row = found[key]
        assert row["calls"] == len(group)
        assert row["exact"] == sum(counted == told for counted, told in pairs)
        assert row["under"] == sum(counted < told for counted, told in pairs)
        assert row["worst_under"] == max(0, *(told - counted for counted, told in pairs), 0)
        assert row["input_counted"] == sum(counted for counted, _told in pairs)
        assert row["input_reported"] == sum(told for _counted, told in pairs)
        expected = row["input_counted"] / row["input_reported"] - 1
        assert row["input_drift"] == pytest.approx(expected)
        assert row["output_counted"] == (sum(counted for counted, _told in outs) or None)
        assert row["output_drift"] == (pytest.approx(20 / 21 - 1) if outs else None)


def test_history_holds_each_days_sums(ledger):
    since = START + 3 * DAY + 5_000
    sums = defaultdict(lambda: [0, 0, 0])
    for event in TOP:
        if event.event == "settled" and event.at >= since // DAY * DAY:
            key = (event.at // DAY * DAY, event.identity.tenant, event.identity.feature)
            sums[key][0] += event.charged.input_tokens
            sums[key][1] += event.charged.output_tokens
            sums[key][2] += event.cost_nano_usd or 0
    found = ledger.history(since)
    assert [event.at for event in found] == sorted(event.at for event in found)
    assert {
        (event.at, event.identity.tenant, event.identity.feature): [
            event.charged.input_tokens,
            event.charged.output_tokens,
            event.cost_nano_usd or 0,
        ]
        for event in found
    } == sums


def test_an_empty_ledger_knows_nothing(database):
    engine = filled(database, [])
    empty = Ledger(engine)
    assert empty.totals() == figures([]) | caches([]) | {"first_at": None, "last_at": None}
    assert empty.top("tenant") == empty.series(HOUR) == empty.outliers(0) == []
    assert empty.growth() == empty.drift() == empty.history(0) == []
    engine.dispose()


def test_a_report_of_nothing_has_no_drift(database):
    engine = filled(database, [settled(1, counted=Usage(0, 0), reported=Usage(0, 0))])
    (row,) = Ledger(engine).drift()
    assert (row["input_drift"], row["output_drift"], row["exact"]) == (None, None, 1)
    engine.dispose()


def test_every_period_query_of_sqlite_reads_an_index_alone(tmp_path):
    from sqlalchemy import event, text

    engine = filled(f"sqlite:///{tmp_path}/usage.db", EVENTS)
    asked = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, parameters, _context, _many):
        asked.append((statement, parameters))

    ledger = Ledger(engine)
    ledger.totals()
    ledger.series(DAY)
    for by in DIMENSIONS:
        ledger.top(by)
    ledger.drift()
    plans = []
    with engine.connect() as connection:
        for statement, parameters in asked[:]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans += [row[3] for row in plan if "streamguard_usage" in row[3]]
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert len(plans) == 8
    assert [plan for plan in plans if "COVERING INDEX" not in plan] == []
    engine.dispose()

"""What the page remembers of events."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import START, refused, settled

from streamguard.identity import Identity
from streamguard.live import book as live_book
from streamguard.live.book import LiveBook
from streamguard.live.figures import Who, who_of
from streamguard.live.sink import LiveSink
from streamguard.usage import Usage

DAY = 86_400
NOON = START // DAY * DAY + DAY / 2


def book(*events):
    made = LiveBook(NOON)
    for event in events:
        made.take(event)
    return made


def of(tenant, **more):
    return {"identity": Identity(tenant), **more}


calls = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]),
        st.integers(0, 10_000),
        st.one_of(st.none(), st.integers(0, 10**9)),
    ),
    max_size=60,
)


@given(calls)
def test_the_spenders_of_each_dimension_sum_up_to_the_day(made):
    events = [settled(at=NOON, tokens=n, cost_nano_usd=c, **of(who)) for who, n, c in made]
    found = book(*events)
    assert found.today().calls == len(made)
    assert found.today().tokens == sum(n for _, n, _ in made)
    assert found.today().cost == sum(c or 0 for _, _, c in made)
    assert found.today().unpriced == sum(c is None for _, _, c in made)
    for by in ("tenant", "user", "feature", "model"):
        sums = [one for _, one in found.spenders(99)[by]]
        for name in ("calls", "tokens", "cost", "unpriced"):
            assert sum(getattr(one, name) for one in sums) == getattr(found.today(), name)
        assert sums == sorted(sums, key=lambda one: (-one.cost, -one.tokens))
    assert len(found.spenders(2)["tenant"]) <= 2


@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["s", "r", "c"])), max_size=80))
def test_the_minutes_are_those_of_the_last_hour(made):
    kinds = {"s": settled, "r": refused, "c": lambda **k: replace(settled(**k), event="cut")}
    made = sorted(made)
    found = book(*(kinds[kind](at=NOON + minute * 60) for minute, kind in made))
    now = NOON + 60 * max((minute for minute, _ in made), default=0)
    minutes = found.minutes(now)
    assert len(minutes) == 60
    for back, minute in enumerate(reversed(minutes)):
        then = [kind for at, kind in made if NOON + at * 60 == now - back * 60]
        assert (minute.calls, minute.tokens) == (then.count("s"), 120 * then.count("s"))
        assert (minute.refused, minute.cuts) == (then.count("r"), then.count("c"))
    assert len(found._minutes) <= 60


def test_a_new_day_begins_at_zero_and_old_callers_are_still_known():
    found = book(settled(at=NOON, **of("old")), settled(at=NOON + DAY, tokens=60, **of("new")))
    assert (found.today().calls, found.today().tokens) == (1, 60)
    assert [name for name, _ in found.spenders(9)["tenant"]] == ["new"]
    assert [who.tenant for who in found.callers(9)] == ["new", "old"]
    found.take(settled(at=NOON + DAY, tokens=600, **of("old")))
    found.take(settled(at=NOON, tokens=6, **of("late")))  # a clock that went back a little
    assert [(name, one.tokens) for name, one in found.spenders(9)["tenant"]] == [
        ("old", 600), ("new", 60), ("late", 6),
    ]  # fmt: skip
    found.roll(NOON + 2 * DAY)
    found.roll(NOON + 2 * DAY)
    assert (found.today().calls, found.spenders(9)["tenant"]) == (0, [])


def test_memory_is_bounded_with_any_number_of_callers_and_conversations(monkeypatch):
    monkeypatch.setattr(live_book, "_CALLERS", 40)
    monkeypatch.setattr(live_book, "_TALKS", 30)
    monkeypatch.setattr(live_book, "_INCIDENTS", 20)
    found = book(settled(at=NOON, cost_nano_usd=10**12, **of("whale")))
    for number in range(5_000):
        who = of(f"tenant {number}")
        found.take(settled(at=NOON, conversation=f"c{number}", cost_nano_usd=number, **who))
        found.take(refused(at=NOON, **who))
    assert len(found._callers) <= 40
    assert len(found._talks) <= 30
    assert len(found._incidents) <= 20
    assert found.spenders(1)["tenant"][0][0] == "whale"  # what cost most stays
    assert found.today().calls == 5_001  # and the day's sums hold everybody
    assert found.refused == 5_000
    assert len(found.incidents(8)) == 8


def test_long_names_are_cut_and_said_to_be():
    found = book(*[settled(at=NOON, model="m" * 100_000, **of("t" * 300))] * 2)
    (who,) = found.callers(9)
    assert found.today().calls == 2
    assert len(who.tenant) == len(who.model) == 128
    assert who.tenant.endswith("…")
    assert not who.whole
    assert who_of(Identity("t"), None, "/v1").whole
    assert who_of(Identity("t"), None, "/v1") == Who("t", None, None, None, "/v1")


def test_the_same_refusal_again_is_one_row_with_the_latest_figures():
    found = book(
        refused(1, at=NOON + 1, used=700, **of("a")),
        refused(2, at=NOON + 2, **of("b")),
        refused(3, at=NOON + 3, used=900, **of("a")),
        replace(refused(4, at=NOON + 4, **of("a")), event="retry_refused", limit_name=None),
    )
    again, first, other = found.incidents(9)
    assert (again.kind, again.reason, again.times) == ("refused", "budget_exceeded", 1)
    assert (first.who.tenant, first.times, first.used, first.limit) == ("a", 2, 900, 1_000)
    assert (first.reason, first.requested, first.code) == ("day", 900, "budget_exceeded")
    assert (other.who.tenant, other.times) == ("b", 1)
    assert (found.refused, found.cuts) == (4, 0)


def test_a_cut_shows_what_was_produced_and_allowed_and_a_warning_counts_as_neither():
    cut = replace(settled(at=NOON), event="cut", output_limit=19, counted=Usage(100, 20))
    warned = replace(refused(at=NOON), event="warned")
    found = book(cut, warned)
    warning, cutting = found.incidents(9)
    assert (cutting.kind, cutting.output, cutting.limit) == ("cut", 20, 19)
    assert (warning.kind, warning.limit, warning.used) == ("warned", 1_000, 800)
    assert (found.refused, found.cuts) == (0, 1)


def test_conversations_that_grew_most_come_first():
    def said(key, *prompts):
        return [settled(at=NOON, conversation=key, counted=Usage(n, 1)) for n in prompts]

    silent = settled(at=NOON, conversation="unknown", counted=Usage())
    found = book(
        *said("still", 50, 50), *said("short", 10, 90), *said("long", 100, 900, 800),
        *said("shrunk", 90, 10), silent,
    )  # fmt: skip
    assert [key for key, _ in found.talks(9)] == ["long", "short"]
    assert [key for key, _ in found.talks(1)] == ["long"]
    (_, longest), _ = found.talks(9)
    assert (longest.first, list(longest.prompts), longest.calls) == (100, [100, 900, 800], 3)
    assert (longest.who.tenant, longest.window) == ("acme", 128_000)
    many = book(*said("c", *range(100)))
    ((_, talk),) = many.talks(9)
    assert (talk.calls, talk.first, len(talk.prompts), talk.grew) == (100, 0, 24, 99)


def test_unknown_usage_counts_as_a_call():
    found = book(settled(at=NOON, charged=None, cost_nano_usd=None, conversation=None))
    assert (found.today().calls, found.today().tokens, found.today().unpriced) == (1, 0, 1)
    assert found.talks(9) == []


def test_the_sink_tells_the_book_what_matters_and_nothing_twice():
    sink = LiveSink(clock=lambda: NOON)
    sink.emit(settled(1, at=NOON))
    sink.emit(replace(settled(2, at=NOON), within="sg-1"))  # in the outer call's figures
    for name in ("preflight", "started", "released", "queued"):
        sink.emit(replace(settled(3, at=NOON), event=name))
    found = sink.book()
    assert (found.since, found.today().calls) == (NOON, 1)
    assert sink.book().today().calls == 1


@pytest.mark.parametrize("events", [255, 256, 1_000])
def test_events_wait_in_small_batches_when_nobody_looks(events):
    sink = LiveSink(clock=lambda: NOON)
    for number in range(events):
        sink.emit(settled(number, at=NOON))
        assert len(sink._waiting) < 256
    assert sink.book().today().calls == events


def test_the_sink_passes_on_that_the_guard_opens_and_closes():
    told = []
    sink = LiveSink(on_open=lambda: told.append("open"), on_close=lambda: told.append("close"))
    anyio.run(sink.open)
    anyio.run(sink.close)
    assert told == ["open", "close"]
    anyio.run(LiveSink().open)
    anyio.run(LiveSink().close)


def test_when_all_cost_the_same_the_oldest_are_forgotten_and_the_days_sums_stay(monkeypatch):
    monkeypatch.setattr(live_book, "_CALLERS", 3)
    events = [settled(n, at=NOON, cost_nano_usd=5, **of(f"t{n}")) for n in range(7)]
    found = book(*events)
    assert [who.tenant for who in found.callers(9)] == ["t6", "t5", "t4"]
    assert (found.today().calls, found.today().cost) == (7, 35)


def test_somebody_has_to_go_where_everybody_is_dear(monkeypatch):
    monkeypatch.setattr(live_book, "_CALLERS", 12)
    dear = [settled(n, at=NOON, cost_nano_usd=10, **of(f"dear {n}")) for n in range(11)]
    cheap = settled(at=NOON, cost_nano_usd=0, **of("cheap"))
    found = book(*dear, cheap, settled(at=NOON, **of("new")))
    assert len(found.callers(99)) == 12
    assert {"cheap", "new"} < {who.tenant for who in found.callers(99)}
    assert found.today().calls == 13


def test_callers_of_another_day_are_forgotten_without_a_trace(monkeypatch):
    monkeypatch.setattr(live_book, "_CALLERS", 2)
    yesterday = [settled(n, at=NOON, **of(f"old {n}")) for n in range(2)]
    found = book(*yesterday, settled(at=NOON + DAY, tokens=60, **of("new")))
    found.take(settled(at=NOON + DAY, tokens=60, **of("newer")))
    assert (found.today().calls, found.today().tokens) == (2, 120)

"""Generated histories whose right answer a slow and obvious oracle knows."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import refused, settled

from streamguard.core.alert_rules import (
    ContextShare,
    DailyGrowth,
    DailySpend,
    Refused,
    Runaway,
    UserBurst,
)
from streamguard.core.alerts import DAY, Alert, AlertBook, Recent
from streamguard.errors import ConfigurationError
from streamguard.identity import Identity
from streamguard.usage import Usage

MIDNIGHT = 20_700 * DAY
WHO = st.builds(Identity, st.sampled_from(["a", "b"]), st.sampled_from(["u", "v"]), st.just("chat"))


def fired(rule, events):
    return [alert for event in events for alert in rule.see(event)]


def book(rule, events, **settings):
    kept = AlertBook([rule], **settings)
    return [alert for event in events for alert in kept.feed(event)]


def call(number, at, identity, tokens=100, **other):
    return settled(number, at=at, identity=identity, tokens=tokens, **other)


@given(st.lists(st.tuples(st.integers(0, 2_000), st.sampled_from([None, 1_000, 1_500]))))
def test_context_share_fires_on_exactly_the_calls_over_it(calls):
    events = [settled(n, tokens=size, context_window=win) for n, (size, win) in enumerate(calls)]
    expected = [
        event.request_id
        for event, (size, win) in zip(events, calls, strict=True)
        if win and Fraction(size, win) > Fraction(9, 10)
    ]
    assert [alert.request_id for alert in fired(ContextShare(), events)] == expected


@given(st.lists(st.tuples(st.integers(0, 20), WHO, st.integers(1, 500)), min_size=1, max_size=60))
def test_daily_growth_fires_once_on_exactly_the_days_over_twice_the_mean(calls):
    calls = sorted(calls, key=lambda one: one[0])
    events = [
        call(n, MIDNIGHT + day * DAY + n, who, tokens) for n, (day, who, tokens) in enumerate(calls)
    ]
    by_day = defaultdict(Counter)
    for day, who, tokens in calls:
        by_day[who.tenant][day] += tokens
    expected = set()
    for tenant, days in by_day.items():
        for day, tokens in days.items():
            before = sum(days[one] for one in range(day - 7, day))
            if min(days) <= day - 7 and before and tokens * 7 > 2 * before:
                expected.add((tenant, MIDNIGHT // DAY + day))
    alerts = fired(DailyGrowth(), events)
    found = [(alert.scope["tenant"], alert.at // DAY) for alert in alerts]
    assert sorted(found) == sorted(expected)
    assert book(DailyGrowth(), events) == alerts


def test_daily_growth_says_the_figures():
    days = [call(n, MIDNIGHT + n * DAY, Identity("a", "u", "chat"), 100) for n in range(8)]
    more = call(9, MIDNIGHT + 7 * DAY + 1, Identity("a", "u", "chat"), 130)
    (alert,) = fired(DailyGrowth(), [*days, more])
    assert alert.figures == {"tokens_today": 230, "mean_7_days": 100}
    assert alert.message == (
        "tenant a, feature chat used 230 tokens today, 2.3 times the mean of the last 7 days (100)"
    )
    assert fired(DailyGrowth(at_least=231), [*days, more]) == []


def test_an_event_of_an_earlier_day_counts_for_its_day():
    who = Identity("a", "u", "chat")
    days = [call(n, MIDNIGHT + n * DAY, who, 100) for n in range(8)]
    late = call(20, MIDNIGHT + 6 * DAY, who, 1_000)
    assert fired(DailyGrowth(), [*days, late]) == []
    assert fired(DailyGrowth(), [*days, late, call(21, MIDNIGHT + 7 * DAY, who, 200)]) == []
    assert len(fired(DailyGrowth(), [*days, late, call(21, MIDNIGHT + 7 * DAY, who, 400)])) == 1


@given(st.lists(st.tuples(st.integers(0, 3), WHO, st.integers(0, 40)), max_size=40))
def test_daily_spend_fires_once_a_day_and_scope_when_the_amount_is_passed(calls):
    calls = sorted(calls, key=lambda one: one[0])
    events = [
        call(n, MIDNIGHT + day * DAY + n, who, cost_nano_usd=cents * 10**7)
        for n, (day, who, cents) in enumerate(calls)
    ]
    sums = Counter()
    for day, who, cents in calls:
        sums[who.tenant, day] += cents
    expected = {key for key, cents in sums.items() if cents > 100}
    found = [(a.scope["tenant"], (a.at - MIDNIGHT) // DAY) for a in fired(DailySpend("1"), events)]
    assert sorted(found) == sorted(expected)
    everyone = Counter(day for (_tenant, day), cents in sums.items() for _ in range(cents))
    alerts = fired(DailySpend("1", scope=()), events)
    assert len(alerts) == sum(cents > 100 for cents in everyone.values())
    assert all(alert.message.startswith("everyone spent $") for alert in alerts)


@given(st.lists(st.tuples(st.floats(0, 30), WHO), max_size=60), st.integers(1, 6))
def test_user_burst_fires_exactly_when_too_many_calls_lie_within_the_span(calls, most):
    calls = sorted(calls, key=lambda one: one[0])
    events = [call(n, MIDNIGHT + at, who) for n, (at, who) in enumerate(calls)]
    expected = []
    for here, event in enumerate(events):
        mine = [e.at for e in events[: here + 1] if e.identity == event.identity]
        if len([at for at in mine if event.at - at < 10]) > most:
            expected.append(event.request_id)
    alerts = fired(UserBurst(most, 10), events)
    assert [alert.request_id for alert in alerts] == expected


@given(st.lists(st.tuples(st.sampled_from("xy"), st.integers(1, 60)), max_size=60))
def test_runaway_fires_exactly_where_a_conversation_has_grown_so_often(calls):
    events = [
        settled(n, conversation=key, counted=Usage(tokens)) for n, (key, tokens) in enumerate(calls)
    ]
    expected, history = [], defaultdict(list)
    for event, (key, tokens) in zip(events, calls, strict=True):
        history[key].append(tokens)
        run = history[key]
        start = len(run) - 1
        while start > 0 and run[start - 1] < run[start]:
            start -= 1
        if len(run) - start >= 3 and tokens >= 2 * run[start] and tokens >= 10:
            expected.append(event.request_id)
    alerts = fired(Runaway(3, factor=2, at_least=10), events)
    assert [alert.request_id for alert in alerts] == expected


def test_an_ordinary_chat_is_no_runaway_and_one_that_nobody_trims_is():
    chat = [settled(n, counted=Usage(200 + 150 * n)) for n in range(20)]
    assert fired(Runaway(), chat) == []
    wild = [settled(n, counted=Usage(500 * (n + 1))) for n in range(20)]
    (alert,) = book(Runaway(), wild)
    assert alert.request_id == "sg-7"
    assert alert.figures == {"calls": 8, "from_tokens": 500, "to_tokens": 4_000}


@pytest.mark.parametrize("code", ["budget_exceeded", "request_budget_exceeded"])
def test_any_budget_refusal_is_told(code):
    first, other = refused(1, code=code), refused(2, code=code, limit_name=None)
    again = dataclasses.replace(refused(3, code=code), event="retry_refused")
    alerts = book(Refused(), [first, other, again])
    assert [alert.figures["limit_name"] for alert in alerts] == ["day", "the context window"]
    assert alerts[0].figures == {
        "limit_name": "day",
        "code": code,
        "limit": 1_000,
        "used": 800,
        "requested": 900,
    }


@pytest.mark.parametrize("code", ["invalid_request", "budget_store_unavailable", None])
def test_other_refusals_are_not(code):
    assert fired(Refused(), [refused(1, code=code)]) == []


RULES = [
    ContextShare(0.01),
    DailyGrowth(1.1),
    DailySpend("0"),
    Refused(),
    UserBurst(1, 1e9),
    Runaway(2, factor=1, at_least=0),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_calls_inside_another_and_other_events_set_nothing_off(rule):
    inner = [
        settled(n, at=MIDNIGHT + n * DAY, tokens=5_000 * (n + 1), within="sg-0") for n in range(20)
    ]
    assert fired(rule, inner) == []
    for name in ("preflight", "started", "cut", "store_error"):
        events = [dataclasses.replace(event, event=name, within=None) for event in inner]
        assert fired(rule, events) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_unknown_figures_set_nothing_off(rule):
    blank = {
        "identity": Identity(),
        "counted": Usage(),
        "charged": Usage(),
        "cost_nano_usd": None,
        "conversation": None,
        "code": None,
    }
    assert fired(rule, [settled(n, **blank) for n in range(5)]) == []
    assert fired(rule, [settled(n, **(blank | {"charged": None})) for n in range(5)]) == []


@pytest.mark.parametrize(
    "build",
    [
        lambda: ContextShare(1.0),
        lambda: DailyGrowth(1.0),
        lambda: DailySpend("much"),
        lambda: UserBurst(0),
        lambda: UserBurst(5, 0),
        lambda: Runaway(1),
        lambda: Runaway(2, factor=0.5),
    ],
)
def test_figures_that_cannot_work_are_refused(build):
    with pytest.raises(ConfigurationError):
        build()


class Always:
    def __init__(self, rest=3_600.0):
        self.rest = rest

    def see(self, event):
        yield Alert("always", event.model, event.at, "it happened", rest=self.rest)


@given(st.lists(st.tuples(st.integers(0, 50_000), st.sampled_from("xyz")), max_size=60))
def test_a_key_is_told_once_in_its_rest(calls):
    calls = sorted(calls)
    events = [settled(n, at=float(at), model=key) for n, (at, key) in enumerate(calls)]
    last, expected = {}, []
    for at, key in calls:
        if at - last.get(key, -1e9) >= 1_000:
            last[key] = at
            expected.append((key, at))
    told = book(Always(1_000.0), events, per_hour=1_000)
    assert [(alert.key, alert.at) for alert in told] == expected


def test_not_more_an_hour_than_allowed():
    kept = AlertBook([Always(0.0)], per_hour=3)
    told = [
        len(kept.feed(settled(n, at=hour * 3_600.0 + n))) for hour in range(2) for n in range(5)
    ]
    assert told == [1, 1, 1, 0, 0] * 2
    assert kept.suppressed == 4


def test_two_rules_may_use_one_key():
    class Other(Always):
        def see(self, event):
            yield dataclasses.replace(next(super().see(event)), rule="other")

    assert len(AlertBook([Always(), Other()]).feed(settled())) == 2


def test_memory_is_bounded_and_the_longest_unused_goes_first():
    recent = Recent(2, list)
    recent.get("a").append(1)
    recent.get("b").append(2)
    recent.get("a")
    recent.get("c")
    assert len(recent) == 2
    assert recent.get("a") == [1]
    assert recent.get("b") == []


def test_every_rule_keeps_to_its_bound():
    rules = [
        DailyGrowth(entries=50),
        DailySpend("1", entries=50),
        UserBurst(entries=50),
        Runaway(entries=50),
    ]
    kept = AlertBook(rules, entries=50)
    for n in range(500):
        kept.feed(settled(n, identity=Identity(f"t{n}", f"u{n}", "f"), conversation=f"c{n}"))
    memories = [value for rule in [*rules, kept] for value in vars(rule).values()]
    sizes = [len(value) for value in memories if isinstance(value, Recent)]
    assert len(sizes) == 5
    assert max(sizes) <= 50

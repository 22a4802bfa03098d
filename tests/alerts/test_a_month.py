"""A month of ordinary traffic under all rules at once, and single incidents put into it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.events import refused, settled

from streamguard.core.alert_rules import DailySpend
from streamguard.core.alerts import DAY, AlertBook
from streamguard.identity import Identity
from streamguard.sinks.alerts import default_rules
from streamguard.usage import Usage

START = 20_700 * DAY
DAYS = 30


def call(at, tokens, who, conversation, cost=10**6):
    used = Usage(tokens, tokens // 5)
    return settled(
        int(at * 1_000),
        at=at,
        identity=who,
        counted=used,
        charged=used,
        conversation=conversation,
        cost_nano_usd=cost,
    )


def month(seed):
    """Chats of a few turns, each turn somewhat longer, the same load every day give or take."""
    rng = random.Random(seed)
    for day in range(DAYS):
        for tenant in ("acme", "umbra"):
            for chat in range(12):
                who = Identity(tenant, f"user-{chat % 4}", "chat")
                at, tokens = START + day * DAY + 7_000 * chat, rng.randrange(300, 400)
                for _turn in range(rng.randrange(4, 6)):
                    yield call(at, tokens, who, f"{tenant}-{day}-{chat}")
                    at += rng.uniform(20, 600)
                    tokens += rng.randrange(50, 90)


def fired(events):
    book = AlertBook([*default_rules(), DailySpend("1.00")])
    ordered = sorted(events, key=lambda event: event.at)
    return [alert for event in ordered for alert in book.feed(event)]


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_an_ordinary_month_is_quiet(seed):
    assert fired(month(seed)) == []


NOON = START + 20 * DAY + 43_200
EVE = Identity("acme", "eve", "chat")
INCIDENTS = {
    "context_share": [call(NOON, 120_000, Identity("new", "eve", "batch"), "x")],
    "daily_growth": [
        call(NOON + 100 * n, 9_000, Identity("acme", f"user-{n}", "chat"), f"g{n}")
        for n in range(20)
    ],
    "daily_spend": [call(NOON, 500, EVE, "x", cost=2 * 10**9)],
    "budget_refusal": [refused(1, at=NOON, identity=EVE)],
    "user_burst": [call(NOON + n / 2, 20, EVE, f"b{n}") for n in range(70)],
    "runaway_conversation": [
        call(NOON + 60 * n, 500 * (n + 1), Identity("new", "eve", "agent"), "loop")
        for n in range(9)
    ],
}


@pytest.mark.parametrize("rule", INCIDENTS)
@given(st.integers(0, 10**6))
@settings(max_examples=5)
def test_one_incident_is_told_once_and_nothing_else(rule, seed):
    (alert,) = fired([*month(seed), *INCIDENTS[rule]])
    assert alert.rule == rule
    assert NOON <= alert.at < NOON + DAY / 2


def test_all_incidents_at_once_are_all_told():
    together = [event for events in INCIDENTS.values() for event in events]
    alerts = fired([*month(1), *together])
    assert sorted(alert.rule for alert in alerts) == sorted(INCIDENTS)

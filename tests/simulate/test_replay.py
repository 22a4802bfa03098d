"""A replay decides as the ledger would have, by its own clock."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.core.admission import Rates
from streamguard.core.replay import CONTEXT, PER_REQUEST, UNPRICED, Policy, Record, Replay
from streamguard.core.replay_totals import Totals
from streamguard.limits import Limit

START = 1_790_000_000.0
RATES = Rates(context_window=1_000, input_rate=10, output_rate=40)


def price(model, usage, at):
    return usage.input_tokens * 10 + usage.output_tokens * 40


def record(at=0.0, inputs=10, outputs=20, *, tenant="a", seconds=0.0, cap=None, model="m"):
    scope = {"tenant": tenant, "user": "", "feature": "", "model": model, "endpoint": ""}
    cost = inputs * 10 + outputs * 40
    return Record(START + at, seconds, scope, inputs, outputs, cap, cost)


def replay(records, *limits, rates=RATES, policy=None):
    return list(Replay(lambda tenant: limits, lambda model: rates, price, policy).run(records))


RECORDS = st.lists(
    st.builds(
        record,
        st.floats(0, 400),
        st.integers(0, 50),
        st.integers(0, 50),
        tenant=st.sampled_from("ab"),
        seconds=st.sampled_from([0.0, 0.5, 30.0, 200.0]),
        cap=st.one_of(st.none(), st.integers(1, 100)),
    ),
    max_size=30,
).map(lambda records: sorted(records, key=lambda each: each.at))


@given(RECORDS)
def test_without_limits_everything_passes_as_it_was(records):
    found = replay(records)
    assert [(each.outcome, each.cost) for each in found] == [("passed", r.cost) for r in records]
    assert [each.output_tokens for each in found] == [each.output_tokens for each in records]


def charged(call, adaptive):
    """When the ledger counts a call: one that can have no output is charged when it begins."""
    if call.output_tokens == 0 and adaptive:
        return call.at
    return call.at + call.seconds


@settings(max_examples=100, deadline=None)
@given(RECORDS, st.integers(0, 300), st.booleans())
def test_a_window_is_never_over_and_figures_add_up(records, amount, adaptive):
    limit = Limit(tokens=amount, per="minute", scope=("tenant",), name="minute")
    found = replay(records, limit, policy=Policy(adaptive=adaptive, reserve=60))
    for tenant in "ab":
        ends = sorted(
            (charged(each.record, adaptive), each.record.input_tokens + each.output_tokens)
            for each in found
            if each.record.scope["tenant"] == tenant and each.outcome != "refused"
        )
        for end, _ in ends:
            within = sum(tokens for at, tokens in ends if end - 60 < at <= end)
            assert within <= amount
    for each in found:
        assert each.output_tokens <= each.record.output_tokens
        assert (each.by is None) == (each.outcome == "passed")
        assert (each.outcome == "cut") == (0 < each.record.output_tokens > each.output_tokens
                                           and each.outcome != "refused")  # fmt: skip
    totals = Totals("tenant", 60)
    for each in found:
        totals.add(each)
    whole = totals.as_dict(9)
    outcomes = Counter(each.outcome for each in found)
    assert (whole["totals"]["refused"], whole["totals"]["cut"]) == (
        outcomes["refused"],
        outcomes["cut"],
    )
    for key in ("calls", "tokens_before", "tokens_after"):
        assert whole["totals"][key] == sum(row[key] for row in whole["top"])
        assert whole["totals"][key] == sum(row[key] for row in whole["series"])
    assert sum(row["calls"] for row in whole["limits"]) == outcomes["refused"] + outcomes["cut"]


@given(RECORDS, st.integers(0, 300), st.integers(0, 200))
def test_calls_without_length_are_taken_greedily(records, amount, more):
    records = [each._replace(seconds=0.0) for each in records]
    limit = Limit(requests=amount // 20, per="day", name="calls")
    found = replay(records, limit)
    passed = sum(each.outcome == "passed" for each in found)
    assert passed == min(len(records), amount // 20)


def test_a_call_under_way_holds_what_it_will_use():
    limit = Limit(tokens=50, per="hour", name="hour")
    long = record(0, 10, 20, seconds=100)
    during, later = record(50, 10, 20), record(101, 10, 10)
    outcomes = [each.outcome for each in replay([long, during, later], limit)]
    assert outcomes == ["passed", "cut", "refused"]
    found = replay([long, record(50, 25, 1)], limit)
    assert (found[1].outcome, found[1].by) == ("refused", "hour")


def test_a_whole_cap_is_held_where_the_reserve_does_not_learn():
    limit = Limit(tokens=100, per="hour", name="hour")
    calls = [record(0, 10, 20, seconds=9, cap=80), record(1, 10, 20, seconds=9, cap=80)]
    assert [each.outcome for each in replay(calls, limit)] == ["passed", "passed"]
    whole = replay(calls, limit, policy=Policy(adaptive=False))
    assert [each.outcome for each in whole] == ["passed", "refused"]


def test_cuts_name_what_cut_and_cost_what_was_got():
    (cut,) = replay([record(0, 10, 50)], Limit(output_tokens=30, name="short"))
    assert (cut.outcome, cut.by, cut.output_tokens) == ("cut", PER_REQUEST, 30)
    assert cut.cost == 10 * 10 + 30 * 40
    limits = [Limit(tokens=900, per="hour", name="wide"), Limit(tokens=40, per="day", name="tight")]
    (cut,) = replay([record(0, 10, 50)], *limits)
    assert (cut.by, cut.output_tokens) == ("tight", 30)


def test_what_refuses_beside_the_windows_is_named():
    (refused,) = replay([record(0, 2_000, 5)])
    assert (refused.outcome, refused.by, refused.cost) == ("refused", CONTEXT, 0)
    (refused,) = replay([record(0, 50, 5)], Limit(input_tokens=40, name="prompt"))
    assert refused.by == "prompt"
    (refused,) = replay([record()], Limit(cost="1", name="money"), rates=Rates())
    assert refused.by == UNPRICED


@pytest.mark.parametrize("cost", [None, 7])
def test_an_unknown_cost_is_priced_and_counted_as_unknown(cost):
    call = record()._replace(cost=cost)
    (found,) = replay([call])
    assert found.cost == (900 if cost is None else 7)
    totals = Totals("user", 60)
    totals.add(found)
    assert totals.whole.unpriced == (cost is None)

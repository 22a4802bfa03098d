"""Billing, the fund, the memories, and reading a provider's errors: the guard's pure parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard import ContextWindowExceededError, Limit, Usage
from streamguard.core.billing import MOST_TOKENS, Spent, believed, charge
from streamguard.core.fund import Draw, Fund
from streamguard.core.growth import GrowthMemory, conversation_key
from streamguard.core.oversized import OversizedMemory, fingerprint
from streamguard.core.prompt import Part, Prompt
from streamguard.errors import BudgetExceededError
from streamguard.guard.provider_errors import oversized_reply


@pytest.mark.parametrize(
    ("counted", "reported", "outcome", "exact", "output"),
    [
        (10, None, "completed", True, 10),
        (10, 12, "completed", True, 12),  # hidden reasoning
        (10, 9, "completed", True, 10),  # seen is seen
        (10, 9, "completed", False, 9),  # an estimate gives way to the bill
        (10, 9, "cut", False, 10),  # the report is older than the cut
        (10, 0, "completed", False, 0),  # an explicit zero is a zero
        (0, None, "disconnected", True, 0),
    ],
)
def test_charge(counted, reported, outcome, exact, output):
    spent = Spent(outcome, Usage(output_tokens=counted), Usage(output_tokens=reported))
    usage = charge(7, spent, exact=exact)
    assert usage.output_tokens == output
    assert usage.input_tokens == 7


def test_charge_takes_the_reported_input_and_nothing_for_unbilled_calls():
    reported = Usage(9, 1, 1, 4)
    assert charge(7, Spent("completed", Usage(), reported), exact=True) == reported
    assert charge(7, Spent("error_response", billed=False), exact=True) == Usage(0, 0, 0, 0)


COUNTS = st.none() | st.integers(0, 2**70)


@given(st.builds(Usage, *[COUNTS] * 5))
def test_what_no_call_can_use_is_not_charged(reported):
    spent = believed(Spent("completed", Usage(output_tokens=9), reported))
    assert all((count or 0) <= MOST_TOKENS for count in spent.reported.fields())
    usage = charge(7, spent, exact=False)
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        said, own = getattr(reported, name), {"input_tokens": 7, "output_tokens": 9}.get(name)
        doubted = said is not None and said > MOST_TOKENS
        assert (name in spent.doubted) == doubted
        assert getattr(usage, name) == (own if doubted or said is None else said)


@given(
    held=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    calls=st.lists(
        st.tuples(*[st.integers(0, 80)] * 4),
        max_size=8,
    ),
)
def test_a_fund_never_gives_more_than_it_holds(held, calls):
    fund = Fund(*held)
    drawn = []
    for need_in, need_out, used_in, used_out in calls:
        draw = fund.draw(need_in, need_out)
        drawn.append((draw, Draw(min(used_in, draw[0]), min(used_out, draw[1]))))
        open_or_spent = fund.committed
        assert open_or_spent[0] + fund.left[0] == held[0]
        assert open_or_spent[1] + fund.left[1] == held[1]
        assert min(*fund.left) >= 0
    for draw, used in drawn:
        fund.put_back(draw, used)
    spent = [sum(used[i] for _, used in drawn) for i in (0, 1)]
    assert fund.committed == tuple(spent)
    assert fund.joined == bool(calls)


BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def test_fingerprints_ignore_key_order_and_what_is_not_prompt():
    turned = dict(reversed(list(BODY.items())))
    assert fingerprint(BODY) == fingerprint({**turned, "stream": True, "user": "u"})
    assert fingerprint(BODY) != fingerprint({**BODY, "model": "n"})


def test_oversized_memory_is_bounded_expires_and_follows_the_limits():
    memory = OversizedMemory(entries=2, ttl=10)
    error = ContextWindowExceededError("too long")
    limit = Limit(input_tokens=5)
    memory.remember(b"a", error, None, now=0)
    memory.remember(b"b", error, limit, now=0)
    assert memory.recall(b"a", [], 5) is error
    assert memory.recall(b"b", [limit], 5) is error
    assert memory.recall(b"b", [Limit(input_tokens=6)], 5) is None
    assert memory.recall(b"c", [], 5) is None
    memory.remember(b"c", error, None, now=1)
    assert len(memory) == 2
    assert memory.recall(b"a", [], 5) is None
    assert memory.recall(b"c", [], 11) is None
    assert len(memory) == 1


def test_growth_is_told_by_component_and_bounded():
    memory = GrowthMemory(entries=1)
    prompt = Prompt((Part("system", "be brief"), Part("user", "hi")))
    key = conversation_key(prompt, "acme")
    assert memory.compare(key, {"history": 10, "user": 5}) == {}
    assert memory.compare(key, {"history": 30, "user": 5}) == {"history": 20}
    assert memory.compare(conversation_key(prompt, "other"), {"user": 1}) == {}
    assert memory.compare(key, {"history": 90}) == {}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (413, b"", BudgetExceededError),
        (400, b'{"error": {"code": "context_length_exceeded"}}', ContextWindowExceededError),
        (400, b'{"error": {"message": "prompt is too long: 9"}}', ContextWindowExceededError),
        (400, b'{"error": {"type": "request_too_large"}}', ContextWindowExceededError),
        (400, b'{"error": {"code": "bad_schema"}}', type(None)),
        (400, b'{"error": "no"}', type(None)),
        (400, b"[]", type(None)),
        (400, b"not json", type(None)),
        (429, b"maximum context length", type(None)),
    ],
)
def test_reading_a_providers_refusal(status, body, kind):
    assert type(oversized_reply(status, body)) is kind

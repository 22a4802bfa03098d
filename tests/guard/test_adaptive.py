"""The reserve is learnt, topped up mid-stream, and a refused top-up is a clean cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.upstream import count

from streamguard import Guard, Identity, Limit, Usage
from streamguard.core.billing import Spent
from streamguard.core.fund import SLACK
from streamguard.core.learning import OutputLearner
from streamguard.core.samples import Room
from streamguard.guard.context import current_call
from streamguard.guard.learning import HEAD_START
from streamguard.guard.metered import MeteredStream
from streamguard.guard.preflight import assess
from streamguard.sinks.memory import ListSink
from streamguard.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

LIMIT_HEADER = "x-streamguard-output-limit"
WORDS = [f" {word}" for word in ("tide", "lamp", "fog", "boat", "bread", "letter")] * 400


def body(model: str = "gpt-4o", stream: bool = True, cap: int = 2_000) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": model, "stream": stream, "max_tokens": cap, "messages": messages}


def chunk(text: str) -> bytes:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


class Case:
    def __init__(self, capacity: int = 10_000, **settings: Any) -> None:
        limit = Limit(tokens=capacity, per="hour", name="w")
        self.guard = Guard([limit], sinks=[], **settings)

    async def begin(self, request: dict[str, Any]) -> Any:
        subject = await self.guard.subject(
            request, path="/v1/chat/completions", identity=Identity()
        )
        return await self.guard.begin(subject)

    async def begin_inside(self, outer: Any) -> Any:
        token = current_call.set(outer)
        try:
            return await self.begin(body())
        finally:
            current_call.reset(token)

    async def teach(self, tokens: int = 40) -> None:
        for _ in range(20):
            call = await self.begin(body())
            await call.finish(Spent("completed", Usage(output_tokens=tokens)))

    async def balance(self) -> Any:
        subject = await self.guard.subject(body(), path="/v1/chat/completions")
        demands = (await assess(self.guard, subject)).terms.demands
        return (await self.guard.books.balances(demands))[0]


async def run(call: Any, words: list[str]) -> tuple[str, MeteredStream]:
    stream = MeteredStream(call)
    out = b""
    for word in words:
        data = chunk(word)
        if stream.wants_more(len(data)):
            await stream.more(len(data))
        out += stream.feed(data)
        if stream.over:
            break
    text = ""
    for line in out.split(b"\n\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice["delta"].get("content") or ""
    return text, stream


async def test_before_enough_is_known_the_whole_cap_is_held():
    case = Case()
    async with case.guard:
        call = await case.begin(body())
        assert (call.allowance, call.extensible) == (2_000, False)


async def test_a_learnt_reserve_is_held_and_the_cap_stays():
    case = Case()
    async with case.guard:
        await case.teach(40)
        call = await case.begin(body())
        assert (call.allowance, call.ceiling) == (40 + HEAD_START, 2_000)
        assert call.body["max_tokens"] == 2_000
        assert dict(call.headers())["x-streamguard-output-limit"] == "2000"
        held = (await case.balance()).held
        assert held == call.assessment.input_tokens + 40 + HEAD_START + SLACK


@pytest.mark.parametrize("request_body", [body(stream=False), body(model="o3"), body(cap=30)])
async def test_what_cannot_be_topped_up_is_held_whole(request_body):
    case = Case(capacity=100_000)
    async with case.guard:
        await case.teach(40)
        for _ in range(20):
            call = await case.begin(body(model="o3"))
            await call.finish(Spent("completed", Usage(output_tokens=40)))
        call = await case.begin(request_body)
        assert call.allowance == request_body["max_tokens"]


@pytest.mark.parametrize(
    "more",
    [
        {"reasoning": {"max_tokens": 1_500, "exclude": True}},
        {"include_reasoning": False},
        {"thinking": {"type": "enabled", "budget_tokens": 1_024}},
        {"prediction": {"type": "content", "content": "tide " * 400}},
        {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1_500}}},
        {"models": ["openai/o3"]},
        {"model": "google/Gemini-2.5-Pro"},
        {"model": "ft:o4-mini:acme::1"},
    ],
)
async def test_a_stream_that_may_hide_output_is_held_whole_however_short_others_were(more):
    case = Case(capacity=100_000)
    async with case.guard:
        for _ in range(20):
            call = await case.begin({**body(), "model": more.get("model", "gpt-4o")})
            await call.finish(Spent("completed", Usage(output_tokens=40)))
        assert (await case.begin(body() | more)).allowance == 2_000


async def test_a_model_that_was_seen_to_think_unseen_is_held_whole_from_then_on():
    case = Case(capacity=100_000)
    async with case.guard:
        await case.teach()
        call = await case.begin(body())
        assert call.allowance < 2_000
        hidden = Usage(output_tokens=300, reasoning_tokens=260)
        await call.finish(Spent("completed", Usage(output_tokens=40, reasoning_tokens=0), hidden))
        assert (await case.begin(body())).allowance == 2_000
        await call.finish(Spent("completed"))


async def test_the_output_limit_told_is_what_the_call_may_get_and_not_what_is_held():
    case, told = Case(), ListSink()
    await case.teach()
    case.guard.teller.listen(told)
    call = await case.begin(body())
    may_get = {2_000, told.events[-1].output_limit, int(dict(call.headers())[LIMIT_HEADER])}
    assert may_get == {(await case.guard.preflight(body())).output_limit}
    assert call.allowance < 2_000
    await call.finish(Spent("completed"))


async def test_it_can_be_switched_off():
    case = Case(adaptive_reserve=False)
    async with case.guard:
        await case.teach(40)
        assert (await case.begin(body())).allowance == 2_000


async def test_a_long_stream_is_topped_up_before_it_needs_it():
    case = Case()
    async with case.guard:
        await case.teach(40)
        before = await case.balance()
        call = await case.begin(body())
        text, stream = await run(call, WORDS[:1_500])
        assert text == "".join(WORDS[:1_500])
        assert not stream.over
        held = (await case.balance()).held
        assert call.assessment.input_tokens + count(text) <= held
        await call.finish(stream.spent("completed"))
        after = await case.balance()
        assert after.held == 0
        assert after.used - before.used == call.assessment.input_tokens + count(text)


async def test_a_refused_top_up_is_a_cut_at_what_is_held():
    case = Case(capacity=1_500)
    async with case.guard:
        await case.teach(40)
        call = await case.begin(body())
        text, stream = await run(call, WORDS)
        assert stream.cut
        assert count(text) == call.allowance < 2_000
        assert (await case.balance()).remaining == 0
        await call.finish(stream.spent("cut"))
        balance = await case.balance()
        assert 1_500 - SLACK < balance.used <= 1_500
        assert balance.held == 0


async def test_the_cap_is_the_ceiling():
    case = Case()
    async with case.guard:
        await case.teach(40)
        call = await case.begin(body(cap=700))
        text, stream = await run(call, WORDS)
        assert stream.cut
        assert count(text) == 700


async def test_a_store_out_of_reach_grants_nothing():
    class Broken(MemoryStore):
        async def extend(self, *args: Any, **kwargs: Any) -> Any:
            from streamguard import StoreUnavailableError

            raise StoreUnavailableError("no")

    case = Case(store=Broken())
    async with case.guard:
        await case.teach(40)
        call = await case.begin(body())
        text, stream = await run(call, WORDS)
        assert count(text) == 40 + HEAD_START
        await call.finish(stream.spent("cut"))
        assert await call.extend(5) == 0


async def test_a_call_inside_tops_up_the_outer_hold():
    case = Case()
    async with case.guard:
        await case.teach(40)
        before = (await case.balance()).used
        outer = await case.begin(body())
        inner = await case.begin_inside(outer)
        assert (inner.allowance, inner.ceiling) == (40 + HEAD_START, 2_000)
        text, stream = await run(inner, WORDS[:1_000])
        assert text == "".join(WORDS[:1_000])
        assert outer.allowance >= count(text)
        passed, passing = await run(outer, WORDS[:1_000])
        assert passed == text
        await inner.finish(stream.spent("completed"))
        await outer.finish(passing.spent("completed"))
        balance = await case.balance()
        assert balance.held == 0
        assert balance.used - before == outer.assessment.input_tokens + count(text)


async def test_a_call_inside_takes_first_what_the_outer_one_holds_already():
    case = Case()
    async with case.guard:
        await case.teach(40)
        outer = await case.begin(body())
        inner = await case.begin_inside(outer)
        await outer.extend(300)
        held = (await case.balance()).held
        assert await inner.extend(100) == 100
        assert (await case.balance()).held == held
        assert outer.fund.left.output_tokens == 200
        for call in (inner, outer):
            await call.finish(Spent("completed", Usage(output_tokens=1)))
        assert (await case.balance()).held == 0


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=400))
def test_the_estimate_is_a_high_quantile_of_the_latest(outputs):
    learner = OutputLearner(quantile=0.95, least=20, room=Room(2, 2, 200))
    for tokens in outputs:
        learner.learn("acme", "m", tokens)
    found = learner.estimate("acme", "m")
    latest = outputs[-200:]
    if len(latest) < 20:
        assert found is None
        return
    assert found in latest
    assert sum(tokens <= found for tokens in latest) >= 0.95 * len(latest)


def test_the_learner_is_bounded():
    learner = OutputLearner(least=1, room=Room(2, 2, 10))
    for key in "abc":
        learner.learn("acme", key, 5)
    assert [learner.estimate("acme", key) for key in "abc"] == [None, 5, 5]
    for tenant in ("other", "acme", "third"):
        learner.learn(tenant, "c", 5)
    known = [learner.estimate(tenant, "c") for tenant in ("acme", "other", "third")]
    assert known == [5, None, 5]


NAMES = st.sampled_from("abcdefgh")
CALLS = st.lists(st.tuples(st.booleans(), NAMES, st.integers(0, 5_000)), max_size=80)


@given(CALLS)
def test_what_one_tenant_sends_never_changes_anothers_reserve(calls):
    both, alone = (OutputLearner(least=1, room=Room(2, 3, 5)) for _ in range(2))
    for mine, kind, tokens in calls:
        both.learn("acme" if mine else "mallory", kind, tokens)
        if mine:
            alone.learn("acme", kind, tokens)
    for kind in "abcdefgh":
        assert both.estimate("acme", kind) == alone.estimate("acme", kind)


async def test_a_tenants_short_answers_lower_nobody_elses_hold():
    case = Case()
    async with case.guard:
        await case.teach(5)
        other = await case.guard.subject(
            body(), path="/v1/chat/completions", identity=Identity("another")
        )
        assert (await case.guard.begin(other)).grant.output == 2_000
        assert (await case.begin(body())).grant.output == 5 + SLACK + HEAD_START

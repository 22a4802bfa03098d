from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamguard import (
    Catalog,
    ConfigurationError,
    ContextWindowExceededError,
    Guard,
    Identity,
    InputBudgetExceededError,
    Limit,
    OversizedRetryError,
    ProtocolError,
    Usage,
    WindowBudgetExceededError,
)
from streamguard.core.billing import Spent
from streamguard.guard.numbers import refusal_headers, refusal_numbers, worth_retrying
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"


def body(content: str = "hi", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "gpt-4o", "messages": messages, **more}


async def begin(guard: Guard, request: dict[str, Any], identity: Identity | None = None) -> Any:
    return await guard.begin(await guard.subject(request, path=PATH, identity=identity))


async def test_a_missing_cap_is_injected_and_a_given_one_clamped():
    async with Guard([Limit(output_tokens=50)], sinks=[], reserve_output=500) as guard:
        assert (await begin(guard, body())).body["max_completion_tokens"] == 50
        assert (await begin(guard, body(max_tokens=80))).body["max_tokens"] == 50
        small = await begin(guard, body(max_tokens=7))
        assert not small.changed
        assert small.allowance == 7
        two = await begin(guard, body(n=2))
        assert two.body["max_completion_tokens"] == 25
    async with Guard(sinks=[], reserve_output=500) as guard:
        assert (await begin(guard, body())).body["max_completion_tokens"] == 500
        thinking = await begin(guard, body(model="o3"))
        assert thinking.body["max_completion_tokens"] == 16_384


async def test_preflight_counts_and_decides_without_holding():
    limit = Limit(tokens=1_000, per="day", name="day")
    async with Guard([limit], sinks=[]) as guard:
        found = await guard.preflight(body(max_tokens=20))
        assert found.input_tokens == found.count.input_tokens == 8
        assert (found.output_limit, found.context_window) == (20, 128_000)
        assert found.balances["day"].held == 0
        with pytest.raises(ContextWindowExceededError):
            await guard.preflight(body("word " * 130_000))
        with pytest.raises(ProtocolError, match="no endpoint"):
            await guard.preflight(body(), path="/unknown")


async def test_a_refusal_says_which_part_grew():
    async with Guard([Limit(input_tokens=1_000)], sinks=[]) as guard:
        opening = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Tell me of the sea."},
        ]
        more = [
            {"role": "assistant", "content": "Blue. " * 900},
            {"role": "user", "content": "And?"},
        ]
        await begin(guard, {"model": "gpt-4o", "messages": opening})
        with pytest.raises(InputBudgetExceededError) as caught:
            await begin(guard, {"model": "gpt-4o", "messages": [*opening, *more]})
        assert caught.value.grew["history"] > 1_700
        assert refusal_numbers(caught.value)["grew"]["history"] > 1_700


async def test_an_oversized_request_is_refused_again_from_anyone_of_its_tenant():
    sink = ListSink()
    async with Guard([Limit(input_tokens=10)], sinks=[sink]) as guard:
        for kind in (InputBudgetExceededError, OversizedRetryError, OversizedRetryError):
            with pytest.raises(kind) as caught:
                await begin(guard, body("word " * 50), Identity("acme", kind.__name__))
            assert caught.value.http_status == 413
        assert refusal_numbers(caught.value)["repeated"] is True
        with pytest.raises(ProtocolError):
            await begin(guard, body(max_tokens="many"))
    names = [event.event for event in sink.events]
    assert names == ["refused", "retry_refused", "retry_refused"]


async def test_an_exhausted_window_and_one_that_can_never_hold_it():
    limit = Limit(tokens=100, per="minute", name="m")
    async with Guard([limit], sinks=[]) as guard:
        first = await begin(guard, body())
        await first.finish(Spent("completed", Usage(output_tokens=90)))
        with pytest.raises(WindowBudgetExceededError) as caught:
            await begin(guard, body())
        assert 0 < caught.value.retry_after <= 61
        assert worth_retrying(caught.value) is (caught.value.retry_after <= 60)
        with pytest.raises(WindowBudgetExceededError, match="can never fit") as never:
            await begin(guard, body("word " * 200))
        assert never.value.retry_after is None
        headers = dict(refusal_headers(never.value, "id"))
        assert headers["x-should-retry"] == "false"
        assert "retry-after" not in headers


async def test_money_budgets():
    catalog = Catalog({"mine": {"input_price": "1", "output_price": "2"}})
    limit = Limit(cost="0.000100", per="day", name="money")
    async with Guard([limit], sinks=[], catalog=catalog) as guard:
        call = await begin(guard, body(model="mine"))
        given = call.assessment.input_tokens
        assert call.allowance == (100_000 - given * 1_000) // 2_000
        headers = dict(call.headers())
        assert Decimal(headers["x-streamguard-limit"]) == Decimal("0.0001")
        await call.finish(Spent("completed", Usage(output_tokens=call.allowance)))
        with pytest.raises(WindowBudgetExceededError) as caught:
            await begin(guard, body(model="mine"))
        assert caught.value.limit == Decimal("0.0001")
        assert refusal_numbers(caught.value)["limit"] == "0.0001"
        with pytest.raises(ProtocolError, match="no known price"):
            await begin(guard, body(model="never-heard-of"))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_limits_can_be_looked_up_for_each_call(asynchronous):
    plans = {"free": [Limit(output_tokens=5)], "paid": [Limit(output_tokens=500)]}

    async def later(identity: Identity) -> Any:
        return plans[identity.tenant or ""]

    def look_up(identity: Identity, model: str) -> Any:
        return later(identity) if asynchronous else plans[identity.tenant or ""]

    async with Guard(look_up, sinks=[]) as guard:
        assert (await begin(guard, body(), Identity("free"))).allowance == 5
        assert (await begin(guard, body(), Identity("paid"))).allowance == 500
        plans["free"] = [Limit(output_tokens=6)]
        assert (await begin(guard, body(), Identity("free"))).allowance == 6


async def test_big_prompts_are_counted_all_the_same():
    async with Guard(sinks=[]) as guard:
        assert (await guard.preflight(body("word " * 20_000))).input_tokens == 20_008


async def test_a_failing_sink_breaks_nothing():
    class Broken:
        def emit(self, event: Any) -> None:
            raise RuntimeError("no")

    async with Guard(sinks=[Broken()]) as guard:
        await begin(guard, body())
        assert guard.teller.failures == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"reserve_output": 0},
        {"min_output": True},
        {"hold_ttl": 0},
        {"ending": "abrupt"},
        {"on_disconnect": "maybe"},
        {"limits": [Limit(tokens=1, name="x"), Limit(tokens=2, name="x")]},
        {"store": "nowhere://"},
    ],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(ConfigurationError):
        Guard(**wrong)


def test_a_guard_from_a_file(tmp_path):
    path = tmp_path / "streamguard.toml"
    path.write_text(
        """
        store = "memory://"
        reserve_output = 99
        [models.mine]
        context_window = 32_000
        [[limits]]
        tokens = 5
        per = "day"
        scope = ["tenant"]
        """
    )
    guard = Guard.from_config(path)
    assert guard.settings.reserve_output == 99
    assert guard.settings.limits == (Limit(tokens=5, per="day", scope=("tenant",)),)
    assert guard.catalog.model_info("mine").context_window == 32_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense = 1", "nonsense"),
        ("limits = 3", r"\[\[limits\]\]"),
        ("limits = [3]", r"limits\[0\]"),
        ("[[limits]]\ntokens = 1\nspan = 'day'", "span"),
        ("[[limits]]\ntokens = 'x'", r"limits\[0\]"),
        ("[[limits]]\nscope = 3", r"limits\[0\]"),
        ("= 1", "not valid TOML"),
    ],
)
def test_config_errors_name_the_key(tmp_path, text, said):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        Guard.from_config(path)


def test_a_config_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read"):
        Guard.from_config(tmp_path / "none.toml")


async def test_every_input_of_an_embedding_has_the_window_to_itself():
    async with Guard(sinks=[]) as guard:
        inputs = {"model": "text-embedding-3-small", "input": ["word " * 5_000] * 3}
        found = await guard.preflight(inputs, path="/v1/embeddings")
        assert found.input_tokens > 15_000
        assert found.count.longest < 5_100
        inputs["input"] = ["word " * 9_000, "short"]
        with pytest.raises(ContextWindowExceededError, match="9,00"):
            await guard.preflight(inputs, path="/v1/embeddings")
        several = {"model": "gpt-3.5-turbo-instruct", "prompt": ["word " * 9_000] * 2}
        assert (await guard.preflight(several, path="/v1/completions")).output_limit > 0
        with pytest.raises(ContextWindowExceededError):
            await guard.preflight({**several, "suffix": "end"}, path="/v1/completions")


async def test_cache_writes_are_held_and_charged_at_their_own_price():
    sink = ListSink()
    turn = {"role": "user", "content": [{"type": "text", "text": "hi " * 400}]}
    plain = {"model": "claude-sonnet-4-5", "max_tokens": 1, "messages": [turn]}
    cached = {**plain, "system": [{"type": "text", "text": "", "cache_control": {}}]}
    async with Guard([Limit(cost="1", per="day", name="money")], sinks=[sink]) as guard:
        holds = []
        for request in (plain, cached):
            call = await guard.begin(await guard.subject(request, path="/v1/messages"))
            holds.append((await guard.preflight(plain, path="/v1/messages")).balances["money"].held)
            reported = Usage(400, 1, None, 0, 400 if request is cached else 0)
            await call.finish(Spent("completed", Usage(output_tokens=1), reported))
    assert holds[1] > 1.2 * holds[0]
    costs = [event.cost_nano_usd for event in sink.events if event.event == "settled"]
    assert costs[1] - costs[0] == 400 * 750  # $3.75 instead of $3.00 a million


async def test_a_report_that_cannot_be_is_doubted_and_told():
    sink = ListSink()
    day = Limit(cost="1.00", per="day", scope=("tenant",))
    async with Guard([day], sinks=[sink]) as guard:
        call = await begin(guard, body(max_tokens=20))
        absurd = Usage(2**63, 2**63, None, 4)
        usage = await call.finish(Spent("completed", Usage(output_tokens=12), absurd))
        assert usage == Usage(8, 12, None, 4)
        left = (await guard.preflight(body(max_tokens=20))).balances
        assert [balance.used for balance in left.values()] == [8 * 2_500 - 4 * 1_250 + 12 * 10_000]
    event = next(one for one in sink.events if one.event == "settled")
    assert event.detail == "doubted input_tokens, output_tokens"
    assert event.reported == Usage(cached_tokens=4)

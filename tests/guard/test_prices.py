"""A call is held at the dearest price its request allows, and billed at the one that answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard import Catalog, ConfigurationError, Guard, Limit, ProtocolError, Usage
from streamguard.core.billing import Spent
from streamguard.core.wire import Request, Served
from streamguard.guard.metered import MeteredStream, measured
from streamguard.guard.prices import cost_of, rates_of
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
AZURE = "/openai/deployments/{}/chat/completions"
DAY = Limit(cost="1.00", per="day", name="day")


def body(**more: Any) -> dict[str, Any]:
    asked = {"model": "gpt-4o-mini", "max_tokens": 100, **more}
    return {**asked, "messages": [{"role": "user", "content": "hi"}]}


async def begin(guard: Guard, request: dict[str, Any], path: str = CHAT) -> Any:
    return await guard.begin(await guard.subject(request, path=path))


async def held_and_billed(request: dict[str, Any], served: Served, path: str = CHAT, **more: Any):
    """Nano-dollars held before the call, and charged after 8 tokens in and 100 out."""
    sink = ListSink()
    async with Guard([DAY], sinks=[sink], **more) as guard:
        call = await begin(guard, request, path)
        (held,) = await guard.books.balances(call.assessment.terms.demands)
        usage = Usage(8, 100)
        await call.finish(Spent("completed", usage, usage, served=served))
        (after,) = await guard.books.balances(call.assessment.terms.demands)
        settled = next(event for event in sink.events if event.event == "settled")
        assert settled.cost_nano_usd == after.used
        return held.held, after.used


MINI, LARGE = 8 * 150 + 100 * 600, 8 * 2_500 + 100 * 10_000
MINI_PRIORITY, LARGE_PRIORITY = 8 * 250 + 100 * 1_000, 8 * 4_250 + 100 * 17_000


@pytest.mark.parametrize(
    ("more", "served", "held", "billed"),
    [
        ({}, Served(), MINI, MINI),
        ({}, Served("gpt-4o", "default"), MINI, LARGE),  # answered by a dearer model
        ({}, Served("gpt-4.1-nano"), MINI, MINI),  # or by a cheaper one, it says
        ({}, Served("gpt-4o", "priority"), MINI, LARGE_PRIORITY),
        ({}, Served("who-knows"), MINI, MINI),
        ({"models": ["gpt-4o"]}, Served(), LARGE, LARGE),
        ({"models": ["gpt-4o"]}, Served("gpt-4o-mini-2024-07-18"), LARGE, MINI),
        ({"models": ["gpt-4o"]}, Served("openai/gpt-4o"), LARGE, LARGE),
        ({"models": ["gpt-4o"]}, Served("who-knows"), LARGE, LARGE),
        ({"fallbacks": [{"model": "gpt-4o"}]}, Served("gpt-4o-mini"), LARGE, MINI),
        ({"service_tier": "priority"}, Served(), MINI_PRIORITY, MINI_PRIORITY),
        ({"service_tier": "priority"}, Served("", "priority"), MINI_PRIORITY, MINI_PRIORITY),
        ({"service_tier": "priority"}, Served("", "default"), MINI_PRIORITY, MINI),
        ({"service_tier": "priority"}, Served("", "new"), MINI_PRIORITY, MINI_PRIORITY),
        ({"service_tier": "flex"}, Served("", "flex"), MINI, MINI),  # has no listed price
        ({"service_tier": "auto"}, Served("", "priority"), MINI, MINI_PRIORITY),
    ],
)
async def test_the_dearest_is_held_and_what_answered_is_billed(more, served, held, billed):
    assert await held_and_billed(body(**more), served) == (held, billed)


@pytest.mark.parametrize(
    "own",
    [
        {"input_price": "1", "output_price": "1"},
        {"tiers": {"priority": {"input_price": "1", "output_price": "1"}}},
    ],
)
async def test_a_price_of_the_owners_own_stands_whatever_answers(own):
    request = body(model="gpt-4o-mini", service_tier="priority" if "tiers" in own else "default")
    more = {"catalog": Catalog({"GPT-4o-mini": own})}
    tier = request["service_tier"]
    billed = 108 * 1_000
    assert (await held_and_billed(request, Served("gpt-4o", tier), **more))[1] == billed
    window = {"catalog": Catalog({"gpt-4o-mini": {"context_window": 10_000}})}
    answered = Served("gpt-4o", "default")
    assert await held_and_billed(body(), answered, **window) == (MINI, LARGE)


async def test_flex_is_held_at_the_usual_price_and_billed_at_its_own():
    request = body(model="o3", service_tier="flex")
    usual, flex = 8 * 2_000 + 100 * 8_000, 8 * 1_000 + 100 * 4_000
    assert await held_and_billed(request, Served("o3", "flex")) == (usual - 2_000, flex)
    assert await held_and_billed(request, Served("o3")) == (usual - 2_000, usual)  # 7 were counted


@pytest.mark.parametrize(
    "more",
    [
        {"models": ["no-such-model"]},
        {"service_tier": "ultrafast"},
        {"service_tier": "priority", "models": ["gpt-4.1-nano", "gpt-5-pro"]},
    ],
)
async def test_what_has_no_price_cannot_be_held(more):
    async with Guard([DAY], sinks=[]) as guard:
        with pytest.raises(ProtocolError, match="no known price"):
            await begin(guard, body(**more))
    async with Guard(sinks=[]) as guard:
        assert (await begin(guard, body(**more))).allowance == 100


async def test_azures_deployment_decides_on_the_price_and_not_the_body():
    path = AZURE.format("gpt-4o")
    assert await held_and_billed(body(), Served("gpt-4o-2024-08-06"), path) == (LARGE, LARGE)
    async with Guard([DAY], sinks=[]) as guard:
        with pytest.raises(ProtocolError, match="'prod-big' has no known price.*deployments"):
            await begin(guard, body(), AZURE.format("prod-big"))


@pytest.mark.parametrize(
    ("path", "model"),
    [(AZURE.format("PROD-big"), "gpt-4o-mini"), ("/openai/v1/chat/completions", "Prod-Big")],
)
async def test_a_deployment_can_be_given_its_model(path, model):
    mapped = {"deployments": {"prod-Big": "gpt-4o"}}
    assert await held_and_billed(body(model=model), Served(), path, **mapped) == (LARGE, LARGE)
    async with Guard([DAY], sinks=[], **mapped) as guard:
        call = await begin(guard, body(model=model), path)
        assert call.assessment.count.method == "exact"
        with pytest.raises(ProtocolError, match="no known price"):
            await begin(guard, body(model="prod-big"))  # not Azure's path


async def test_an_unknown_deployment_is_billed_by_what_the_response_says():
    sink = ListSink()
    async with Guard(sinks=[sink]) as guard:
        call = await begin(guard, body(), AZURE.format("prod-big"))
        usage = Usage(8, 100)
        await call.finish(Spent("completed", usage, usage, served=Served("gpt-4o-2024-08-06")))
        call = await begin(guard, body(), AZURE.format("prod-big"))
        await call.finish(Spent("completed", usage, usage))
    settled = [event for event in sink.events if event.event == "settled"]
    assert [event.cost_nano_usd for event in settled] == [LARGE, None]


@pytest.mark.parametrize("wrong", ["gpt-4o", {"a": 5}, {5: "a"}, ["a"]])
def test_deployments_are_a_table_of_names(wrong):
    with pytest.raises(ConfigurationError, match="deployments="):
        Guard(sinks=[], deployments=wrong)


BY_MODEL = Limit(tokens=5_000, per="day", scope=("model",), name="by model")
ONLY = Limit(tokens=5_000, per="day", where={"model": "GPT-4o"}, name="only")


@pytest.mark.parametrize(
    ("limit", "models", "refused"),
    [
        (BY_MODEL, ["gpt-4o"], True),
        (BY_MODEL, ["openai/GPT-4o-mini"], False),
        (ONLY, ["o3", "openai/gpt-4o"], True),
        (ONLY, ["o3"], False),
        (DAY, ["gpt-4o"], False),
    ],
)
async def test_no_other_model_answers_past_a_limit_by_model(limit, models, refused):
    sink = ListSink()
    async with Guard([limit], sinks=[]) as guard:
        if not refused:
            assert (await begin(guard, body(models=models))).allowance == 100
            return
        with pytest.raises(ProtocolError, match=f"{limit.name}.*leave the other models out"):
            await begin(guard, body(models=models))
    async with Guard([limit], sinks=[sink], observe=True) as guard:
        await begin(guard, body(models=models))
    assert "invalid_request" in [event.code for event in sink.events if event.event == "warned"]


async def test_limits_that_are_looked_up_are_those_of_all_models_that_may_answer():
    def plan(identity, model):
        return [DAY, *([Limit(output_tokens=7, name="small")] if model == "gpt-4o" else [])]

    async with Guard(plan, sinks=[]) as guard:
        assert (await begin(guard, body())).allowance == 100
        assert (await begin(guard, body(models=["gpt-4o"]))).allowance == 7


async def test_replies_and_streams_are_billed_by_what_they_say():
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}}
    usage = {"prompt_tokens": 8, "completion_tokens": 100}
    head = {"id": "c", "model": "gpt-4o", "service_tier": "priority", "usage": usage}
    async with Guard(sinks=[]) as guard:
        call = await begin(guard, body(models=["gpt-4o"]))
        _, spent = measured(call, json.dumps({**head, "choices": [choice]}).encode())
        assert spent.served == Served("gpt-4o", "priority")
        cut = {**choice, "message": {"content": "hello " * 200}}
        _, spent = measured(call, json.dumps({**head, "choices": [cut]}).encode())
        assert (spent.outcome, spent.served) == ("cut", Served("gpt-4o", "priority"))
        stream = MeteredStream(call)
        delta = {"index": 0, "delta": {"content": "hello"}}
        stream.feed(b"data: " + json.dumps({**head, "choices": [delta]}).encode() + b"\n\n")
        assert stream.spent("completed").served == Served("gpt-4o", "priority")
        cost = cost_of(guard.catalog, call.assessment.subject.request, Usage(8, 100), spent)
        assert cost == 8 * 4_250 + 100 * 17_000


MODELS = ("gpt-4o", "gpt-4o-mini", "o3", "gpt-5", "gpt-5-nano", "claude-sonnet-4-5")
TIERS = ("", "priority", "flex", "fast")
CATALOG = Catalog()


@given(
    st.lists(st.sampled_from(MODELS), min_size=1, max_size=4, unique=True),
    st.sampled_from(TIERS),
    st.data(),
)
def test_nothing_a_request_allows_costs_more_than_is_held(models, tier, data):
    request = Request("openai_chat", models[0], {}, also=tuple(models[1:]), tier=tier)
    rates = rates_of(CATALOG, request)
    if rates.input_rate is None or rates.output_rate is None:
        return
    usage = Usage(data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 10**5)))
    answered = data.draw(st.sampled_from(["", *models]))
    granted = data.draw(st.sampled_from(["", "default", tier]))
    cost = cost_of(CATALOG, request, usage, Spent("completed", served=Served(answered, granted)))
    assert cost is not None
    assert cost <= rates.input_rate * usage.input_tokens + rates.output_rate * usage.output_tokens

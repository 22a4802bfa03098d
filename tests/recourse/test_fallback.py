"""When a budget is gone another model may answer: cheaper, big enough, and said so."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.proxy import proxy
from support.servers import serve
from support.upstream import Upstream

from streamguard import (
    BudgetExceededError,
    Catalog,
    ConfigurationError,
    ContextWindowExceededError,
    Guard,
    InputBudgetExceededError,
    Limit,
    OversizedRetryError,
    StreamGuardMiddleware,
    WindowBudgetExceededError,
)
from streamguard.core.billing import Spent
from streamguard.core.fallback import Candidate, Size, by_size, helpful
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
MODELS = {
    "gpt-4o": {"context_window": 2_000, "input_price": "10", "output_price": "30"},
    "gpt-4.1": {"context_window": 2_000, "input_price": "2", "output_price": "6"},
    "gpt-4o-mini": {"context_window": 1_000, "input_price": "0.1", "output_price": "0.4"},
    "gpt-4.1-nano": {"context_window": 9_000, "input_price": "20", "output_price": "60"},
    "unknown": {"context_window": 9_000},
}
CHAIN = ["gpt-4o-mini", "unknown", "gpt-4.1", "gpt-4.1-nano", "gpt-4o"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def body(text: str = "hi", model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def guarded(*limits: Limit, sink: ListSink | None = None, **settings: Any) -> Guard:
    options = {"fallback": CHAIN, "reserve_output": 100, "min_output": 20, **settings}
    return Guard(limits, catalog=Catalog(MODELS), sinks=[sink or ListSink()], **options)


async def begin(guard: Guard, request: dict[str, Any]) -> Any:
    return await guard.begin(await guard.subject(request, path=PATH))


async def spend(guard: Guard, model: str, tokens: int) -> None:
    call = await begin(guard, body(model=model, max_tokens=tokens))
    await call.finish(Spent("completed", reported=call.assessment.count and _usage(tokens)))


def _usage(tokens: int) -> Any:
    from streamguard import Usage

    return Usage(8, tokens)


async def test_a_model_budget_that_is_gone_falls_back_to_the_next_cheaper_model():
    sink = ListSink()
    limit = Limit(cost="0.002", per="day", scope=("model",), name="per model")
    async with guarded(limit, sink=sink) as guard:
        await spend(guard, "gpt-4o", 60)
        call = await begin(guard, body(max_tokens=60))
        assert call.body == {**body(max_tokens=60), "model": "gpt-4.1"}
        assert call.changed
        assert ("x-streamguard-model", "gpt-4.1") in call.headers()
        (event,) = sink.named("rerouted")
        assert (event.model, event.detail) == ("gpt-4.1", "gpt-4o")
        assert not sink.named("refused")
        await call.finish(Spent("completed", reported=_usage(60)))
        settled = sink.named("settled")[-1]
        assert (settled.model, settled.cost_nano_usd) == ("gpt-4.1", 8 * 2_000 + 60 * 6_000)


async def test_the_chain_goes_on_until_a_model_has_budget():
    limit = Limit(cost="0.002", per="day", scope=("model",), name="per model")
    async with guarded(limit) as guard:
        for model in ("gpt-4o", "gpt-4.1"):
            await spend(guard, model, 66 if model == "gpt-4o" else 331)
        assert (await begin(guard, body())).body["model"] == "gpt-4o-mini"


async def test_a_shared_budget_in_money_takes_only_what_the_rest_can_pay():
    limit = Limit(cost="0.002", per="day", name="all")
    async with guarded(limit) as guard:
        await spend(guard, "gpt-4o", 60)  # 80 + 1,800 of 2,000 thousand nano-dollars
        call = await begin(guard, body(max_tokens=20))
        assert call.body["model"] == "gpt-4o-mini", (
            "gpt-4.1 would need 136 thousand and 120 are left"
        )


async def test_a_budget_that_counts_tokens_of_all_models_refuses():
    limit = Limit(tokens=80, per="day", name="all")
    sink = ListSink()
    async with guarded(limit, sink=sink) as guard:
        await spend(guard, "gpt-4o", 60)
        with pytest.raises(WindowBudgetExceededError) as caught:
            await begin(guard, body("word " * 10))
        assert caught.value.limit_name == "all"
        assert len(sink.named("refused")) == 1


async def test_a_prompt_too_long_goes_to_a_model_that_takes_it_again_and_again():
    async with guarded(fallback=["gpt-4o-mini", "gpt-4.1-nano"]) as guard:
        for _ in range(2):
            call = await begin(guard, body("word " * 3_000))
            assert call.body["model"] == "gpt-4.1-nano"
        with pytest.raises(ContextWindowExceededError):
            await begin(guard, body("word " * 12_000))
        with pytest.raises(OversizedRetryError):
            await begin(guard, body("word " * 12_000))


async def test_a_request_budget_in_money_falls_back_as_well():
    async with guarded(Limit(cost="0.0002")) as guard:
        assert (await begin(guard, body("word " * 20))).body["model"] == "gpt-4.1"
        with pytest.raises(InputBudgetExceededError) as caught:
            await begin(guard, body("word " * 1_990, max_tokens=1))
        assert "0.0002" in caught.value.message


async def test_without_a_chain_or_with_the_model_in_the_path_it_is_refused():
    limit = Limit(cost="0.0001", per="day", scope=("model",), name="per model")
    async with guarded(limit, fallback=()) as guard:
        with pytest.raises(WindowBudgetExceededError):
            await begin(guard, body("word " * 20))
    async with guarded(limit) as guard:
        path = "/openai/deployments/gpt-4o/chat/completions"
        for model in ({}, {"model": "gpt-4o"}):  # Azure ignores it, so another helps nothing
            request = body("word " * 20)
            del request["model"]
            subject = await guard.subject(request | model, path=path)
            assert subject.request.model == "gpt-4o"
            with pytest.raises(WindowBudgetExceededError):
                await guard.begin(subject)


async def test_a_name_can_stand_for_models_by_size():
    sizes = {"auto": [(50, "gpt-4o-mini"), (500, "gpt-4.1"), (1_500, "gpt-4o")]}
    async with guarded(sizes=sizes) as guard:
        for words, model in ((5, "gpt-4o-mini"), (100, "gpt-4.1"), (700, "gpt-4o")):
            call = await begin(guard, body("word " * words, model="auto"))
            assert call.body["model"] == model
            assert ("x-streamguard-model", model) in call.headers()
        assert not (await begin(guard, body(model="gpt-4.1", max_tokens=5))).changed
        assert (await begin(guard, body("word " * 3_000, model="auto"))).body["model"] == "unknown"


async def test_the_client_learns_which_model_answered():
    limit = Limit(cost="0.0005", per="day", scope=("model",), name="per model")
    with Upstream() as upstream:
        app = StreamGuardMiddleware(proxy(upstream.base_url), guard=guarded(limit))
        with serve(app, "uvicorn") as url:
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
                raw = await client.chat.completions.with_raw_response.create(
                    **body("word " * 45, max_tokens=20)
                )
        assert raw.headers["x-streamguard-model"] == "gpt-4.1"
        assert raw.parse().model == upstream.calls[-1].body["model"] == "gpt-4.1"


async def test_a_wrapped_client_falls_back_too():
    limit = Limit(cost="0.0005", per="day", scope=("model",), name="per model")
    with Upstream() as upstream:
        async with guarded(limit) as guard:
            client = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k")
            async with guard.wrap(client) as wrapped:
                answer = await wrapped.chat.completions.create(**body("word " * 45, max_tokens=20))
    assert answer.model == upstream.calls[-1].body["model"] == "gpt-4.1"


def test_the_response_says_nothing_when_nothing_was_changed():
    with Upstream() as upstream:
        app = StreamGuardMiddleware(proxy(upstream.base_url), guard=guarded())
        with serve(app, "uvicorn") as url:
            answer = httpx2.post(f"{url}{PATH}", json=body(max_tokens=5))
    assert "x-streamguard-model" not in answer.headers


PRICES = st.one_of(st.none(), st.integers(0, 50))
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.sampled_from("abcdef"),
        st.one_of(st.none(), st.integers(1, 200)),
        PRICES,
        PRICES,
    ),
    max_size=6,
    unique_by=lambda each: each.model,
)


@given(CANDIDATES, st.integers(0, 150), st.integers(0, 60), st.integers(0, 5_000))
def test_helpful_models_fit_cost_less_and_can_be_paid(candidates, inputs, outputs, left):
    asked = Candidate("asked", 100, 20, 40)
    error = BudgetExceededError("", limit=left, used=0, unit="cost")
    error.limit_name = "all"
    found = helpful(error, asked, candidates, Size(inputs, outputs), [Limit(cost="1", name="all")])
    costs = [each.cost(inputs, outputs) for each in found]
    assert costs == sorted(costs, reverse=True)
    for each in found:
        assert each.context_window is None or inputs + outputs <= each.context_window
        assert each.cost(inputs, outputs) < asked.cost(inputs, outputs)
        assert each.cost(inputs, outputs) <= left * 10**9


def test_a_budget_nobody_knows_helps_nobody():
    error = BudgetExceededError("", unit="tokens")
    assert helpful(error, Candidate("a"), [Candidate("b", 9, 1, 1)], Size(1, 1), []) == []
    money = BudgetExceededError("", unit="cost")
    cheap = Candidate("b", 9, 1, 1)
    assert helpful(money, Candidate("a"), [cheap], Size(1, 1), []) == [cheap]


def test_sizes():
    sizes = [(10, "small"), (20, "large")]
    assert [by_size(sizes, tokens) for tokens in (0, 10, 11, 20, 21)] == [
        "small", "small", "large", "large", "large",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fallback": "gpt-4o-mini"}, "list of model names"),
        ({"fallback": [1]}, "list of model names"),
        ({"sizes": {"auto": []}}, "pairs"),
        ({"sizes": {"auto": "gpt-4o"}}, "pairs"),
        ({"sizes": {"auto": ["ab"]}}, "pairs"),
        ({"sizes": {"auto": [(0, "gpt-4o")]}}, "pairs"),
        ({"sizes": {"auto": [("9", "gpt-4o")]}}, "pairs"),
        ({"sizes": {"auto": [7]}}, "pairs"),
        ({"sizes": {"auto": [(9, "a"), (5, "b")]}}, "smallest"),
        ({"sizes": {"auto": [(9, "a"), (9, "b")]}}, "smallest"),
    ],
)
def test_models_that_cannot_be_are_refused_when_the_guard_is_made(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        Guard(**settings)

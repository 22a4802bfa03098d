"""A guard that was asked to make prompts fit: visibly, and only then."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.proxy import proxy
from support.servers import serve
from support.upstream import Upstream

from streamguard import (
    BudgetPlanner,
    Catalog,
    ConfigurationError,
    ContextWindowExceededError,
    Guard,
    InputBudgetExceededError,
    Limit,
    ProtocolError,
    StreamGuardError,
    StreamGuardMiddleware,
    count_request,
)
from streamguard.core.admission import Ask, Rates, terms
from streamguard.core.prompt import PromptCount
from streamguard.core.room import input_room
from streamguard.planner import ComponentBudget, KeepEdges, LastMessages, Summarise, newest_first
from streamguard.planner.fitting import Fitter, as_fit
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
SMALL = Catalog({"small": {"context_window": 400}})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def long_chat(turns: int = 40, model: str = "small", **more: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    for turn in range(turns):
        messages += [
            {"role": "user", "content": f"question {turn} about the sea"},
            {"role": "assistant", "content": f"answer {turn} about the sea"},
        ]
    return {"model": model, "messages": [*messages, {"role": "user", "content": "Why?"}], **more}


async def begin(guard: Guard, body: dict[str, Any]) -> Any:
    return await guard.begin(await guard.subject(body, path=PATH))


@pytest.mark.parametrize(
    "fit",
    [
        newest_first,
        "drop-oldest",
        "keep-edges",
        KeepEdges(1),
        BudgetPlanner("gpt-4o"),
        BudgetPlanner("gpt-4o", components=[ComponentBudget("history", keep=LastMessages(5))]),
        Fitter(),
    ],
)
async def test_a_prompt_too_long_for_the_window_is_trimmed_and_told_of(fit):
    sink = ListSink()
    async with Guard(catalog=SMALL, sinks=[sink], fit=fit, reserve_output=50) as guard:
        body = long_chat()
        call = await begin(guard, body)
        assert call.changed
        assert call.body["messages"][0] == body["messages"][0]
        assert call.body["messages"][-1] == body["messages"][-1]
        assert call.assessment.input_tokens == count_request(call.body).input_tokens <= 320
        before = count_request(body).input_tokens
        removed = before - call.assessment.input_tokens
        assert ("x-streamguard-trimmed", str(removed)) in call.headers()
        (event,) = sink.named("trimmed")
        assert (event.requested, event.limit) == (before, 350)
        assert event.counted.input_tokens == call.assessment.input_tokens
        assert len(body["messages"]) == 82, "the client's own body was changed"
        assert [event.event for event in sink.events] == ["trimmed", "preflight"]


async def test_what_fits_is_left_alone_and_without_fit_it_is_refused():
    sink = ListSink()
    async with Guard(catalog=SMALL, sinks=[sink], fit=newest_first, reserve_output=50) as guard:
        body = long_chat(4, max_tokens=20)
        call = await begin(guard, body)
        assert not call.changed
        assert "x-streamguard-trimmed" not in dict(call.headers())
        assert not sink.named("trimmed")
    async with Guard(catalog=SMALL, sinks=[], reserve_output=50) as guard:
        with pytest.raises(ContextWindowExceededError):
            await begin(guard, long_chat())


async def test_a_request_budget_is_fitted_too():
    limits = [Limit(input_tokens=100), Limit(tokens=1_000_000, per="day")]
    async with Guard(limits, sinks=[], fit="drop-oldest", reserve_output=50) as guard:
        call = await begin(guard, long_chat(model="gpt-4o"))
        assert 60 < call.assessment.input_tokens <= 100
        with pytest.raises(ContextWindowExceededError, match="100"):
            await begin(guard, {"model": "gpt-4o", "messages": [
                {"role": "user", "content": "word " * 200}
            ]})  # fmt: skip


async def test_summaries_are_awaited():
    async def summarise(messages):
        return f"{len(messages)} messages about the sea"

    history = ComponentBudget("history", keep=Summarise(summarise, tokens=40))
    planner = BudgetPlanner("gpt-4o", components=[history])
    async with Guard(catalog=SMALL, sinks=[], fit=planner, reserve_output=50) as guard:
        call = await begin(guard, long_chat())
        assert "messages about the sea" in call.body["messages"][1]["content"]


async def test_a_callable_of_ones_own_and_observe_mode():
    class Halved:
        trimmed_tokens = 1

    def halve(body, room):
        return {**body, "messages": body["messages"][-4:]}, Halved()

    async with Guard(catalog=SMALL, sinks=[], fit=halve, reserve_output=50) as guard:
        assert len((await begin(guard, long_chat())).body["messages"]) == 4
    async with Guard(catalog=SMALL, sinks=[], fit=halve, observe=True) as guard:
        assert len((await begin(guard, long_chat())).body["messages"]) == 82


async def test_other_formats_are_refused_as_before():
    async with Guard([Limit(input_tokens=100)], sinks=[], fit="drop-oldest") as guard:
        body = {"model": "gpt-4o", "input": "word " * 300}
        with pytest.raises(InputBudgetExceededError):
            await guard.begin(await guard.subject(body, path="/v1/responses"))


def test_what_is_no_fit_is_refused():
    assert as_fit(None) is None
    with pytest.raises(ConfigurationError, match="drop-oldest, keep-edges"):
        Guard(fit="shorten")
    with pytest.raises(ConfigurationError, match="no planner"):
        Guard(fit=3)


async def test_the_middleware_sends_the_shortened_body_and_says_so():
    body = long_chat(max_tokens=30)
    with Upstream() as upstream:
        guard = Guard(catalog=SMALL, sinks=[], fit="drop-oldest")
        app = StreamGuardMiddleware(proxy(upstream.base_url), guard=guard)
        with serve(app, "uvicorn") as url:
            answer = httpx2.post(f"{url}{PATH}", json=body)
        sent = upstream.calls[-1].body
    assert answer.status_code == 200
    assert int(answer.headers["x-streamguard-trimmed"]) > 100
    assert len(sent["messages"]) < 82
    assert sent["messages"] == [m for m in body["messages"] if m in sent["messages"]]


LIMITS = st.lists(
    st.one_of(
        st.builds(lambda n: Limit(tokens=n, name=f"t{n}"), st.integers(0, 300)),
        st.builds(lambda n: Limit(input_tokens=n, name=f"i{n}"), st.integers(0, 300)),
        st.builds(lambda n: Limit(output_tokens=n, name=f"o{n}"), st.integers(5, 300)),
        st.builds(lambda n: Limit(cost=f"0.{n:06d}", name=f"c{n}"), st.integers(0, 2_000)),
        st.builds(lambda n: Limit(tokens=n, soft=True, name=f"s{n}"), st.integers(0, 300)),
        st.builds(lambda n: Limit(tokens=n, per="day", name=f"d{n}"), st.integers(0, 300)),
        st.just(Limit(tokens=1, where={"model": "other"}, name="other")),
    ),
    max_size=4,
    unique_by=lambda limit: limit.name,
)


@settings(max_examples=300, deadline=None)
@given(
    LIMITS,
    st.sampled_from([None, 60, 250]),
    st.integers(1, 40),
    st.integers(0, 2),
    st.integers(0, 300),
    st.sampled_from([0, 30_000]),
)
def test_the_room_is_exactly_what_admission_allows(limits, window, cap, choices, tokens, call):
    rates = Rates(window, 1_000, 4_000, call)

    def ask(input_tokens):
        return Ask(PromptCount(input_tokens, "exact"), cap, 20, choices, least=1)

    room = input_room(ask(tokens), limits, {"model": "m"}, rates)
    admitted = True
    try:
        terms(ask(tokens), limits, {"model": "m"}, rates)
    except StreamGuardError:
        admitted = False
    if room is None:
        assert admitted
    elif tokens > room:
        assert not admitted
    elif tokens > 0 and room > 0:
        assert admitted


def test_a_room_with_unknown_prices_cannot_be_told():
    ask = Ask(PromptCount(10, "exact", model="m"), 10, 10)
    with pytest.raises(ProtocolError):
        input_room(ask, [Limit(cost="1")], {}, Rates())


def anthropic(turns=30, **more):
    messages = []
    for turn in range(turns):
        messages += [
            {"role": "user", "content": f"question {turn} about the sea"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": f"t{turn}", "name": "look", "input": {"n": turn}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": f"t{turn}", "content": "wet"},
            ]},
            {"role": "assistant", "content": "It is wet."},
        ]  # fmt: skip
    messages.append({"role": "user", "content": "Why?"})
    body = {"model": "claude-sonnet-4-5", "system": "Be brief.", "messages": messages}
    return {**body, "max_tokens": 50, **more}


@pytest.mark.parametrize("fit", ["drop-oldest", BudgetPlanner("gpt-4o")])
async def test_anthropic_bodies_lose_whole_turns(fit):
    async with Guard([Limit(input_tokens=500)], sinks=[], fit=fit) as guard:
        body = anthropic()
        call = await guard.begin(await guard.subject(body, path="/v1/messages"))
        kept = call.body["messages"]
        assert call.assessment.input_tokens <= 500
        assert kept == body["messages"][-len(kept) :]
        assert len(kept) > 4
        assert len(kept) % 4 == 1
        assert kept[0]["role"] == "user"
        assert isinstance(kept[0]["content"], str)
        assert call.body["system"] == "Be brief."


async def test_a_count_that_was_corrected_upwards_is_fitted_again():
    rooms = []

    class Shortened:
        trimmed_tokens = 0

    def optimist(body, room):
        rooms.append(room)
        kept = room // 10
        return {**body, "messages": body["messages"][-kept:]}, Shortened()

    async with Guard(catalog=SMALL, sinks=[], fit=optimist, reserve_output=50) as guard:
        call = await begin(guard, long_chat())
        assert call.assessment.input_tokens <= 350
        assert len(rooms) > 1
        assert rooms == sorted(rooms, reverse=True)


async def test_a_fit_that_never_fits_is_refused():
    class Nothing:
        trimmed_tokens = 0

    async with Guard(catalog=SMALL, sinks=[], fit=lambda body, room: (body, Nothing())) as guard:
        with pytest.raises(ContextWindowExceededError):
            await begin(guard, long_chat())

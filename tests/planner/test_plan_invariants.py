"""What every plan keeps, whatever is added to the planner."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.counting import count_request
from streamguard.errors import ContextWindowExceededError
from streamguard.planner import (
    BudgetPlanner,
    Chunks,
    ComponentBudget,
    KeepEdges,
    LastMessages,
    LastTokens,
    Summarise,
    by_score,
    newest_first,
    oldest_first,
)

TEXTS = st.one_of(
    st.sampled_from(["", "Yes.", "word " * 40, "数え上げる" * 8, "🌍🌱" * 5, "\n\n\n", "a" * 90]),
    st.text(max_size=40),
)
MODELS = st.sampled_from(["gpt-4o", "gpt-4", "o3-mini", "gpt-5", "claude-sonnet-4", "llama-3"])
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},
]


def short(messages):
    return f"{len(messages)} messages"


def long(messages):
    return "very long summary " * 200


async def later(messages):
    await asyncio.sleep(0)
    return f"{len(messages)} messages"


KEEPS = st.sampled_from(
    [
        newest_first,
        oldest_first,
        LastMessages(3),
        LastTokens(60),
        LastTokens(60, by_mean=True),
        KeepEdges(2),
        Summarise(short, tokens=40),
        Summarise(long, tokens=30, keep=LastMessages(2)),
    ]
)


@st.composite
def turns(draw, max_size=12):
    """Conversations with names, examples, and tool calls whose results may be late."""
    messages, waiting = [], []
    for number in range(draw(st.integers(0, max_size))):
        kind = draw(st.sampled_from(["user", "user", "assistant", "tools", "system", "example"]))
        text = draw(TEXTS)
        if kind == "tools":
            names = [f"call-{number}-{i}" for i in range(draw(st.integers(1, 2)))]
            calls = [
                {"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}}
                for name in names
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            results = [{"role": "tool", "tool_call_id": name, "content": text} for name in names]
            cut = draw(st.integers(0, len(results)))
            messages += results[:cut]
            waiting += results[cut:]
        elif kind == "example":
            messages.append({"role": "system", "name": "example_user", "content": text})
            messages.append({"role": "system", "name": "example_assistant", "content": text})
        else:
            messages.append({"role": kind, "content": text})
        if waiting and draw(st.booleans()):
            messages.append(waiting.pop(0))
    return messages + waiting


BOTH = st.booleans()


@st.composite
def planners(draw, *, keeps=KEEPS, trim=BOTH):
    growing = ComponentBudget(
        "history",
        kind="growing",
        share=draw(st.sampled_from([0.0, 0.3, 1.0])),
        minimum=draw(st.sampled_from([0, 0, 20, 70])),
        priority=draw(st.integers(0, 3)),
        keep=draw(keeps),
        turns=draw(BOTH),
    )
    retrieved = ComponentBudget(
        "retrieved",
        kind="dynamic",
        share=draw(st.sampled_from([0.0, 0.3, 1.0])),
        minimum=draw(st.sampled_from([0, 0, 20])),
        priority=draw(st.integers(0, 3)),
        keep=by_score,
    )
    planner = BudgetPlanner(
        draw(MODELS),
        components=[growing, retrieved],
        window=draw(st.integers(50, 900)),
        reserve=draw(st.sampled_from([0.2, 0.5, 10])),
        trim=draw(trim),
        request=draw(st.sampled_from([{}, {"tools": TOOLS}, {"temperature": 1}])),
        chunks=Chunks(arrange=draw(st.sampled_from(["edges", "score", "added"]))),
    )
    messages = draw(turns())
    chunks = draw(st.lists(st.tuples(TEXTS, st.floats(0, 1)), max_size=5))
    cut = draw(st.integers(0, len(messages)))
    planner.add_messages(messages[:cut]).add_chunks(chunks).add_messages(messages[cut:])
    return planner, messages, chunks


def made(planner):
    """The plan, or ``None`` for a refusal whose figures are sound."""
    try:
        return planner.plan()
    except ContextWindowExceededError as refused:
        error = refused
    assert error.limit == planner.space.window
    assert error.requested > error.limit
    assert error.components
    return None


@settings(max_examples=120, deadline=None)
@given(planners())
def test_a_plan_fits_is_counted_exactly_and_adds_up(case):
    planner, messages, _chunks = case
    plan = made(planner)
    if plan is None:
        return
    report = plan.report
    assert count_request(plan.body).input_tokens == report.input_tokens
    assert count_request(plan.body).method == report.method
    assert report.input_tokens + report.reserve <= report.window
    assert report.remaining >= 0
    parts = sum(each.tokens for each in report.components)
    assert parts + report.overhead + report.summaries == report.input_tokens
    assert len(report.pieces) == sum(each.kept + each.trimmed for each in report.components)
    kept = [m for m in plan.messages if any(m is one for one in messages)]
    assert kept == [m for m in messages if any(m is one for one in kept)], "order changed"
    if not planner.space.trim:
        assert report.trimmed == 0


@settings(max_examples=60, deadline=None)
@given(planners(trim=st.just(True)))
def test_fixed_parts_and_minima_are_kept(case):
    planner, _messages, _chunks = case
    plan = made(planner)
    if plan is None:
        return
    for need, choice in zip(plan.report.asked, plan.report.choices, strict=True):
        if need.budget.kind == "fixed":
            assert len(choice.kept) == len(need.units)
        assert choice.tokens >= min(need.budget.minimum, need.wanted)


@settings(max_examples=60, deadline=None)
@given(planners(trim=st.just(True)))
def test_tool_calls_and_their_results_stay_together(case):
    planner, messages, _chunks = case
    plan = made(planner)
    if plan is None:
        return
    calls = {c["id"] for m in plan.messages for c in m.get("tool_calls", ())}
    results = {m["tool_call_id"] for m in plan.messages if m["role"] == "tool"}
    answered = {m["tool_call_id"] for m in messages if m["role"] == "tool"}
    assert results == calls & answered


@settings(max_examples=40, deadline=None)
@given(planners())
def test_plans_are_deterministic_and_async_ones_are_the_same(case):
    planner, _messages, _chunks = case
    plan = made(planner)
    if plan is None:
        return
    planner._summaries.clear()
    again = planner.plan()
    planner._summaries.clear()
    waited = asyncio.run(planner.aplan())
    assert plan.messages == again.messages == waited.messages
    assert plan.report.as_dict() == again.report.as_dict() == waited.report.as_dict()


@settings(max_examples=40, deadline=None)
@given(planners(trim=st.just(True), keeps=st.just(newest_first)), st.integers(0, 200))
def test_more_room_never_keeps_less_of_a_conversation_alone(case, more):
    planner, messages, _chunks = case
    messages = [message for message in messages if "name" not in message]
    kept = []
    for window in (planner.space.window, planner.space.window + more):
        alone = BudgetPlanner("gpt-4o", window=window, reserve=10)
        plan = made(alone.add_messages(messages))
        kept.append(-1 if plan is None else len(plan.messages))
    assert kept[0] <= kept[1]


@settings(max_examples=30, deadline=None)
@given(turns(max_size=8), st.data())
def test_planning_as_messages_come_equals_planning_them_at_once(messages, data):
    growing = BudgetPlanner("gpt-4o", window=data.draw(st.integers(60, 600)))
    for message in messages:
        growing.add_message(message)
        step = made(growing)
    at_once = BudgetPlanner("gpt-4o", window=growing.space.window).add_messages(messages)
    last = made(at_once)
    if messages:
        assert (step and step.messages) == (last and last.messages)


@pytest.mark.parametrize("trim", [True, False])
def test_what_cannot_fit_is_refused_with_the_breakdown(trim):
    planner = BudgetPlanner("gpt-4o", window=100, trim=trim)
    planner.add_message({"role": "system", "content": "law " * 200})
    planner.add_message({"role": "user", "content": "Which law?"})
    with pytest.raises(ContextWindowExceededError) as caught:
        planner.plan()
    error = caught.value
    assert error.components == {"system": 205, "user": 7, "overhead": 3}
    assert "100" in error.message
    assert "law law" not in error.message
    assert ("trim=False" in error.message) is not trim


class Counted:
    """A cache that notes what it was asked to count."""

    def __init__(self):
        self.texts = []

    def __call__(self, tokenizer, text):
        self.texts.append(text)
        return tokenizer.count(text)


def test_adding_a_message_counts_only_that_message():
    counted = Counted()
    planner = BudgetPlanner("gpt-4o", cache=counted)
    for turn in range(50):
        planner.add_message({"role": "user", "content": f"turn {turn}"})
        counted.texts.clear()
        planner.plan()
        said = [text for text in counted.texts if text.startswith("turn")]
        assert said == [f"turn {turn}"]

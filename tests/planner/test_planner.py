"""Components, strategies, chunks and summaries, one by one."""

from __future__ import annotations

import asyncio

import pytest

from streamguard.counting import count_request
from streamguard.errors import ConfigurationError
from streamguard.planner import (
    BudgetPlanner,
    Chunk,
    Chunks,
    ComponentBudget,
    KeepEdges,
    LastMessages,
    LastTokens,
    Summarise,
    newest_first,
    oldest_first,
)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def chat(planner, turns=10):
    for turn in range(turns):
        planner.add_message(user(f"question {turn}"))
        planner.add_message(assistant(f"answer {turn}"))
    return planner.add_message(user("And now?"))


def history(keep, *, window=100_000, **budget):
    growing = ComponentBudget("history", keep=keep, **budget)
    plan = chat(BudgetPlanner("gpt-4o", components=[growing], window=window)).plan()
    assert plan.messages[-1] == user("And now?")
    return [message["content"] for message in plan.messages[:-1]], plan


def test_the_default_reserve_is_a_fifth_of_the_window():
    assert BudgetPlanner("gpt-4o").space.reserve == 25_600
    assert BudgetPlanner("gpt-4o").space.window == 128_000
    assert BudgetPlanner("gpt-4o", window=11).space.reserve == 3
    assert BudgetPlanner("gpt-4o", reserve=500).space.reserve == 500


def test_last_messages():
    assert history(LastMessages(3))[0] == ["answer 8", "question 9", "answer 9"]
    assert history(LastMessages(0))[0] == []


def test_last_tokens():
    texts, plan = history(LastTokens(21))
    assert texts == ["answer 8", "question 9", "answer 9"]
    assert plan.report.components[2].tokens == 21


def test_a_window_by_mean_size():
    growing = ComponentBudget("history", keep=LastTokens(100, by_mean=True))
    planner = BudgetPlanner("gpt-4o", components=[growing])
    for size in (1, 90, 1, 1, 90, 1):
        planner.add_message(assistant("word " * size))
    plan = planner.add_message(user("?")).plan()
    assert plan.report.components[2].kept == 2
    assert history(LastTokens(60, by_mean=True))[1].report.components[2].kept == 8
    empty = BudgetPlanner("gpt-4o", components=[growing]).plan()
    assert empty.messages == ()


def test_drop_oldest_and_keep_edges_lose_other_ends():
    texts, _ = history(newest_first, window=100)
    assert (
        texts
        == [f"{kind} {turn}" for turn in range(4, 10) for kind in ("question", "answer")][
            -len(texts) :
        ]
    )
    texts, plan = history(KeepEdges(2), window=100)
    assert texts[:2] == ["question 0", "answer 0"]
    assert texts[-1] == "answer 9"
    assert "question 4" not in texts
    assert {piece.why for piece in plan.report.pieces if not piece.kept} == {
        "no room: 140 tokens wanted, 70 allowed to history"
    }
    assert history(oldest_first, window=100)[0][0] == "question 0"


def test_a_strategy_is_any_callable_and_what_it_leaves_out_is_dropped():
    def odd(units):
        return range(1, len(units), 2)

    texts, plan = history(odd)
    assert texts == [f"answer {turn}" for turn in range(10)]
    assert plan.report.pieces[0].why == "left out by odd"
    assert plan.report.pieces[1].why == "kept by odd"
    with pytest.raises(ConfigurationError, match="none of its messages"):
        history(lambda units: [99])


def test_summaries_replace_what_is_dropped_and_roll_on():
    asked = []

    def summarise(messages):
        asked.append([message["content"] for message in messages])
        return f"summary {len(asked)}"

    growing = ComponentBudget("history", keep=Summarise(summarise, tokens=40, keep=LastMessages(2)))
    planner = chat(BudgetPlanner("gpt-4o", components=[growing]), 3)
    plan = planner.plan()
    assert [m["content"] for m in plan.messages] == [
        "Summary of the conversation so far:\nsummary 1",
        "question 2",
        "answer 2",
        "And now?",
    ]
    assert planner.plan().messages == plan.messages
    assert len(asked) == 1, "the same messages were summarised again"
    planner.add_messages([assistant("Later."), user("When?")])
    plan = planner.plan()
    assert asked[1][0].endswith("summary 1")
    assert asked[1][1:] == ["question 2", "answer 2"]
    assert plan.messages[0]["content"].endswith("summary 2")
    assert plan.report.pieces[0].why.startswith("summarised; left out by Summarise(40 tokens)")
    assert count_request(plan.body).input_tokens == plan.report.input_tokens


def test_a_long_summary_is_cut_at_its_allowance():
    growing = ComponentBudget(
        "history", keep=Summarise(lambda _: "far too long " * 100, tokens=30, keep=LastMessages(1))
    )
    plan = chat(BudgetPlanner("gpt-4o", components=[growing])).plan()
    assert plan.report.summaries == 30


def test_a_summary_without_room_for_itself_is_left_out():
    growing = ComponentBudget(
        "history", keep=Summarise(lambda _: "short", tokens=300, keep=LastMessages(1))
    )
    plan = chat(BudgetPlanner("gpt-4o", components=[growing], window=100)).plan()
    assert plan.report.summaries == 0
    assert len(plan.messages) == 2


def test_an_asynchronous_summariser_is_awaited():
    async def summarise(messages):
        await asyncio.sleep(0)
        return "awaited"

    growing = ComponentBudget("history", keep=Summarise(summarise, keep=LastMessages(1)))
    planner = chat(BudgetPlanner("gpt-4o", components=[growing]))
    with pytest.raises(ConfigurationError, match="aplan"):
        planner.plan()
    plan = asyncio.run(planner.aplan())
    assert plan.messages[0]["content"].endswith("awaited")


def test_big_texts_are_counted_in_a_thread_with_the_same_result():
    def planner():
        return BudgetPlanner("gpt-4o", window=9_000).add_messages(
            [assistant("long text " * 4_000), assistant("last"), user("?")]
        )

    assert asyncio.run(planner().aplan()).messages == planner().plan().messages


def test_chunks_are_kept_by_score_and_stand_before_the_question():
    texts = [
        (f"chunk {at} " + "fact " * 20, score) for at, score in enumerate((0.1, 0.9, 0.5, 0.7))
    ]
    shares = [ComponentBudget("retrieved", kind="dynamic", share=1.0, keep=_scored())]
    planner = BudgetPlanner("gpt-4o", window=130, components=shares)
    plan = planner.add_message(user("Before.")).add_chunks(texts).add_message(user("Now?")).plan()
    assert [m["content"][:8] for m in plan.messages] == ["Before.", "chunk 1 ", "Now?"]
    order = [line[:7] for line in plan.messages[1]["content"].split("\n\n")]
    assert order == ["chunk 1", "chunk 2", "chunk 3"], "the best two stand at the edges"
    dropped = next(piece for piece in plan.report.pieces if not piece.kept)
    assert (dropped.role, dropped.positions) == ("chunk", (1,))
    assert dropped.why.startswith("score 0.1; no room")


def _scored():
    from streamguard.planner import by_score

    return by_score


@pytest.mark.parametrize("chunk", ["text", "a1", ("text", "well"), ("text",), (5, 0.5), None])
def test_a_chunk_is_a_text_with_its_score(chunk):
    with pytest.raises(ConfigurationError, match="a chunk is a text with its score"):
        BudgetPlanner("gpt-4o").add_chunks([chunk])


def test_a_message_is_an_object():
    with pytest.raises(ConfigurationError, match=r"a message is an object, such as \{'role'"):
        BudgetPlanner("gpt-4o").add_message("Hello")


def test_the_repr_of_a_plan_holds_figures_only():
    planner = BudgetPlanner("gpt-4o", request={"user": "someone"})
    planner.add_message({"role": "user", "content": "a secret question"})
    shown = repr(planner.plan())
    assert "input_tokens=" in shown
    assert len(shown) < 1_000
    assert not any(word in shown for word in ("secret", "someone"))


@pytest.mark.parametrize(
    ("arrange", "order"),
    [("edges", "dbac"), ("score", "dcba"), ("added", "adcb")],
)
def test_arrangements(arrange, order):
    chunks = [Chunk("a", 0.1), Chunk("d", 0.9), Chunk("c", 0.8), Chunk("b", 0.5)]
    plan = BudgetPlanner("gpt-4o", chunks=Chunks(arrange=arrange)).add_chunks(chunks).plan()
    assert plan.messages[0]["content"].replace("\n\n", "") == order


def test_a_message_of_ones_own_for_the_chunks():
    def message(texts):
        return {"role": "system", "content": [{"type": "text", "text": text} for text in texts]}

    planner = BudgetPlanner("gpt-4o", chunks=Chunks(message)).add_chunks([("a", 1), ("b", 2)])
    plan = planner.plan()
    assert plan.messages == (message(["b", "a"]),)
    assert count_request(plan.body).input_tokens == plan.report.input_tokens


def test_shares_and_priorities_decide_who_gets_the_room():
    def kept(history_priority, share):
        budgets = [
            ComponentBudget("history", priority=history_priority, share=share),
            ComponentBudget("retrieved", kind="dynamic", priority=5, share=0.0),
        ]
        planner = BudgetPlanner("gpt-4o", window=160, components=budgets)
        planner.add_chunks([("fact " * 8, at) for at in range(12)])
        report = chat(planner).plan().report
        return report.components[2].tokens, report.components[3].tokens

    mine, theirs = kept(9, 0.0)
    assert mine == 112
    assert theirs < 20
    mine, theirs = kept(1, 0.0)
    assert mine < 30
    mine, theirs = kept(1, 0.5)
    assert 50 <= mine <= 64
    assert theirs > 30


def test_own_components_and_explicit_places():
    rules = ComponentBudget("rules", kind="fixed")
    planner = BudgetPlanner("gpt-4o", components=[rules])
    planner.add_message(user("Never lie."), "rules")
    planner.add_message(user("Q"), "history").add_message(user("Real question"), "user")
    report = planner.plan().report
    names = {piece.positions[0]: piece.component for piece in report.pieces}
    assert names == {0: "rules", 1: "history", 2: "user"}
    with pytest.raises(ConfigurationError, match="no component 'memory'"):
        planner.add_message(user("?"), "memory")


def test_examples_stay_in_pairs_and_functions_with_their_results():
    planner = BudgetPlanner("gpt-4o", window=120)
    for turn in range(9):
        planner.add_message({"role": "system", "name": "example_user", "content": f"in {turn}"})
        planner.add_message(
            {"role": "system", "name": "example_assistant", "content": f"out {turn}"}
        )
    planner.add_message(
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}
    )
    planner.add_message({"role": "function", "name": "f", "content": "12"})
    plan = planner.add_message(user("?")).plan()
    sizes = [len(piece.positions) for piece in plan.report.pieces]
    assert sizes == [2] * 9 + [2, 1]
    examples = [m for m in plan.messages if m["role"] == "system"]
    assert 0 < len(examples) < 18
    assert examples[0]["content"] == "in 0"


def test_anthropic_tool_blocks_stay_together():
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f"}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]}
    planner = BudgetPlanner("gpt-4o").add_messages([user("q"), call, result])
    pieces = planner.plan().report.pieces
    assert [piece.positions for piece in pieces] == [(0,), (1, 2)]
    assert {piece.component for piece in pieces} == {"user"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BudgetPlanner("no-such-model-at-all"), "give window="),
        (lambda: BudgetPlanner("gpt-4o", reserve=1.0), "leave room"),
        (lambda: BudgetPlanner("gpt-4o", reserve=True), "leave room"),
        (lambda: ComponentBudget("a", kind="dynmic"), "kind='dynmic'; use one of .'fixed', 'dyn"),
        (lambda: ComponentBudget("a", keep="newest"), "keep='newest' must be a callable"),
        (lambda: ComponentBudget("a", share=1.5), "between 0 and 1"),
        (lambda: ComponentBudget("a", minimum=-1), "0 or more"),
        (lambda: ComponentBudget("a", kind="fixed", keep=Summarise(str)), "growing"),
        (lambda: LastMessages(-1), "at least 0"),
        (lambda: LastTokens(True), "at least 0"),
        (lambda: KeepEdges(1.5), "at least 0"),
        (lambda: Summarise(str, tokens=3), "at least 16"),
        (lambda: BudgetPlanner("gpt-4o").add_chunks([], "history"), "dynamic"),
    ],
)
def test_figures_that_cannot_be_are_refused(make, says):
    with pytest.raises(ConfigurationError, match=says):
        make()


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-4", "gemini-2.5-pro"])
def test_a_tiny_allowance_holds_with_margins_too(model):
    growing = ComponentBudget(
        "history", keep=Summarise(lambda _: "many words " * 9, tokens=16, keep=LastMessages(1))
    )
    plan = chat(BudgetPlanner(model, components=[growing], window=5_000)).plan()
    assert plan.report.summaries <= plan.report.window
    assert count_request(plan.body).input_tokens == plan.report.input_tokens


def test_a_user_component_that_is_empty_is_not_drawn():
    plan = BudgetPlanner("gpt-4o").add_messages([user("q"), assistant("a")]).plan()
    assert "history" not in plan.svg()
    assert {piece.component for piece in plan.report.pieces} == {"user"}


def test_a_result_without_its_call_stands_alone():
    result = {"role": "tool", "tool_call_id": "gone", "content": "12"}
    plan = BudgetPlanner("gpt-4o").add_messages([user("q"), result, user("r")]).plan()
    assert [piece.positions for piece in plan.report.pieces] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("model", "tools"), [("gpt-4o", True), ("gpt-4o", False), ("claude-sonnet-4", False)]
)
def test_the_room_is_used_to_the_token_even_where_costs_do_not_add_up(model, tools):
    look = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    system = {"role": "system", "content": "Be brief."}
    messages = [system, user("one"), assistant("a"), user("two"), assistant("b"), user("three")]

    def planned(room):
        request = {"tools": [look]} if tools else {}
        planner = BudgetPlanner(model, window=room + 10, reserve=10, request=request)
        return planner.add_messages(messages).plan()

    whole = planned(1_000).report.input_tokens
    assert planned(whole).report.trimmed == 0
    for room in range(whole - 4, whole):
        report = planned(room).report
        assert report.trimmed == 1
        assert report.input_tokens <= room


def test_messages_that_cost_more_together_than_one_by_one_still_fit():
    """Results that come late are rendered with their calls in one piece and without in another."""
    calls = [
        {"id": f"c{at}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        for at in range(2)
    ]
    messages = [
        user("word " * 10),
        {"role": "assistant", "content": None, "tool_calls": calls},
        user("数え上げる" * 8),
        *({"role": "tool", "tool_call_id": call["id"], "content": ""} for call in calls),
    ]
    plan = BudgetPlanner("gpt-4o", window=108, reserve=10).add_messages(messages).plan()
    assert plan.report.trimmed
    assert count_request(plan.body).input_tokens == plan.report.input_tokens <= 98

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard import (
    ContextWindowExceededError,
    InputBudgetExceededError,
    Limit,
    OutputBudgetExceededError,
    ProtocolError,
)
from streamguard.core.admission import Ask, Rates, amounts, applies, same_name, terms
from streamguard.core.prompt import PromptCount

SCOPE = {"tenant": "acme", "user": "", "feature": "", "model": "gpt-4o", "endpoint": "/v1"}
RATES = Rates(context_window=1_000, input_rate=100, output_rate=400)


def ask(tokens: int = 100, cap: int = 200, **more: int) -> Ask:
    count = PromptCount(tokens, "exact", components={"user": tokens}, model="gpt-4o")
    return Ask(count=count, cap=cap, **{"reserve": 300, **more})


def test_without_limits_the_cap_is_what_fits_the_window():
    assert terms(ask(), [], SCOPE, RATES).want == 200
    assert terms(ask(cap=5_000), [], SCOPE, RATES).want == 900
    assert terms(ask(cap=5_000), [], SCOPE, Rates()).want == 5_000
    assert terms(ask(choices=3), [], SCOPE, RATES).want == 600


def test_the_reserve_must_fit_beside_the_prompt():
    assert terms(ask(tokens=700, cap=5_000), [], SCOPE, RATES).want == 300
    with pytest.raises(ContextWindowExceededError) as caught:
        terms(ask(tokens=701, cap=5_000), [], SCOPE, RATES)
    error = caught.value
    assert (error.limit, error.used, error.requested) == (1_000, 701, 1_001)
    assert error.components == {"user": 701}
    assert "Shorten the prompt by 1 tokens" in error.message
    assert "largest part: user with 701" in error.message


def test_a_small_cap_needs_only_itself():
    assert terms(ask(tokens=990, cap=10), [], SCOPE, RATES).want == 10
    with pytest.raises(ContextWindowExceededError):
        terms(ask(tokens=991, cap=10), [], SCOPE, RATES)


def test_calls_without_output_need_only_their_input():
    assert terms(ask(tokens=1_000, choices=0), [], SCOPE, RATES).want == 0
    with pytest.raises(ContextWindowExceededError):
        terms(ask(tokens=1_001, choices=0), [], SCOPE, RATES)
    limit = Limit(input_tokens=999)
    with pytest.raises(InputBudgetExceededError):
        terms(ask(tokens=1_000, choices=0), [limit], SCOPE, RATES)


@pytest.mark.parametrize(
    ("limit", "want"),
    [
        (Limit(output_tokens=50), 50),
        (Limit(tokens=150), 50),
        (Limit(input_tokens=100), 200),
        (Limit(cost="0.00003"), 50),
        (Limit(tokens=150, where={"model": "other"}), 200),
    ],
)
def test_per_request_budgets_clamp_the_output(limit, want):
    assert terms(ask(), [limit], SCOPE, RATES).want == want


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        (Limit(input_tokens=99), InputBudgetExceededError),
        (Limit(tokens=100), InputBudgetExceededError),
        (Limit(output_tokens=0), OutputBudgetExceededError),
        (Limit(cost="0.00001"), InputBudgetExceededError),
    ],
)
def test_over_a_per_request_budget(limit, kind):
    with pytest.raises(kind) as caught:
        terms(ask(), [limit], SCOPE, RATES)
    assert caught.value.limit_name == limit.name
    assert type(caught.value.limit) is (Decimal if limit.unit == "cost" else int)


def test_money_is_said_in_dollars():
    with pytest.raises(InputBudgetExceededError, match=r"\$0\.00001 a request"):
        terms(ask(), [Limit(cost="0.00001")], SCOPE, RATES)


def test_counts_without_components_say_how_they_were_made():
    bare = Ask(count=PromptCount(2_000, "bound"), cap=1, reserve=1)
    with pytest.raises(ContextWindowExceededError, match="counted: bound"):
        terms(bare, [], SCOPE, RATES)


def test_soft_limits_warn_and_do_not_clamp():
    limit = Limit(output_tokens=50, soft=True)
    found = terms(ask(), [limit], SCOPE, RATES)
    assert (found.want, found.warnings) == (200, (limit,))


def test_a_cost_budget_needs_a_price():
    with pytest.raises(ProtocolError, match="no known price"):
        terms(ask(), [Limit(cost="1", per="day")], SCOPE, Rates(input_rate=100))


def test_windows_become_demands():
    limits = [
        Limit(tokens=500, per="hour", scope=("tenant",)),
        Limit(cost="1", per="month"),
        Limit(requests=5, per="minute", soft=True),
        Limit(concurrency=2),
        Limit(output_tokens=9, per="day", calendar=True, timezone="Europe/Rome"),
    ]
    demands = terms(ask(), limits, SCOPE, RATES).demands
    figures = [(d.capacity, d.fixed, d.rate, d.soft) for d in demands]
    assert figures == [
        (500, 100, 1, False),
        (10**9, 10_000, 400, False),
        (5, 1, 0, True),
        (2, 1, 0, False),
        (9, 0, 1, False),
    ]
    assert [d.window.seconds for d in demands] == [3600, 0, 60, None, 86400]
    assert [d.window.calendar for d in demands] == [False, True, False, False, True]
    assert len({d.account for d in demands}) == 5
    assert amounts(limits, 100, 20, 7, 1) == [120, 7, 1, 0, 20]
    assert amounts(limits[1:2], 100, 20, None, 1) == [0]


@given(
    tokens=st.integers(0, 2_000),
    cap=st.integers(1, 2_000),
    reserve=st.integers(1, 2_000),
    choices=st.integers(1, 4),
    output=st.integers(0, 2_000),
    total=st.integers(0, 4_000),
)
def test_what_is_granted_keeps_every_budget(tokens, cap, reserve, choices, output, total):
    limits = [Limit(output_tokens=output), Limit(tokens=total)]
    wish = ask(tokens=tokens, cap=cap, reserve=reserve, choices=choices)
    try:
        found = terms(wish, limits, SCOPE, RATES)
    except (ContextWindowExceededError, InputBudgetExceededError, OutputBudgetExceededError):
        least = choices
        fits = tokens + min(cap, reserve) <= 1_000
        assert not fits or output < least or total - tokens < least
        return
    assert found.least <= found.want <= min(cap * choices, output, total - tokens)
    assert tokens + found.want // choices <= 1_000


def test_an_output_budget_lowers_what_must_fit_beside_the_prompt():
    wish = ask(tokens=900, cap=5_000)
    with pytest.raises(ContextWindowExceededError):
        terms(wish, [], SCOPE, RATES)
    assert terms(wish, [Limit(output_tokens=60)], SCOPE, RATES).want == 60
    with pytest.raises(ContextWindowExceededError):
        terms(wish, [Limit(output_tokens=60, soft=True)], SCOPE, RATES)
    with pytest.raises(OutputBudgetExceededError):
        terms(wish, [Limit(output_tokens=0)], SCOPE, RATES)


def test_a_models_spellings_share_one_account():
    limit = Limit(tokens=500, per="hour", scope=("model",))
    only = Limit(tokens=500, per="hour", where={"model": "gpt-4o"}, name="only")
    accounts = set()
    for name in ("gpt-4o", "GPT-4o ", "openai/gpt-4o", "models/gpt-4o"):
        found = terms(ask(), [limit, only], {**SCOPE, "model": name}, RATES)
        assert len(found.demands) == 2
        accounts.add(found.demands[0].account)
    assert len(accounts) == 1
    assert len(terms(ask(), [only], {**SCOPE, "model": "gpt-4o-mini"}, RATES).demands) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("gpt-4o", "openai/GPT-4o-2024-08-06", True),
        ("gpt-4o", "openai/gpt-4o:nitro", True),
        ("gpt-4o", "gpt-4o-latest:free:online", True),
        ("claude-sonnet-4", "claude-sonnet-4@20250514", True),
        ("gpt-4", "gpt-4-0613", True),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4", "gpt-4-1106-preview", False),
        ("llama3", "llama3:8b", False),
        ("ft:gpt-4o:a::b:free", "ft:gpt-4o:a::b", False),
        ("-latest", "", False),
    ],
)
def test_a_budget_cannot_be_had_again_under_another_name_of_the_model(one, other, same):
    names = [same_name("model", name) for name in (one, other)]
    assert (names[0] == names[1]) is same
    scope = {"model": other}
    assert applies(Limit(tokens=1, per="hour", where={"model": one}), scope) is same
    assert same_name("tenant", "a-2024-08-06") == "a-2024-08-06"

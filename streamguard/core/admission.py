"""The decision before a call: what it may produce and what it asks of each budget. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from streamguard.core.accounts import MAX_CAPACITY, Demand, Window, account_key
from streamguard.core.prompt import PromptCount
from streamguard.errors import (
    Amount,
    BudgetExceededError,
    ContextWindowExceededError,
    InputBudgetExceededError,
    OutputBudgetExceededError,
    ProtocolError,
)
from streamguard.limits import NANO, Limit, Unit

_SPELLING = re.compile(
    r"(?:-\d{4}-\d\d-\d\d|[-@]\d{8}|-\d{4}|-latest)?"
    r"(?::(?:nitro|floor|free|online|extended|thinking|exacto|beta))*\Z"
)
"""A snapshot's date, and OpenRouter's variants: with them a budget could be had again."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What a model takes and costs. Rates are whole nano-dollars a token, rounded up.

    ``call_rate`` is what a call costs beside its tokens. ``None`` is unknown, never 0;
    ``unpriced`` says what of the request has no price.
    """

    context_window: int | None = None
    input_rate: int | None = None
    output_rate: int | None = None
    call_rate: int | None = 0
    unpriced: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one call wants, in tokens.

    Attributes:
        count: the prompt.
        cap: output tokens for each choice, the client's or the policy's.
        reserve: the output that must fit the context window for a choice at least.
        choices: outputs asked for; 0 for calls that produce none (embeddings).
        least: output tokens a choice must be able to get for the call to be worth sending.
        requests: 1, or 0 for a part of a call that is counted already.
    """

    count: PromptCount
    cap: int
    reserve: int
    choices: int = 1
    least: int = 1
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """What the store is asked for: ``want`` output tokens, ``least`` at the minimum.

    ``demands`` and ``limits`` go in pairs. ``warnings`` are soft per-request limits crossed.
    """

    want: int
    least: int
    demands: tuple[Demand, ...] = ()
    limits: tuple[Limit, ...] = ()
    warnings: tuple[Limit, ...] = field(default=())


def terms(ask: Ask, limits: Sequence[Limit], scope: Mapping[str, str], rates: Rates) -> Terms:
    """Hold a call against the context window and its per-request budgets.

    ``scope`` gives the call's tenant, user, feature, model and endpoint; limits that are
    ``where`` something else are skipped.

    Raises:
        ContextWindowExceededError: prompt and reserve do not fit the model.
        InputBudgetExceededError, OutputBudgetExceededError: over a per-request budget.
        ProtocolError: a cost budget applies and the model's price is unknown.
    """
    mine = [limit for limit in limits if applies(limit, scope)]
    ask = held_to_output(ask, mine)
    least = ask.least * ask.choices
    want = _fit_window(ask, rates)
    warnings = []
    for limit in mine:
        if not _per_request(limit):
            continue
        room = _room(limit, ask, rates)
        if room is None or room >= want:
            continue
        if limit.soft:
            warnings.append(limit)
        elif room < least:
            raise _over_request(limit, ask, scope, rates, least)
        else:
            want = room
    windows = [limit for limit in mine if not _per_request(limit)]
    demands = tuple(demand(limit, ask, scope, rates) for limit in windows)
    return Terms(want, min(least, want), demands, tuple(windows), tuple(warnings))


def _per_request(limit: Limit) -> bool:
    return limit.span is None and limit.unit != "concurrency"


def held_to_output(ask: Ask, limits: Sequence[Limit]) -> Ask:
    """The ask under its limits: an output budget lowers what has to fit beside the prompt, too."""
    caps = (
        max(ask.least, limit.amount // max(1, ask.choices))
        for limit in limits
        if limit.unit == "output_tokens" and _per_request(limit) and not limit.soft
    )
    return replace(ask, cap=min((ask.cap, *caps)))


def applies(limit: Limit, scope: Mapping[str, str]) -> bool:
    """Whether the limit counts a call of this scope."""
    return all(
        same_name(key, scope.get(key, "")) == same_name(key, value)
        for key, value in limit.where.items()
    )


def demand(limit: Limit, ask: Ask, scope: Mapping[str, str], rates: Rates) -> Demand:
    """What the call asks of a window's account."""
    values: dict[str, str | None] = {key: same_name(key, scope.get(key, "")) for key in limit.scope}
    window = window_of(limit)
    return Demand(
        account=account_key(limit.name, values, window),
        capacity=limit.capacity,
        window=window,
        fixed=_fixed(limit.unit, ask, rates),
        rate=_rate(limit.unit, ask, rates),
        soft=limit.soft,
    )


def same_name(key: str, value: str) -> str:
    """What budgets go by: a model's spellings share one account, with a vendor before it or none,
    of any date, by whatever way OpenRouter goes.
    """
    if key != "model":
        return value
    name = value.strip().lower().rpartition("/")[2]
    return name if name.startswith("ft:") else _SPELLING.sub("", name) or name


def window_of(limit: Limit) -> Window:
    """The window that a limit's usage ages by."""
    seconds = None if limit.unit == "concurrency" else limit.span
    leak = min(limit.amount, MAX_CAPACITY) if limit.smooth else 0
    return Window(seconds, limit.calendar or seconds == 0, limit.timezone, leak)


def amounts(
    limits: Sequence[Limit], input_tokens: int, output_tokens: int, cost: int | None, requests: int
) -> list[int]:
    """What a settled call charges each window, in the limit's own unit."""
    charge: dict[Unit, int] = {
        "tokens": input_tokens + output_tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cost": cost or 0,
        "requests": requests,
        "concurrency": 0,
    }
    return [charge[limit.unit] for limit in limits]


def shown(unit: Unit, amount: int) -> Amount:
    """An amount as people read it: tokens as they are, money in US dollars."""
    return Decimal(amount) / NANO if unit == "cost" else amount


def _fit_window(ask: Ask, rates: Rates) -> int:
    """Output tokens of all choices that fit beside the prompt in the context window."""
    if rates.context_window is None:
        return ask.cap * ask.choices
    room = rates.context_window - _longest(ask.count)
    if room < min(ask.cap, ask.reserve) * bool(ask.choices) or room < 0:
        raise _over_context(ask, rates.context_window)
    return min(ask.cap, room) * ask.choices


def _longest(count: PromptCount) -> int:
    """Tokens that share one context window."""
    return count.input_tokens if count.longest is None else count.longest


def _over_context(ask: Ask, window: int) -> ContextWindowExceededError:
    reserve = min(ask.cap, ask.reserve) * bool(ask.choices)
    used = _longest(ask.count)
    few = "at least " if ask.count.at_least else ""
    message = (
        f"the prompt is {few}{used:,} tokens; with {reserve:,} reserved for the output it does not "
        f"fit the context window of {window:,} tokens ({_biggest(ask)}). Shorten the prompt by "
        f"{few}{used + reserve - window:,} tokens or use a model with a larger window; sending it "
        "again unchanged will be refused again."
    )
    return ContextWindowExceededError(
        message,
        limit=window,
        used=used,
        requested=used + reserve,
        unit="tokens",
        components=ask.count.components,
    )


def _room(limit: Limit, ask: Ask, rates: Rates) -> int | None:
    """Output tokens a per-request limit leaves; negative when the input alone is over it."""
    unit = limit.unit
    left = limit.amount - _fixed(unit, ask, rates)
    rate = _rate(unit, ask, rates)
    if left < 0:
        return -1
    return None if rate == 0 else left // rate


def _over_request(
    limit: Limit, ask: Ask, scope: Mapping[str, str], rates: Rates, least: int
) -> BudgetExceededError:
    unit = limit.unit
    fixed = _fixed(unit, ask, rates)
    requested = fixed + least * _rate(unit, ask, rates)
    kind = InputBudgetExceededError if fixed > 0 else OutputBudgetExceededError
    message = (
        f"the request needs at least {_say(unit, requested)} and the budget "
        f"{limit.name!r} allows {_say(unit, limit.amount)} a request ({_biggest(ask)}). "
        "Shorten the prompt or raise the limit; sending it again unchanged will be refused again."
    )
    error = kind(
        message,
        limit=shown(unit, limit.amount),
        used=shown(unit, fixed),
        requested=shown(unit, requested),
        scope={key: scope.get(key, "") for key in limit.scope},
        unit=unit,
        components=ask.count.components,
    )
    error.limit_name = limit.name
    return error


def _biggest(ask: Ask) -> str:
    components = ask.count.components
    if not components:
        return f"counted: {ask.count.method}"
    name = max(components, key=lambda key: components[key])
    return f"largest part: {name} with {components[name]:,}; counted: {ask.count.method}"


def _say(unit: Unit, amount: int) -> str:
    if unit == "cost":
        return f"${shown(unit, amount):f}"
    return f"{amount:,} {unit.replace('_', ' ')}"


def _fixed(unit: Unit, ask: Ask, rates: Rates) -> int:
    if unit == "cost":
        tokens = ask.count.input_tokens * _price(rates.input_rate, ask, rates)
        return tokens + _price(rates.call_rate, ask, rates)
    if unit in ("tokens", "input_tokens"):
        return ask.count.input_tokens
    if unit == "requests":
        return ask.requests
    return 1 if unit == "concurrency" else 0


def _rate(unit: Unit, ask: Ask, rates: Rates) -> int:
    if ask.choices == 0:
        return 0
    if unit == "cost":
        return _price(rates.output_rate, ask, rates)
    return 1 if unit in ("tokens", "output_tokens") else 0


def _price(rate: int | None, ask: Ask, rates: Rates) -> int:
    if rate is None:
        what = rates.unpriced or f"model {ask.count.model!r} has no known price"
        message = (
            f"{what}, so its cost budget cannot be held; use a priced model and service tier, give "
            "the guard the price in its catalog, or name the model behind an Azure deployment in "
            "deployments="
        )
        raise ProtocolError(message)
    return rate

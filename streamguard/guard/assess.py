"""One request on its way to a decision: parsed, counted, held against the budgets."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamguard.catalog import Catalog
from streamguard.core.accounts import Balance, Refusal
from streamguard.core.admission import Ask, Rates, Terms, same_name, shown
from streamguard.core.billing import Spent
from streamguard.core.pricing import as_tier, possible_tiers
from streamguard.core.prompt import PromptCount
from streamguard.core.room import Trimmed
from streamguard.core.wire import Request, Served, WireProtocol
from streamguard.errors import ProtocolError, WindowBudgetExceededError
from streamguard.guard.settings import Settings
from streamguard.identity import Identity
from streamguard.limits import Limit, Unit
from streamguard.usage import Usage


@dataclass(frozen=True, slots=True)
class Subject:
    """Which request this is and whom it is charged to.

    ``received`` is the body as the client sent it, where the guard put another in its place;
    ``asked`` is the model it asked for, where another answers; ``queued`` is the seconds it
    waited for a budget, and ``position`` its first place in line; ``size`` is the body's
    bytes, 0 where it came decoded; ``steered`` is False where the guard can only cut, and not
    hold the provider to a cap.
    """

    request_id: str
    protocol: WireProtocol
    request: Request
    identity: Identity
    endpoint: str
    received: Mapping[str, Any] | None = None
    asked: str | None = None
    queued: float | None = None
    position: int | None = None
    size: int = 0
    steered: bool = True

    @property
    def original_body(self) -> Mapping[str, Any]:
        """The body as the client sent it."""
        return self.request.body if self.received is None else self.received

    @property
    def kind(self) -> tuple[str, str]:
        """What lengths of outputs are learnt by: the tenant, and the model with the feature."""
        return self.identity.tenant or "", f"{self.request.model} {self.identity.feature or ''}"

    def scope(self) -> dict[str, str]:
        """The value of every scope dimension; unknown is the empty string."""
        return {
            "tenant": self.identity.tenant or "",
            "user": self.identity.user or "",
            "feature": self.identity.feature or "",
            "model": self.request.model,
            "endpoint": self.endpoint,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """A request that its per-request budgets and the context window allow.

    ``ceiling`` is the output it may have beyond what is held at first;
    ``conversation`` is a digest; ``within`` is the id of the guarded request around this one;
    ``trimmed`` tells of a prompt that was shortened.
    """

    subject: Subject
    count: PromptCount
    rates: Rates
    terms: Terms
    conversation: str | None = None
    ceiling: int = 0
    within: str | None = None
    trimmed: Trimmed | None = None

    @property
    def input_tokens(self) -> int:
        """The prompt's tokens."""
        return self.count.input_tokens


@dataclass(frozen=True, slots=True)
class Preflight:
    """What ``guard.preflight`` answers for a request that may be sent.

    Attributes:
        count: the prompt's tokens, method, margin and components.
        output_limit: output tokens that all choices together may produce.
        context_window: tokens the model takes, ``None`` when unknown.
        balances: limit name to its account as it stands.
    """

    count: PromptCount
    output_limit: int
    context_window: int | None
    balances: dict[str, Balance]

    @property
    def input_tokens(self) -> int:
        """The prompt's tokens."""
        return self.count.input_tokens


def ask_for(request: Request, count: PromptCount, settings: Settings) -> Ask:
    """What the request wants, by its own cap and the guard's policy."""
    return Ask(
        count=count,
        cap=settings.output_cap(request) if request.produces_output else 0,
        reserve=settings.reserve_for(request.model),
        choices=request.choices if request.produces_output else 0,
        least=settings.min_output,
    )


def rates_of(catalog: Catalog, request: Request) -> Rates:
    """What the request's model takes, and the most it may cost: the dearest of the models and
    service tiers that may answer, its input written to a cache where that is asked for. Unknown
    where the price of one of them is.
    """
    tiers = possible_tiers(request.tier)
    infos = [catalog.model_info(name, tier=tier) for name in request.models for tier in tiers]
    given = [info.input_rate for info in infos]
    if request.writes_cache:
        given += [info.cache_write_rate or 0 for info in infos]
    made = [info.output_rate for info in infos]
    return Rates(infos[0].context_window, _dearest(given), _dearest(made))


def cost_of(
    catalog: Catalog, assessment: Assessment, usage: Usage, spent: Spent | None
) -> int | None:
    """What a call cost in nano-dollars: at the price of the model and the tier that the response
    says answered; where it does not say so, or that has no price, of the dearest that may have.
    """
    request, served = assessment.subject.request, Served() if spent is None else spent.served
    said = (served.model,) if served.model else ()
    asked = possible_tiers(request.tier)
    tiers = ((as_tier(served.tier),), asked) if served.tier else (asked,)
    for models in (said, request.models) if request.also else (request.models, said):
        for each in tiers:
            costs = [catalog.cost_nano(m, usage, tier=tier) for m in models for tier in each]
            if (cost := _dearest(costs)) is not None:
                return cost
    return None


def _dearest(figures: Sequence[int | None]) -> int | None:
    """The highest; unknown where one is."""
    known = [figure for figure in figures if figure is not None]
    return max(known) if known and len(known) == len(figures) else None


def check_others(request: Request, limits: Sequence[Limit]) -> None:
    """Refuse models that may answer past a limit that goes by the model.

    Raises:
        ProtocolError: naming the limit.
    """
    own, *others = (same_name("model", model) for model in request.models)
    for limit in limits:
        only = same_name("model", limit.where.get("model", ""))
        for other in others:
            if other != own and ("model" in limit.scope or only == other):
                message = (
                    f"the limit {limit.name!r} goes by the model, and this request lets {other!r} "
                    f"answer for {own!r}; leave the other models out"
                )
                raise ProtocolError(message)


def window_error(
    refusal: Refusal, limit: Limit, scope: dict[str, str]
) -> WindowBudgetExceededError:
    """The error for a window that has too little left, with what to do next."""
    balance, unit = refusal.balance, limit.unit
    values: dict[str, Any] = {key: scope.get(key, "") for key in limit.scope}
    message = (
        f"budget {limit.name!r} is exhausted: {_say(unit, balance.used)} used and "
        f"{_say(unit, balance.held)} held of {_say(unit, balance.capacity)}; this call needs at "
        f"least {_say(unit, refusal.needed)}. {_advice(refusal)}"
    )
    error = WindowBudgetExceededError(
        message,
        limit=shown(unit, balance.capacity),
        used=shown(unit, balance.used + balance.held),
        requested=shown(unit, refusal.needed),
        scope=values,
        resets_at=balance.resets_at if refusal.retry_after is not None else None,
        retry_after=refusal.retry_after,
        unit=unit,
    )
    error.limit_name = limit.name
    return error


def _advice(refusal: Refusal) -> str:
    if refusal.retry_after is None:
        return "It can never fit this budget: shorten the request or raise the limit."
    return f"Try again in {max(1, round(refusal.retry_after))} s or raise the limit."


def _say(unit: Unit, amount: int) -> str:
    return f"${shown(unit, amount):f}" if unit == "cost" else f"{amount:,}"


def new_request_id() -> str:
    """A random id for one reservation."""
    return f"sg-{uuid.uuid4().hex}"

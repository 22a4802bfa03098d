"""What a request may cost at most, and what it did cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamguard.catalog import Catalog, ModelInfo
from streamguard.core.admission import Rates, same_name
from streamguard.core.billing import Spent
from streamguard.core.pricing import as_tier, possible_tiers
from streamguard.core.wire import NO_EXTRAS, Extras, Request, Served
from streamguard.errors import ProtocolError
from streamguard.limits import Limit
from streamguard.usage import Usage

_UNBOUND = (
    "the web searches of the request have no bound (set max_uses in Anthropic's tool, or "
    "max_tool_calls beside OpenAI's)"
)


def rates_of(catalog: Catalog, request: Request) -> Rates:
    """What the request's model takes, and the most it may cost: the dearest of the models and
    service tiers that may answer, its tokens of the dearest kind it asks for, with all the web
    searches it allows. Unknown where the price of one of them is.
    """
    tiers, extras = possible_tiers(request.tier), request.extras
    infos = [catalog.model_info(name, tier=tier) for name in request.models for tier in tiers]
    taken = [info.input_rate for info in infos]
    if request.writes_cache:
        taken += [info.cache_write_rate or 0 for info in infos]
    if extras.long_cache:
        taken += [info.long_cache_write_rate for info in infos]
    if extras.audio_input:
        taken += [info.audio_input_rate or 0 for info in infos]
    known = Rates(
        infos[0].context_window,
        _dearest(taken),
        _dearest([info.output_rate for info in infos]),
        max(info.call_rate for info in infos),
    )
    return known if extras == NO_EXTRAS else _with_extras(known, request, infos)


def _with_extras(known: Rates, request: Request, infos: Sequence[ModelInfo]) -> Rates:
    """The rates of a request for audio or web searches, and which of them has no price."""
    extras, rates = request.extras, known
    if extras.audio_output and known.output_rate is not None:
        made = _dearest([known.output_rate, *(info.audio_output_rate for info in infos)])
        rates = replace(rates, output_rate=made)
        if made is None:
            rates = replace(rates, unpriced=f"audio by {request.model!r} has no known price")
    each = 0 if extras.searches == 0 else _dearest([info.search_rate for info in infos])
    if each is None:
        text = f"a web search by {request.model!r} has no known price"
        return replace(rates, call_rate=None, unpriced=rates.unpriced or text)
    if each and extras.searches is None:
        return replace(rates, call_rate=None, unpriced=rates.unpriced or _UNBOUND)
    return replace(rates, call_rate=(known.call_rate or 0) + each * (extras.searches or 0))


def cost_of(catalog: Catalog, request: Request, usage: Usage, spent: Spent | None) -> int | None:
    """What a call cost in nano-dollars, by the model and the tier that the response says answered.

    Where the request names one model, that is the least a call costs, and what answered may be
    dearer, unless the catalog's owner gave the name a price of its own: an answer by a dearer
    model than was asked for can settle above its hold. Where it names several, the one that
    answered is charged. Where the response says nothing that has a price, the dearest is that
    the request allows.
    """
    served = Served() if spent is None else spent.served
    if request.extras != NO_EXTRAS and (spent is None or spent.billed):
        usage = _as_held(request.extras, usage)
    asked = possible_tiers(request.tier)
    tiers = ((as_tier(served.tier),), asked) if served.tier else (asked,)

    def cost(*models: str) -> int | None:
        for each in tiers:
            costs = [catalog.cost_nano(m, usage, tier=tier) for m in models for tier in each]
            if (known := _dearest(costs)) is not None:
                return known
        return None

    theirs = cost(served.model) if served.model else None
    if request.also and theirs is not None:
        return theirs
    ours = cost(*request.models)
    if ours is None or ((theirs or 0) > ours and not catalog.has_own_price(request.model)):
        return theirs
    return ours


def _dearest(figures: Sequence[int | None]) -> int | None:
    """The highest; unknown where one is."""
    return None if None in figures else max(filter(None, figures), default=0)


def _as_held(extras: Extras, usage: Usage) -> Usage:
    """The usage with what was asked for and is not reported, as much as was held."""
    most = Usage(
        audio_input_tokens=usage.input_tokens if extras.audio_input else None,
        audio_output_tokens=usage.output_tokens if extras.audio_output else None,
        long_cache_write_tokens=usage.cache_write_tokens if extras.long_cache else None,
        web_searches=extras.searches,
    )
    return most.merged(usage)


def check_others(request: Request, limits: Sequence[Limit]) -> None:
    """Refuse models that may answer past a limit that goes by the model.

    Raises:
        ProtocolError: naming the limit.
    """
    if not request.also:
        return
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

"""What a request may cost at most, and what it did cost."""

from __future__ import annotations

from collections.abc import Sequence

from streamguard.catalog import Catalog
from streamguard.core.admission import Rates, same_name
from streamguard.core.billing import Spent
from streamguard.core.pricing import as_tier, possible_tiers
from streamguard.core.wire import Request, Served
from streamguard.errors import ProtocolError
from streamguard.limits import Limit
from streamguard.usage import Usage


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


def cost_of(catalog: Catalog, request: Request, usage: Usage, spent: Spent | None) -> int | None:
    """What a call cost in nano-dollars, by the model and the tier that the response says answered.

    Where the request names one model, that is the least a call costs, and what answered may be
    dearer, unless the catalog's owner gave the name a price of its own: an answer by a dearer
    model than was asked for can settle above its hold. Where it names several, the one that
    answered is charged. Where the response says nothing that has a price, the dearest is that
    the request allows.
    """
    served = Served() if spent is None else spent.served
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

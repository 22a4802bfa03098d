"""Models, context windows and prices as genai-prices lists them; it is imported when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from streamguard.core.pricing import Price, Prices

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo as Listing
    from genai_prices.types import ModelPrice, Provider

_ATTO = 10**12  # dollars per million tokens, in 1e-18 dollars per token
DAY = 86_400
_MAX_NAME = 256  # longer names are a client's mischief, not a model
CACHED_MODELS = 4096
_VARIANTS = ("service_tier", "speed", "processing")  # what genai-prices lists tiers under


class Found(NamedTuple):
    """The listings a name resolves to: whose prices hold, and whose context window."""

    priced: Listing | None
    sized: Listing | None


def atto(dollars_per_million: Decimal) -> int:
    """Atto-dollars a token, rounded up."""
    return int((dollars_per_million * _ATTO).to_integral_value(rounding=ROUND_CEILING))


def meant(model: str) -> str | None:
    """The listed model that is spelled most like an unknown one."""
    from genai_prices.data_snapshot import get_snapshot

    names = {listing.id for provider in get_snapshot().providers for listing in provider.models}
    return next(iter(get_close_matches(model.lower(), sorted(names), 1, 0.8)), None)


@lru_cache(CACHED_MODELS)
def find(model: str, provider: str | None) -> Found:
    """The listings behind a name as clients write it: Azure, OpenRouter, ft:, Bedrock, …."""
    if len(model) > _MAX_NAME:
        return Found(None, None)
    name = model.lower()
    priced = _first(_candidates(name, provider))
    if priced is not None and priced.context_window is not None:
        return Found(priced, priced)
    base = name.split(":")[1] if name.startswith("ft:") else name.partition(":")[0]
    return Found(priced, _first(_candidates(base, provider)))


def _candidates(name: str, provider: str | None) -> Iterator[tuple[str, str | None]]:
    """References to try, with the provider to look under (``None``: whoever claims the name)."""
    if provider is not None:
        yield name, provider
    if not name.startswith("ft:"):
        yield name, None
    head, slash, tail = name.partition("/")
    if slash:
        yield name, "openrouter"
        yield tail, head
        yield name.rpartition("/")[2], None
    elif "." in name:
        yield name, "aws"
    yield name, "openai"


def _first(candidates: Iterable[tuple[str, str | None]]) -> Listing | None:
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    providers = get_snapshot().providers
    for name, owner in candidates:
        place = (
            _claimant(name, providers) if owner is None else find_provider_by_id(providers, owner)
        )
        listing = place and place.find_model(name, all_providers=providers)
        if listing:
            return listing
    return None


def _claimant(name: str, providers: Iterable[Provider]) -> Provider | None:
    # The snapshot's own look-up remembers every miss for ever, and clients choose the names.
    claims = (each for each in providers if each.model_match and each.model_match.is_match(name))
    return next(claims, None)


def listed(listing: Listing, moment: datetime, tier: str) -> Prices:
    """The listing's prices at a moment; none where the tier is not listed."""
    if tier:
        return _listed_tier(listing, moment, tier)
    price = listing.get_prices(moment)
    known = _converted.get(id(price))
    if known is None or known[0] is not price:
        known = _converted[id(price)] = (price, convert(price))
    return known[1]


def _listed_tier(listing: Listing, moment: datetime, tier: str) -> Prices:
    context = dict.fromkeys(_VARIANTS, tier)
    holds = (
        all(context.get(key) == value for key, value in each.when.items())
        and (each.constraint is None or each.constraint.active(moment))
        for each in listing.price_variants or ()
    )
    if not any(holds):
        return Prices()
    return convert(listing.get_prices(moment, context))


_converted: dict[int, tuple[ModelPrice, Prices]] = {}  # as many as genai-prices lists


def convert(price: ModelPrice) -> Prices:
    """The prices that calls to models for text are billed by."""
    request, searches = price.requests_kcount, price.web_searches_kcount
    return Prices(
        input=_price(price.input_mtok),
        output=_price(price.output_mtok),
        cached=_price(price.cache_read_mtok),
        written=_price(price.cache_write_mtok),
        reasoning=_price(price.output_reasoning_mtok),
        request=atto(request * 1000) if isinstance(request, Decimal) else 0,
        audio_input=_price(price.input_audio_mtok),
        audio_output=_price(price.output_audio_mtok),
        written_long=_price(price.cache_write_1h_mtok),
        search=Price(atto(searches * 1000)) if isinstance(searches, Decimal) else None,
    )


def _price(listed: Any) -> Price | None:
    if listed is None:
        return None
    if isinstance(listed, Decimal):
        return Price(atto(listed))
    return Price(atto(listed.base), tuple((t.start, atto(t.price)) for t in listed.tiers))


def prices_of_day(listing: Listing, day: int, tier: str) -> list[Prices]:
    """Every price that holds at some time of the day: off-peak prices change within it."""
    from genai_prices.types import TimeOfDateConstraint

    midnight = datetime.fromtimestamp(day * DAY, UTC)
    moments = {midnight}
    for each in listing.prices if isinstance(listing.prices, list) else ():
        if isinstance(each.constraint, TimeOfDateConstraint):
            times = (each.constraint.start_time, each.constraint.end_time)
            moments |= {
                datetime.combine(midnight, when.replace(tzinfo=None), UTC) for when in times
            }
    return [listed(listing, moment, tier) for moment in sorted(moments)]

"""What is known of a model: its context window and what a token costs.

The figures come from genai-prices, which is imported at the first look-up; a user's overrides
come before them. Unknown is ``None``, never 0. Money is whole nano-dollars, rounded up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from streamguard.core.pricing import ATTO_PER_NANO, Price, Prices
from streamguard.errors import ConfigurationError
from streamguard.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo as Listing
    from genai_prices.types import ModelPrice, Provider

_ATTO = 10**12  # dollars per million tokens, in 1e-18 dollars per token
_DAY = 86_400
_MAX_NAME = 256  # longer names are a client's mischief, not a model
_CACHED_MODELS = 4096
_WINDOW = "context_window"
_PRICES = {"input_price": "input", "output_price": "output", "cached_input_price": "cached"}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model's context window in tokens and its worst-case rates.

    Rates are nano-dollars per token, rounded up: the dearest tier and time of day of the
    prices in force today. ``None`` is unknown.
    """

    context_window: int | None = None
    input_rate: int | None = None
    output_rate: int | None = None
    cached_input_rate: int | None = None
    cache_write_rate: int | None = None


class _Found(NamedTuple):
    """The listings a name resolves to: whose prices hold, and whose context window."""

    priced: Listing | None
    sized: Listing | None


class Catalog:
    """Context windows and prices, with a user's own figures before the listed ones.

    ::

        Catalog({"my-model": {"context_window": 32_000, "input_price": "0.50"}})

    Prices are US dollars per million tokens, ``Decimal`` or ``str``: ``input_price``,
    ``output_price``, ``cached_input_price``. What an override leaves out is looked up.

    Raises:
        ConfigurationError: an override has an unknown key or a figure that cannot be.
    """

    def __init__(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        checked = {
            name.lower(): _override(name, given) for name, given in (overrides or {}).items()
        }
        self._overrides: dict[str, tuple[int | None, Prices]] = checked
        self._info = lru_cache(_CACHED_MODELS)(self._build_info)
        self._prices = lru_cache(_CACHED_MODELS)(self._build_prices)

    def model_info(self, model: str, provider: str | None = None) -> ModelInfo:
        """The model's figures as of today; every field is ``None`` for an unknown model.

        ``provider`` is a genai-prices provider id, such as "azure", "openrouter", "aws".
        """
        return self._info(model, provider, int(time.time() // _DAY))

    def cost_nano(
        self, model: str, usage: Usage, provider: str | None = None, *, at: float | None = None
    ) -> int | None:
        """What the call cost, in nano-dollars rounded up, at the prices of ``at`` (Unix seconds).

        Cached tokens are charged at their own price where there is one. ``None`` when a token
        count or a price is unknown.
        """
        seconds = time.time() if at is None else at
        prices = self._prices(model, provider, int(seconds // _DAY))
        return (prices or self._prices_at(model, provider, seconds)).cost(usage)

    def _build_prices(self, model: str, provider: str | None, day: int) -> Prices | None:
        """The prices of a whole day; ``None`` where they change within it."""
        priced = _find(model, provider).priced
        if priced is not None and len(_prices_of_day(priced, day)) > 1:
            return None
        return self._prices_at(model, provider, day * _DAY)

    def _prices_at(self, model: str, provider: str | None, seconds: float) -> Prices:
        _window, own = self._overrides.get(model.lower(), (None, Prices()))
        priced = _find(model, provider).priced
        if priced is None:
            return own
        return own.over(_listed(priced, datetime.fromtimestamp(seconds, UTC)))

    def _build_info(self, model: str, provider: str | None, day: int) -> ModelInfo:
        window, own = self._overrides.get(model.lower(), (None, Prices()))
        found = _find(model, provider)
        listed = () if found.priced is None else _prices_of_day(found.priced, day)
        prices = [own.over(each) for each in listed] or [own]
        if window is None and found.sized is not None:
            window = found.sized.context_window
        return ModelInfo(
            context_window=window,
            input_rate=_worst(each.input for each in prices),
            output_rate=_worst(each.output for each in prices),
            cached_input_rate=_worst(each.cached for each in prices),
            cache_write_rate=_worst(each.written for each in prices),
        )


def model_info(model: str, provider: str | None = None) -> ModelInfo:
    """The listed figures of a model; see ``Catalog.model_info``."""
    return _default().model_info(model, provider)


def cost_nano(model: str, usage: Usage, provider: str | None = None) -> int | None:
    """What a call costs at today's listed prices; see ``Catalog.cost_nano``."""
    return _default().cost_nano(model, usage, provider)


@cache
def _default() -> Catalog:
    return Catalog()


def _worst(prices: Iterable[Price | None]) -> int | None:
    known = [price.worst for price in prices if price is not None]
    return -(-max(known) // ATTO_PER_NANO) if known else None


def _override(name: str, given: Mapping[str, Any]) -> tuple[int | None, Prices]:
    unknown = set(given) - {_WINDOW, *_PRICES}
    if unknown:
        message = f"model {name!r}: unknown {sorted(unknown)}; use {[_WINDOW, *_PRICES]}"
        raise ConfigurationError(message)
    window = given.get(_WINDOW)
    if window is not None and (type(window) is not int or window < 1):
        message = f"model {name!r}: context_window={window!r} must be a whole number of tokens"
        raise ConfigurationError(message)
    prices: dict[str, Any] = {
        _PRICES[key]: Price(_own_price(name, key, value))
        for key, value in given.items()
        if key in _PRICES
    }
    return window, Prices(**prices)


def _own_price(name: str, key: str, value: object) -> int:
    message = f"model {name!r}: {key}={value!r} is not US dollars per million; write '2.50'"
    if not isinstance(value, (str, Decimal, int)) or isinstance(value, bool):
        raise ConfigurationError(message)
    try:
        price = _atto(Decimal(value))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ConfigurationError(message) from error
    if price < 0:
        raise ConfigurationError(message)
    return price


def _atto(dollars_per_million: Decimal) -> int:
    return int((dollars_per_million * _ATTO).to_integral_value(rounding=ROUND_CEILING))


@lru_cache(_CACHED_MODELS)
def _find(model: str, provider: str | None) -> _Found:
    """The listings behind a name as clients write it: Azure, OpenRouter, ft:, Bedrock, …."""
    if len(model) > _MAX_NAME:
        return _Found(None, None)
    name = model.lower()
    priced = _first(_candidates(name, provider))
    if priced is not None and priced.context_window is not None:
        return _Found(priced, priced)
    base = name.split(":")[1] if name.startswith("ft:") else name.partition(":")[0]
    return _Found(priced, _first(_candidates(base, provider)))


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


def _listed(listing: Listing, moment: datetime) -> Prices:
    """The listing's prices at a moment."""
    price = listing.get_prices(moment)
    known = _converted.get(id(price))
    if known is None or known[0] is not price:
        known = _converted[id(price)] = (price, _convert(price))
    return known[1]


_converted: dict[int, tuple[ModelPrice, Prices]] = {}  # as many as genai-prices lists


def _convert(price: ModelPrice) -> Prices:
    request = price.requests_kcount
    return Prices(
        input=_price(price.input_mtok),
        output=_price(price.output_mtok),
        cached=_price(price.cache_read_mtok),
        written=_price(price.cache_write_mtok),
        reasoning=_price(price.output_reasoning_mtok),
        request=_atto(request * 1000) if isinstance(request, Decimal) else 0,
    )


def _price(listed: Any) -> Price | None:
    if listed is None:
        return None
    if isinstance(listed, Decimal):
        return Price(_atto(listed))
    return Price(_atto(listed.base), tuple((t.start, _atto(t.price)) for t in listed.tiers))


def _prices_of_day(listing: Listing, day: int) -> list[Prices]:
    """Every price that holds at some time of the day: off-peak prices change within it."""
    from genai_prices.types import TimeOfDateConstraint

    midnight = datetime.fromtimestamp(day * _DAY, UTC)
    moments = {midnight}
    for each in listing.prices if isinstance(listing.prices, list) else ():
        if isinstance(each.constraint, TimeOfDateConstraint):
            times = (each.constraint.start_time, each.constraint.end_time)
            moments |= {
                datetime.combine(midnight, when.replace(tzinfo=None), UTC) for when in times
            }
    return [_listed(listing, moment) for moment in sorted(moments)]

"""What is known of a model: its context window and what a token costs.

The figures come from ``listings``; a user's overrides come before them. Unknown is ``None``,
never 0. Money is whole nano-dollars, rounded up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Any, NamedTuple

from streamguard.core.pricing import ATTO_PER_NANO, Price, Prices
from streamguard.errors import ConfigurationError
from streamguard.listings import CACHED_MODELS, DAY, atto, find, listed, prices_of_day
from streamguard.usage import Usage

_WINDOW = "context_window"
_TIERS = "tiers"
_SEARCH = "web_search_price"
_PRICES = {
    "input_price": "input",
    "output_price": "output",
    "cached_input_price": "cached",
    "audio_input_price": "audio_input",
    "audio_output_price": "audio_output",
    _SEARCH: "search",
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model's context window in tokens and its worst-case rates.

    Rates are nano-dollars per token, rounded up: the dearest tier and time of day of the
    prices in force today. ``search_rate`` is a web search's, ``call_rate`` every call's.
    ``None`` is unknown; audio input without a price of its own costs what text does.
    """

    context_window: int | None = None
    input_rate: int | None = None
    output_rate: int | None = None
    cached_input_rate: int | None = None
    cache_write_rate: int | None = None
    audio_input_rate: int | None = None
    audio_output_rate: int | None = None
    long_cache_write_rate: int | None = None
    search_rate: int | None = None
    call_rate: int = 0


class _Own(NamedTuple):
    """A user's figures for a model: its window, its prices, and those of its service tiers."""

    window: int | None = None
    prices: Prices = Prices()
    tiers: Mapping[str, Prices] = {}

    def over(self, theirs: Prices, tier: str) -> Prices:
        """These prices before the listed ones; none of a tier that only has listed ones."""
        if tier in self.tiers:
            return self.tiers[tier].over(theirs)
        return Prices() if tier and self.prices != Prices() else self.prices.over(theirs)


class Catalog:
    """Context windows and prices, with a user's own figures before the listed ones.

    ::

        Catalog({"my-model": {"context_window": 32_000, "input_price": "0.50"}})

    Prices are US dollars per million tokens, ``Decimal`` or ``str``: ``input_price``,
    ``output_price``, ``cached_input_price``, ``audio_input_price``, ``audio_output_price``;
    ``web_search_price`` is US dollars for a thousand searches. Under ``tiers`` is the same by
    service tier, such as ``{"tiers": {"priority": {"input_price": "1.00"}}}``. What an override
    leaves out is looked up.

    Raises:
        ConfigurationError: an override has an unknown key or a figure that cannot be.
    """

    def __init__(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._overrides = {
            name.lower(): _override(name, given) for name, given in (overrides or {}).items()
        }
        self._info = lru_cache(CACHED_MODELS)(self._build_info)
        self._prices = lru_cache(CACHED_MODELS)(self._build_prices)

    def model_info(self, model: str, provider: str | None = None, *, tier: str = "") -> ModelInfo:
        """The model's figures as of today; every field is ``None`` for an unknown model.

        ``provider`` is a genai-prices provider id, such as "azure", "openrouter", "aws"; ``tier``
        a service tier, such as "priority" or "flex", without which the usual prices hold.
        """
        return self._info(model, provider, int(time.time() // DAY), tier)

    def cost_nano(
        self,
        model: str,
        usage: Usage,
        provider: str | None = None,
        *,
        at: float | None = None,
        tier: str = "",
    ) -> int | None:
        """What the call cost, in nano-dollars rounded up, at the prices of ``at`` (Unix seconds).

        Cached tokens are charged at their own price where there is one. ``None`` when a token
        count or a price is unknown, also that of a service tier.
        """
        seconds = time.time() if at is None else at
        prices = self._prices(model, provider, int(seconds // DAY), tier)
        return (prices or self._prices_at(model, provider, seconds, tier)).cost(usage)

    def has_own_price(self, model: str) -> bool:
        """Whether the owner of this catalog gave the model's tokens a price, of any tier."""
        own = self._own(model)
        return any(each.input or each.output for each in (own.prices, *own.tiers.values()))

    def _build_prices(self, model: str, provider: str | None, day: int, tier: str) -> Prices | None:
        """The prices of a whole day; ``None`` where they change within it."""
        priced = find(model, provider).priced
        if priced is not None and len(prices_of_day(priced, day, tier)) > 1:
            return None
        return self._prices_at(model, provider, day * DAY, tier)

    def _prices_at(self, model: str, provider: str | None, seconds: float, tier: str) -> Prices:
        own, priced = self._own(model), find(model, provider).priced
        moment = datetime.fromtimestamp(seconds, UTC)
        return own.over(Prices() if priced is None else listed(priced, moment, tier), tier)

    def _own(self, model: str) -> _Own:
        return self._overrides.get(model.lower(), _Own())

    def _build_info(self, model: str, provider: str | None, day: int, tier: str) -> ModelInfo:
        own, found = self._own(model), find(model, provider)
        days = [] if found.priced is None else prices_of_day(found.priced, day, tier)
        prices = [own.over(each, tier) for each in days or [Prices()]]
        window = own.window
        if window is None and found.sized is not None:
            window = found.sized.context_window
        return ModelInfo(
            context_window=window,
            input_rate=_worst(each.input for each in prices),
            output_rate=_worst(each.output for each in prices),
            cached_input_rate=_worst(each.cached for each in prices),
            cache_write_rate=_worst(each.written for each in prices),
            audio_input_rate=_worst(each.audio_input for each in prices),
            audio_output_rate=_worst(each.audio_output for each in prices),
            long_cache_write_rate=_worst(each.long_write for each in prices),
            search_rate=_worst(each.search for each in prices),
            call_rate=_worst(Price(each.request) for each in prices) or 0,
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


def _override(name: str, given: Mapping[str, Any]) -> _Own:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"model {name!r}: {given!r} must be a table of figures")
    tiers = given.get(_TIERS, {})
    if not isinstance(tiers, Mapping) or not all(isinstance(t, Mapping) for t in tiers.values()):
        message = f"model {name!r}: tiers={tiers!r} must be tables of prices by tier"
        raise ConfigurationError(message)
    window = given.get(_WINDOW)
    if window is not None and (type(window) is not int or window < 1):
        message = f"model {name!r}: context_window={window!r} must be a whole number of tokens"
        raise ConfigurationError(message)
    base = {key: value for key, value in given.items() if key not in (_WINDOW, _TIERS)}
    priced = {tier.lower(): _own_prices(name, prices) for tier, prices in tiers.items()}
    return _Own(window, _own_prices(name, base), priced)


def _own_prices(name: str, given: Mapping[str, Any]) -> Prices:
    if unknown := set(given) - set(_PRICES):
        message = f"model {name!r}: unknown {sorted(unknown)}; use {[_WINDOW, *_PRICES, _TIERS]}"
        raise ConfigurationError(message)
    prices: dict[str, Any] = {
        _PRICES[key]: Price(_own_price(name, key, value) * (1000 if key == _SEARCH else 1))
        for key, value in given.items()
    }
    return Prices(**prices)


def _own_price(name: str, key: str, value: object) -> int:
    per = "thousand" if key == _SEARCH else "million"
    message = f"model {name!r}: {key}={value!r} is not US dollars per {per}; write '2.50'"
    if not isinstance(value, (str, Decimal, int)) or isinstance(value, bool):
        raise ConfigurationError(message)
    try:
        price = atto(Decimal(value))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ConfigurationError(message) from error
    if price < 0:
        raise ConfigurationError(message)
    return price

"""What a limit means: in words, and in US dollars at a model's prices. Pure."""

from __future__ import annotations

from typing import NamedTuple

from streamguard.core.admission import Rates
from streamguard.limits import Limit

_DAY = 86_400
_MONTH = 30 * _DAY


class Dollars(NamedTuple):
    """What one account of a limit lets through at a model's prices, in nano-dollars.

    ``low`` is where all is of the cheapest kind, ``high`` of the dearest, for one span of the
    limit; ``month`` is ``high`` for thirty days in a row. ``None`` is unknown.
    """

    low: int | None
    high: int | None
    month: int | None


def words(limit: Limit) -> str:
    """The limit as a sentence: how much, of what, how often, for whom."""
    amount = f"${limit.cost}" if limit.unit == "cost" else f"{limit.amount:,}"
    unit = "" if limit.unit == "cost" else f" {limit.unit.replace('_', ' ')}"
    if limit.unit == "concurrency":
        unit, span = " calls at once", ""
    else:
        span = f" a {_span(limit)}" if limit.span is None else f" each {_span(limit)}"
    whom = f" for each {' and '.join(limit.scope)}" if limit.scope else ""
    only = "".join(f", only {key} {value}" for key, value in sorted(limit.where.items()))
    smooth = f", evenly, {_burst(limit)} at once" if limit.smooth else ""
    return f"{amount}{unit}{span}{smooth}{whom}{only}{' (warns only)' if limit.soft else ''}"


def dollars(limit: Limit, rates: Rates, reserve: int) -> Dollars:
    """What the limit can cost with a model; ``reserve`` is the output of a call without a cap.

    A budget of calls is priced at calls that fill the context window.
    """
    low, high = _each(limit, rates, reserve)
    span = limit.span
    if high is None or span is None:
        return Dollars(low, high, None)
    return Dollars(low, high, high * max(1, _MONTH // (span or _MONTH)))


def _each(limit: Limit, rates: Rates, reserve: int) -> tuple[int | None, int | None]:
    amount, takes, makes = limit.amount, rates.input_rate, rates.output_rate
    if limit.unit == "cost":
        return amount, amount
    if takes is None or makes is None or limit.unit == "concurrency":
        return None, None
    if limit.unit == "requests":
        return None, _fullest(amount, takes, makes, rates.context_window, reserve)
    kinds = {
        "tokens": (min(takes, makes), max(takes, makes)),
        "input_tokens": (takes, takes),
        "output_tokens": (makes, makes),
    }
    low, high = kinds[limit.unit]
    return amount * low, amount * high


def _fullest(calls: int, takes: int, makes: int, window: int | None, reserve: int) -> int | None:
    if window is None:
        return None
    output = min(reserve, window)
    return calls * ((window - output) * takes + output * makes)


def _burst(limit: Limit) -> str:
    dollars = limit.cost if limit.burst is None else limit.burst
    return f"${dollars}" if limit.unit == "cost" else f"{limit.capacity:,}"


def _span(limit: Limit) -> str:
    span, per = limit.span, limit.per
    if span is None:
        return "request"
    name = per if isinstance(per, str) else f"{span} seconds"
    return f"calendar {name} ({limit.timezone})" if limit.calendar or span == 0 else name

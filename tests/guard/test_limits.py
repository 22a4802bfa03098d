from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from streamguard import ConfigurationError, Limit, Usage
from streamguard.limits import to_nano


@pytest.mark.parametrize(
    ("per", "span"),
    [
        ("request", None),
        ("minute", 60),
        ("hour", 3600),
        ("day", 86_400),
        ("month", 0),
        ("15m", 900),
        ("2 h", 7200),
        (timedelta(minutes=3), 180),
    ],
)
def test_spans(per, span):
    assert Limit(tokens=1, per=per).span == span


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"tokens": 1, "cost": "1"},
        {"tokens": 1.5},
        {"tokens": True},
        {"tokens": -1},
        {"cost": 1.5},
        {"cost": "much"},
        {"cost": "NaN"},
        {"cost": "Infinity"},
        {"cost": "-1"},
        {"tokens": 1, "per": "fortnight"},
        {"tokens": 1, "per": "0m"},
        {"tokens": 1, "per": timedelta(0)},
        {"tokens": 1, "scope": ("planet",)},
        {"tokens": 1, "where": {"planet": "x"}},
        {"requests": 1},
        {"tokens": 1, "per": 5},
        {"tokens": 1, "name": 3},
        {"tokens": 1, "soft": "yes"},
        {"tokens": 1, "calendar": 1},
        {"tokens": 1, "timezone": None},
        {"tokens": 1, "timezone": "Mars/Base"},
        {"tokens": 1, "where": "gpt-4o"},
        {"tokens": 1, "where": {"model": 4}},
        {"tokens": 1, "scope": 5},
    ],
)
def test_wrong_limits_say_what_is_wrong(wrong):
    with pytest.raises(ConfigurationError) as caught:
        Limit(**wrong)
    assert len(caught.value.message) > 20


def test_a_scope_without_its_comma_is_told_as_it_was_written():
    with pytest.raises(ConfigurationError, match=r"scope='tenant' must be a list"):
        Limit(tokens=1, scope=("tenant"))
    assert Limit(tokens=1, scope=["tenant"]).scope == ("tenant",)


def test_a_time_zone_that_would_not_matter_is_refused():
    with pytest.raises(ConfigurationError, match="'Europe/Oslo' is for calendar windows; add"):
        Limit(tokens=5, per="day", timezone="Europe/Oslo")
    Limit(tokens=5, per="day", calendar=True, timezone="Europe/Oslo")
    Limit(tokens=5, per="month", timezone="Europe/Oslo")


def test_names_and_amounts():
    limit = Limit(cost="0.10", per=timedelta(days=1), scope=("tenant", "user"))
    assert limit.name == "0.10 cost/86400s by tenant+user"
    assert limit.amount == 100_000_000
    assert Limit(tokens=5, where={"model": "m"}).name == "5 tokens/request model=m"
    assert Limit(tokens=5, name="mine").name == "mine"


def test_money_rounds_up():
    assert to_nano(Decimal("0.0000000001")) == 1
    assert to_nano(2) == 2_000_000_000


def test_unknown_usage_is_none_never_zero():
    assert Usage(1, None).total_tokens is None
    assert Usage(1, 2).total_tokens == 3
    assert Usage(1, 2).merged(Usage(None, 0)) == Usage(1, 0)

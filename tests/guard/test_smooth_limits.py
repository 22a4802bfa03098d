"""Smooth limits: what they may be, and what a caller is told."""

from __future__ import annotations

import pytest

from streamguard import ConfigurationError, Guard, Limit, Usage, WindowBudgetExceededError
from streamguard.core.accounts import Window
from streamguard.core.admission import window_of
from streamguard.core.billing import Spent
from streamguard.core.meaning import words
from streamguard.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tokens": 1, "smooth": True}, "per='request' is no rate"),
        ({"tokens": 1, "per": "month", "smooth": True}, "per='month' is no rate"),
        ({"tokens": 1, "per": "25h", "smooth": True}, "a second to a day"),
        ({"tokens": 1, "per": "day", "calendar": True, "smooth": True}, "choose one"),
        ({"tokens": 0, "per": "day", "smooth": True, "burst": 5}, "tokens=0 never flows off"),
        ({"concurrency": 1, "per": "day", "smooth": True}, "no rate"),
        ({"tokens": 1, "per": "day", "smooth": "yes"}, "true or false"),
        ({"tokens": 1, "per": "day", "burst": 5}, "add smooth=True"),
        ({"tokens": 1, "per": "day", "smooth": True, "burst": 0}, "burst=0 refuses everything"),
        ({"tokens": 1, "per": "day", "smooth": True, "burst": "5"}, "must be a whole number"),
        ({"tokens": 1, "per": "day", "smooth": True, "burst": True}, "must be a whole number"),
        ({"cost": "1", "per": "day", "smooth": True, "burst": 0.5}, "is not exact"),
    ],
)
def test_what_makes_no_sense_is_refused_and_named(wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        Limit(**wrong)


def test_a_smooth_limit_has_a_burst():
    limit = Limit(tokens=60_000, per="minute", smooth=True)
    assert (limit.name, limit.capacity) == ("60000 tokens/minute smooth", 60_000)
    assert window_of(limit) == Window(60, leak=60_000)
    assert window_of(Limit(tokens=60_000, per="minute")) == Window(60)
    assert Limit(requests=60, per="minute", smooth=True, burst=5).capacity == 5
    money = Limit(cost="6", per="hour", smooth=True, burst="0.50")
    assert (money.amount, money.capacity) == (6_000_000_000, 500_000_000)
    assert Limit(tokens=7).capacity == 7


def test_a_smooth_limit_in_words():
    assert (
        words(Limit(tokens=9, per="hour", smooth=True)) == "9 tokens each hour, evenly, 9 at once"
    )
    money = Limit(cost="6", per="hour", smooth=True, burst="0.50")
    assert words(money) == "$6 each hour, evenly, $0.50 at once"
    assert words(Limit(cost="6", per="hour", smooth=True)) == "$6 each hour, evenly, $6 at once"


async def test_a_refusal_names_the_burst_and_the_wait_until_enough_has_flowed_off():
    limit = Limit(tokens=60, per="minute", smooth=True, burst=500, name="steady")
    now = 1_700_000_000.0
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
    async with Guard([limit], store=MemoryStore(clock=lambda: now), sinks=[]) as guard:
        call = await guard.begin(await guard.subject(body, path=PATH))
        await call.finish(
            Spent("completed", Usage(output_tokens=500 - call.assessment.input_tokens))
        )
        with pytest.raises(WindowBudgetExceededError, match="500 used and 0 held of 500") as caught:
            await guard.begin(await guard.subject(body, path=PATH))
        error = caught.value
        now += error.retry_after
        assert await guard.begin(await guard.subject(body, path=PATH))
    assert (error.limit, error.used) == (500, 500)
    assert error.retry_after == error.requested  # one token flows off each second
    assert error.resets_at == now

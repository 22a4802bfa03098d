"""Audio, long cache writes and web searches: held at their dearest, charged as reported."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard import Catalog, Guard, Limit, ProtocolError, Usage
from streamguard.core.billing import Spent, charge
from streamguard.core.wire import Extras, Request
from streamguard.guard.prices import cost_of, rates_of

pytestmark = pytest.mark.anyio

DAY = Limit(cost="100.00", per="day", name="day")
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
TURN = [{"role": "user", "content": "hi"}]
SPEAKS = {"model": "gpt-audio", "max_tokens": 100, "modalities": ["text", "audio"]}
CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 100}
CENT = 10_000_000


async def settled(path: str, request: dict[str, Any], usage: Usage, **how: Any) -> tuple[int, int]:
    """Nano-dollars held, beside the prompt's tokens, and charged."""
    async with Guard([DAY], sinks=[]) as guard:
        call = await guard.begin(await guard.subject({"messages": TURN, **request}, path=path))
        (held,) = await guard.books.balances(call.assessment.terms.demands)
        rates = call.assessment.rates
        await call.finish(Spent("completed", usage, usage, **how))
        (after,) = await guard.books.balances(call.assessment.terms.demands)
        return held.held - call.assessment.input_tokens * rates.input_rate, after.used


@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        (Usage(8, 100, audio_output_tokens=90), 8 * 2_500 + 90 * 64_000 + 10 * 10_000),
        (Usage(8, 100, audio_output_tokens=0), 8 * 2_500 + 100 * 10_000),
        (Usage(8, 100), 8 * 2_500 + 100 * 64_000),  # not reported: as it was held
    ],
)
async def test_audio_output_is_held_and_charged_at_its_own_price(usage, charged):
    assert await settled(CHAT, SPEAKS, usage) == (100 * 64_000, charged)


async def test_audio_input_is_held_at_its_own_price():
    audio = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    heard = {**SPEAKS, "modalities": ["text"], "messages": [{"role": "user", "content": [audio]}]}
    usage = Usage(20, 1, audio_input_tokens=15, audio_output_tokens=0)
    async with Guard([DAY], sinks=[]) as guard:
        call = await guard.begin(await guard.subject(heard, path=CHAT))
        assert call.assessment.rates.input_rate == 32_000
        await call.finish(Spent("completed"))
    assert (await settled(CHAT, heard, usage))[1] == 15 * 32_000 + 5 * 2_500 + 10_000


async def test_an_hour_in_the_cache_is_held_and_charged_at_its_own_price():
    cached = {**CLAUDE, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    async with Guard([DAY], sinks=[]) as guard:
        call = await guard.begin(await guard.subject({"messages": TURN, **cached}, path=MESSAGES))
        assert call.assessment.rates.input_rate == 2_000
        await call.finish(Spent("completed"))
    usage = Usage(10, 1, None, None, 8, long_cache_write_tokens=6)
    assert (await settled(MESSAGES, cached, usage))[1] == 6 * 2_000 + 2 * 1_250 + 2 * 1_000 + 5_000
    told_less = Usage(10, 1, None, None, 8)
    assert (await settled(MESSAGES, cached, told_less))[1] == 8 * 2_000 + 2 * 1_000 + 5_000


@pytest.mark.parametrize(
    ("path", "request_body"),
    [
        (MESSAGES, {**CLAUDE, "tools": [{**SEARCH, "max_uses": 5}]}),
        (
            RESPONSES,
            {"model": "gpt-5-mini", "input": "hi", "max_output_tokens": 100, "max_tool_calls": 5,
             "tools": [{"type": "web_search"}]},
        ),
    ],
)  # fmt: skip
async def test_web_searches_are_held_up_to_their_cap_and_charged_as_reported(path, request_body):
    async def charged(usage: Usage, **how: Any) -> int:
        held, used = await settled(path, request_body, usage, **how)
        assert held // CENT == 5
        return used // CENT

    assert await charged(Usage(8, 10, web_searches=3)) == 3
    assert await charged(Usage(8, 10, web_searches=0)) == 0
    assert await charged(Usage(8, 10)) == 5  # not reported: as it was held
    assert await charged(Usage(8, 10), billed=False) == 0


@pytest.mark.parametrize(
    ("path", "request_body", "why"),
    [
        (MESSAGES, {**CLAUDE, "tools": [SEARCH]}, "no bound.*max_uses"),
        (CHAT, {**SPEAKS, "model": "gpt-4o-audio-preview"}, "audio by .* no known price"),
        (CHAT, {"model": "gpt-4o-search-preview"}, "a web search by .* no known price"),
        (CHAT, {**SPEAKS, "model": "gpt-4o-search-preview"}, "audio by .* no known price"),
        (CHAT, {"model": "nobody-knows", "modalities": ["audio"]}, "model .* no known price"),
        (CHAT, {**SPEAKS, "model": "gpt-4o", "plugins": [{"id": "web"}]}, "audio by .* no known"),
    ],
)
async def test_what_cannot_be_priced_is_refused_under_a_cost_limit_only(path, request_body, why):
    asked = {"messages": TURN, **request_body}
    async with Guard([DAY], sinks=[]) as guard:
        with pytest.raises(ProtocolError, match=why):
            await guard.preflight(asked, path=path)
    async with Guard([Limit(tokens=100_000, per="day")], sinks=[]) as guard:
        await guard.preflight(asked, path=path)


async def test_the_catalogs_owner_can_give_a_price():
    asked = {"messages": TURN, **CLAUDE, "tools": [SEARCH]}
    free = Catalog({"claude-haiku-4-5": {"web_search_price": "0"}})
    async with Guard([DAY], sinks=[], catalog=free) as guard:
        await guard.preflight(asked, path=MESSAGES)
    spoken = {"messages": TURN, **SPEAKS, "model": "gpt-4o-audio-preview"}
    own = Catalog({"gpt-4o-audio-preview": {"audio_output_price": "80"}})
    async with Guard([DAY], sinks=[], catalog=own) as guard:
        call = await guard.begin(await guard.subject(spoken, path=CHAT))
        assert call.assessment.rates.output_rate == 80_000
        await call.finish(Spent("completed"))


def test_what_every_call_costs_is_held():
    class Perplexitys(Catalog):
        def model_info(self, model, provider=None, *, tier=""):
            return super().model_info(model, "perplexity", tier=tier)

    info = CATALOG.model_info("sonar", "perplexity")
    assert info.call_rate == CATALOG.cost_nano("sonar", Usage(0, 0), "perplexity") == 12_000_000
    assert rates_of(Perplexitys(), Request("openai_chat", "sonar", {})).call_rate == 12_000_000


def test_a_report_is_charged_with_all_it_tells():
    reported = Usage(9, 1, audio_input_tokens=2, web_searches=3)
    assert charge(7, Spent("completed", Usage(), reported), exact=False) == reported


COUNTS = st.none() | st.integers(0, 10**6)
EXTRAS = st.builds(Extras, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 9))
MODELS = st.sampled_from(["gpt-audio", "gpt-4o", "claude-haiku-4-5", "gemini-2.5-flash", "gpt-5"])
CATALOG = Catalog()


@given(EXTRAS, MODELS, st.integers(0, 10**6), st.integers(0, 10**5), st.data())
def test_nothing_that_is_asked_for_costs_more_than_is_held(extras, model, taken, made, data):
    request = Request("openai_chat", model, {}, extras=extras, writes_cache=extras.long_cache)
    rates = rates_of(CATALOG, request)
    if None in (rates.input_rate, rates.output_rate, rates.call_rate):
        return
    usage = Usage(
        taken,
        made,
        cached_tokens=data.draw(COUNTS),
        cache_write_tokens=data.draw(COUNTS) if extras.long_cache else 0,
        audio_input_tokens=data.draw(COUNTS) if extras.audio_input else None,
        audio_output_tokens=data.draw(COUNTS) if extras.audio_output else None,
        long_cache_write_tokens=data.draw(COUNTS) if extras.long_cache else None,
        web_searches=data.draw(st.none() | st.integers(0, extras.searches)),
    )
    cost = cost_of(CATALOG, request, usage, Spent("completed"))
    held = rates.input_rate * taken + rates.output_rate * made + rates.call_rate
    assert cost is not None
    assert cost <= held

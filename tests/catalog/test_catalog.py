from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal

import pytest
from genai_prices import Usage as ListedUsage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard import listings
from streamguard.catalog import Catalog, ModelInfo, cost_nano, model_info
from streamguard.core.pricing import Price, Prices
from streamguard.errors import ConfigurationError
from streamguard.usage import Usage

# What a Usage cannot tell apart is priced as plain text by both sides; listings that also charge
# for a whole call or by other units are compared as far as tokens go.
LISTINGS = [
    (provider, listing) for provider in get_snapshot().providers for listing in provider.models
]
MOMENTS = [datetime(2026, 11, 24, hour, 30, tzinfo=UTC) for hour in (3, 17, 20)]
tokens = st.integers(0, 1_500_000)


def text_prices(price: ModelPrice) -> bool:
    return price.input_mtok is not None and price.output_mtok is not None


@settings(max_examples=600)
@given(
    st.sampled_from(LISTINGS),
    st.sampled_from(MOMENTS),
    tokens,
    tokens,
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_cost_is_what_genai_prices_computes(found, moment, taken, made, cached, thought):
    provider, listing = found
    price = listing.get_prices(moment)
    if not text_prices(price):
        return
    usage = Usage(taken, made, int(made * thought), int(taken * cached))
    reported = {"input_tokens": taken, "output_tokens": made}
    if price.cache_read_mtok is not None:
        reported["cache_read_tokens"] = usage.cached_tokens
    if price.output_reasoning_mtok is not None:
        reported["output_reasoning_tokens"] = usage.reasoning_tokens
    theirs = listing.calc_price(
        ListedUsage(**reported), provider, genai_request_timestamp=moment
    ).total_price
    ours = listings.listed(listing, moment, "").cost(usage)
    assert ours == int((theirs * 10**9).to_integral_value(rounding=ROUND_CEILING))


@settings(max_examples=300)
@given(st.sampled_from(LISTINGS), st.integers(0, 400_000), st.integers(0, 100_000))
def test_rates_are_never_below_the_cost(found, taken, made):
    provider, listing = found
    own = Catalog()
    info = own.model_info(listing.id, provider.id)
    if None in (info.input_rate, info.output_rate):
        return
    cost = own.cost_nano(listing.id, Usage(taken, made), provider.id)
    a_call = own.cost_nano(listing.id, Usage(0, 0), provider.id)
    assert cost <= info.input_rate * taken + info.output_rate * made + a_call


@pytest.mark.parametrize(
    ("name", "provider", "window", "same_price_as"),
    [
        ("gpt-4o", None, 128_000, "gpt-4o"),
        ("GPT-4o", None, 128_000, "gpt-4o"),
        ("gpt-4o-2024-08-06", None, 128_000, "gpt-4o"),
        ("gpt-4o", "azure", 128_000, "gpt-4o"),
        ("gpt-35-turbo", "azure", 16_385, "gpt-3.5-turbo"),
        ("azure/gpt-4o", None, 128_000, "gpt-4o"),
        ("openai/gpt-4o", None, 128_000, "gpt-4o"),
        ("openai/gpt-4o", "openrouter", 128_000, "gpt-4o"),
        ("openrouter/openai/gpt-4o", None, 128_000, "gpt-4o"),
        ("models/gemini-2.5-pro", None, None, "gemini-2.5-pro"),
        ("text-embedding-3-small", None, 8192, "text-embedding-3-small"),
    ],
)
def test_names_resolve_as_clients_write_them(name, provider, window, same_price_as):
    info, plain = model_info(name, provider), model_info(same_price_as)
    assert info.context_window == window
    assert info.input_rate == plain.input_rate is not None


def test_fine_tunes_keep_their_own_price_and_their_base_window():
    tuned = model_info("ft:gpt-4o-mini-2024-07-18:org::abc")
    assert tuned.context_window == 128_000
    assert tuned.input_rate == 2 * model_info("gpt-4o-mini").input_rate
    assert model_info("ft:gpt-4o:org") == ModelInfo(context_window=128_000)


def test_bedrock_names_have_their_own_listing():
    name = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert model_info(name).input_rate == model_info(name, "aws").input_rate > 0


def test_a_variant_that_is_not_listed_has_a_window_and_no_price():
    assert model_info("openai/gpt-4o:nitro") == ModelInfo(context_window=128_000)
    assert cost_nano("openai/gpt-4o:nitro", Usage(1, 1)) is None


@pytest.mark.parametrize("name", ["nonsense", "", "/", "ft:", ":", "gpt-4o" + "x" * 300, "a/b/c"])
def test_unknown_is_none(name):
    assert model_info(name, "nobody") == ModelInfo()
    assert cost_nano(name, Usage(10, 10)) is None


def test_a_price_or_a_count_that_is_missing_makes_the_cost_unknown():
    assert cost_nano("gpt-4o", Usage(1000, None)) is None
    assert cost_nano("gpt-4o", Usage(None, 10)) is None
    assert cost_nano("text-embedding-3-small", Usage(1000, 1)) is None
    assert cost_nano("text-embedding-3-small", Usage(1000, 0)) == 20_000


def test_cached_tokens_are_charged_at_their_price():
    assert cost_nano("gpt-4o", Usage(1000, 100)) == 2500 * 1000 + 10_000 * 100
    assert cost_nano("gpt-4o", Usage(1000, 100, None, 400)) == 2500 * 600 + 1250 * 400 + 1_000_000


def test_unlisted_misses_are_not_remembered_for_ever():
    for number in range(5000):
        model_info(f"made-up-{number}")
    assert listings.find.cache_info().currsize <= 4096
    assert not get_snapshot()._provider_misses


def test_off_peak_models_are_held_at_the_dear_time_and_charged_at_the_cheap_one():
    own, usage = Catalog(), Usage(1_000_000, 1_000_000)
    costs = {own.cost_nano("deepseek-chat", usage, at=moment.timestamp()) for moment in MOMENTS}
    assert len(costs) == 2
    info = own.model_info("deepseek-chat")
    assert (info.input_rate + info.output_rate) * 1_000_000 == max(costs)


def test_overrides_come_first_and_the_rest_is_looked_up():
    own = Catalog(
        {
            "GPT-4o": {"input_price": "1.50"},
            "mine": {"context_window": 9, "input_price": Decimal("0.0000015"), "output_price": 2},
        }
    )
    info = own.model_info("gpt-4o")
    assert info == ModelInfo(128_000, 1500, 10_000, 1250, None, None, None, 3000, 10_000_000)
    assert own.cost_nano("gpt-4o", Usage(10, 1)) == 15_000 + 10_000
    assert own.model_info("mine") == ModelInfo(9, 1, 2000, None, long_cache_write_rate=1)
    assert own.cost_nano("mine", Usage(1_000_001, 1)) == 1501 + 2000
    assert own.cost_nano("mine", Usage(1, 0)) == 1


def test_a_free_override_is_zero_not_unknown():
    own = Catalog({"local": {"input_price": "0", "output_price": "0", "cached_input_price": "0"}})
    assert own.cost_nano("local", Usage(5, 5, None, 3)) == 0
    assert own.model_info("local") == ModelInfo(None, 0, 0, 0, long_cache_write_rate=0)


@pytest.mark.parametrize(
    "given",
    [
        {"window": 3},
        {"context_window": 0},
        {"context_window": True},
        {"context_window": "8k"},
        {"input_price": 0.5},
        {"input_price": True},
        {"input_price": "a lot"},
        {"output_price": "-1"},
        {"output_price": "NaN"},
        {"cached_input_price": "Infinity"},
        {"web_search_price": "free"},
        {"tiers": "priority"},
        {"tiers": {"priority": "2.00"}},
    ],
)
def test_overrides_that_cannot_be_are_refused_by_name(given):
    with pytest.raises(ConfigurationError, match=f"model 'mine'.*{next(iter(given))}"):
        Catalog({"mine": given})


def test_audio_and_web_searches_can_be_given_prices():
    prices = {"audio_input_price": "10", "audio_output_price": "20", "web_search_price": "5"}
    own = Catalog({"mine": {"input_price": "1", "output_price": "2", **prices}})
    info = own.model_info("mine")
    assert (info.audio_input_rate, info.audio_output_rate) == (10_000, 20_000)
    assert info.search_rate == 5_000_000
    usage = Usage(10, 10, audio_input_tokens=4, audio_output_tokens=3, web_searches=2)
    assert own.cost_nano("mine", usage) == 6_000 + 40_000 + 14_000 + 60_000 + 10_000_000
    assert own.has_own_price("MINE")
    assert not Catalog({"gpt-4o": {"web_search_price": "0"}}).has_own_price("gpt-4o")
    assert Catalog({"gpt-4o": {"web_search_price": "0"}}).model_info("gpt-4o").search_rate == 0


def test_a_token_is_charged_as_one_kind_only():
    own = Catalog({"m": {"input_price": "1", "output_price": "1", "audio_input_price": "3"}})
    overlapping = Usage(10, 0, None, 10, 20, audio_input_tokens=10, long_cache_write_tokens=4)
    assert own.cost_nano("m", overlapping) == 4 * 2_000 + 6 * 3_000
    backwards = Usage(10, 0, None, None, 2, long_cache_write_tokens=4)
    assert own.cost_nano("m", backwards) == 4 * 2_000 + 6 * 1_000


def test_an_hour_in_the_cache_costs_twice_the_input_where_nothing_is_listed():
    usage = Usage(250_000, 0, None, None, 250_000, long_cache_write_tokens=250_000)
    assert cost_nano("claude-haiku-4-5", usage) == 250_000 * 2_000
    assert cost_nano("gemini-2.5-pro", usage) == 250_000 * 2 * 2_500  # its dearer tier
    assert model_info("gemini-2.5-pro").long_cache_write_rate == 2 * 2_500
    assert model_info("no-such-model").long_cache_write_rate is None


@pytest.mark.parametrize("given", [None, "0.10", 5])
def test_an_override_is_a_table(given):
    with pytest.raises(ConfigurationError, match=f"model 'mine': {given!r} must be a table"):
        Catalog({"mine": given})


def test_a_service_tier_has_its_own_prices_and_unknown_ones_have_none():
    listed = Catalog()
    assert listed.model_info("o3", tier="flex").output_rate == 4_000
    assert listed.model_info("o3", tier="priority").output_rate == 14_000
    assert listed.model_info("claude-fable-5-2", tier="fast").input_rate == 16_000
    assert listed.cost_nano("o3", Usage(10, 1, None, 4), tier="flex") == 6_000 + 4 * 250 + 4_000
    assert listed.cost_nano("o3", Usage(10, 1), tier="ultrafast") is None
    assert listed.cost_nano("o3", Usage(10, 1), tier="priority", at=0) is None  # not yet listed
    assert listed.cost_nano("no-such-model", Usage(10, 1), tier="priority") is None
    assert listed.model_info("mistralai/mistral-large-4-0", tier="mistral/eu").input_rate is None


def test_tiers_can_be_overridden_and_a_price_of_ones_own_is_no_tiers_price():
    prices = {"input_price": "1", "output_price": "1"}
    own = Catalog(
        {
            "o3": prices | {"tiers": {"Priority": {"input_price": "9", "output_price": "9"}}},
            "gpt-4o": {"context_window": 1_000},
            "o4-mini": {"tiers": {"priority": {"input_price": "9"}}},
        }
    )
    assert own.cost_nano("o3", Usage(1, 1)) == 2_000
    assert own.cost_nano("o3", Usage(1, 1), tier="priority") == 18_000
    assert own.cost_nano("o3", Usage(1, 1), tier="flex") is None
    assert own.model_info("gpt-4o", tier="priority").output_rate == 17_000
    assert own.model_info("o4-mini", tier="priority").input_rate == 9_000
    assert own.model_info("o4-mini", tier="priority").output_rate == 8_000
    assert own.model_info("o4-mini").input_rate == 1_100


@given(tokens)
def test_tiers_hold_for_all_tokens_above_their_start(taken):
    price = Price(5, ((1000, 7), (200_000, 3)))
    expected = 3 if taken > 200_000 else 7 if taken > 1000 else 5
    assert price.at(taken) == expected <= price.worst == 7


def test_a_call_can_have_a_price_of_its_own():
    price = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1), requests_kcount=Decimal(5))
    assert listings.convert(price).cost(Usage(0, 0)) == 5_000_000
    tiered = TieredPrices(base=Decimal(1), tiers=[])
    assert listings.convert(ModelPrice(input_mtok=tiered)) == Prices(input=Price(10**12))


def test_reasoning_can_have_a_price_of_its_own():
    price = ModelPrice(
        input_mtok=Decimal(1), output_mtok=Decimal(8), output_reasoning_mtok=Decimal(3)
    )
    assert listings.convert(price).cost(Usage(10, 100, 40)) == 10_000 + 60 * 8000 + 40 * 3000
    assert listings.convert(price).cost(Usage(10, 100, 400)) == 10_000 + 100 * 3000

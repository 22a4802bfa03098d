"""A file may say anything: each mistake is one sentence with the file's name."""

from __future__ import annotations

import re

import pytest

from streamguard import Catalog, ConfigurationError, Guard, Limit
from streamguard.sinks.memory import ListSink
from streamguard.sinks.structlog import StructlogSink

pytestmark = pytest.mark.anyio

WRONG = {
    "hold_ttl = '5'": "hold_ttl='5' must be more than 0 seconds",
    "idle_seconds = true": "idle_seconds=True must be more than 0 seconds",
    "observe = 'yes'": "observe='yes' must be true or false",
    "adaptive_reserve = 1": "adaptive_reserve=1 must be true or false",
    "store = 5": "store=5 must be a URL",
    "store = 'env:NOT_SET'": "store='env:NOT_SET': that environment variable is not set",
    "store_policy = []": "fail policy []; use 'closed', 'open', or a share over 0 and up to 1",
    "store_policy = true": "fail policy True; use",
    "limits = [{tokens = 5, timezone = 'Mars/Base'}]": "limits[0]: timezone 'Mars/Base'",
    "models = 3": 'models must be tables, written [models."NAME"]',
    "models = {a = 3}": 'models must be tables, written [models."NAME"]',
    "models = {a = {context = 5}}": "model 'a': unknown ['context']",
    "sizes = 3": "sizes=3 must be a table",
    "fallback = 3": "fallback=3 must be a list of model names",
    "fallback = 'gpt-4o'": "fallback='gpt-4o' must be a list of model names",
    "queue = 3": "queue=3 must be a table of ['capacity', 'max_wait', 'priority']",
    "queue = {capcity = 3}": "queue: unknown keys ['capcity']; known: ['capacity',",
    "queue = {priority = 5}": "queue: priority=5 must be a callable",
    "queue = {capacity = 'x'}": "queue: capacity='x'",
    "queue = {capacity = 0.5}": "queue: capacity=0.5",
    "queue = {max_wait = '20'}": "queue: capacity=100 and max_wait='20' must be > 0",
    "cache = true": "cache=True must be a table of",
    "cache = {ttl = 'x'}": "cache: ttl='x' must be > 0",
    "limits = [{tokens = 5}, {tokens = 5}]": "limits share the names",
    "limits = [{tokens = 5, scop = []}]": "limits[0]: unknown keys ['scop']; known: ['",
    "limits = [{tokens = 5, scope = 'tenant'}]": "limits[0]: scope='tenant' must be a list",
    "limits = [{tokens = 5, scope = [[]]}]": "limits[0]: scope=[[]] must be a list",
    "limits = [{tokens = 5, scope = 5}]": "limits[0]: scope=5 must be a list",
    "limits = [{tokens = 5, per = []}]": "limits[0]: per=[] is not a span",
    "fit = 'drop-oldset'": "fit='drop-oldset' is unknown; use one of drop-oldest",
    "store = 'mystery://x'": "no store for 'mystery'; use one of memory, sqlite",
    "limits = [{tokens = 5, per = 5}]": "limits[0]: per=5 is not a span",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_value_is_named_with_its_file(tmp_path, text):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(f"{path}: {WRONG[text]}")):
        Guard.from_config(path)


def test_the_known_keys_of_a_file_are_all_named(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text("[tel]")
    with pytest.raises(
        ConfigurationError, match=r"known: \[.*'models', .*, 'tell', 'tokenizers'\]"
    ):
        Guard.from_config(path)


async def test_the_stores_url_can_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BUDGETS", f"sqlite:///{tmp_path}/budgets.db")
    path = tmp_path / "streamguard.toml"
    path.write_text("store = 'env:BUDGETS'\n[[limits]]\ntokens = 500\nper = 'day'")
    async with Guard.from_config(path) as guard:
        await guard.preflight({"model": "gpt-4o", "max_tokens": 5, "messages": []})
    assert (tmp_path / "budgets.db").exists()


@pytest.mark.parametrize("limits", [Limit(tokens=5), 5, ["tokens"]])
def test_limits_are_a_list_of_limits(limits):
    with pytest.raises(ConfigurationError, match=r"must be a list of Limit\(…\)"):
        Guard(limits=limits)


@pytest.mark.parametrize(
    "sinks", [5, "x", ListSink(), [5], [ListSink], [StructlogSink(), object()]], ids=str
)
def test_a_sink_that_would_hear_nothing_is_refused(sinks):
    with pytest.raises(ConfigurationError, match=r"sinks= must be a list .*\[StructlogSink\(\)\]"):
        Guard(sinks=sinks)


def test_a_catalog_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match=r"catalog= must be a Catalog, such as"):
        Guard(catalog={"my-model": {"context_window": 5}})
    Guard(catalog=Catalog({"my-model": {"context_window": 5}}), sinks=(ListSink(),))


def test_a_misspelled_setting_is_named_with_what_it_may_be():
    told = r"Guard\(\) got an unexpected keyword argument 'fallbak'; did you mean 'fallback'\?"
    with pytest.raises(TypeError, match=told):
        Guard(fallbak=["gpt-4o-mini"])
    with pytest.raises(TypeError, match="'limit'; did you mean 'limits'"):
        Guard(limit=[])
    with pytest.raises(TypeError, match="'xyzzy'$"):
        Guard(xyzzy=1)


@pytest.mark.parametrize("source", [["text"], iter("text"), lambda: None], ids=str)
def test_what_is_no_async_iterator_is_no_stream(source):
    told = f"guard.stream takes an async iterator, not a {type(source).__name__}"
    with pytest.raises(ConfigurationError, match=told):
        Guard(sinks=[]).stream(source, model="gpt-4o")

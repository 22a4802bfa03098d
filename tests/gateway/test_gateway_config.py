"""The file: what it may say, errors with their line, and changes while running."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.servers import wait_until

from streamguard.errors import ConfigurationError
from streamguard.gateway.config import DEFAULT_STORE, GatewayConfig, parse_gateway, read_gateway
from streamguard.gateway.places import line_of
from streamguard.gateway.upstreams import Upstream

CHAT = "/v1/chat/completions"
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}

WHOLE = """
host = "0.0.0.0"
port = 9000
store = "redis://redis:6379/0"
keys = "env:KEYS_URL"
ledger = "postgresql://db/usage"
ledger_spool = "spool"
shutdown_seconds = 2.5
live_page = "env:PAGE"
reserve_output = 1024
queue = {capacity = 5, max_wait = 2}

[[upstreams]]
url = "https://api.openai.test/v1"
models = ["gpt-*", "o*"]
key_env = "OPENAI_KEY"

[[upstreams]]
url = "https://azure.test"
key_env = "OPENAI_KEY"
auth_header = "api-key"
name = "azure"

[[limits]]
name = "one call"
output_tokens = 4_000

[plans.free]
[[plans.free.limits]]
cost = "1.00"
per = "day"
scope = ["tenant"]

[plans.pro]

[tenants]
acme = "pro"
"*" = "free"

[models."our-llama"]
context_window = 32_000
"""


UP = '[[upstreams]]\nurl = "http://h"\n'


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYS_URL", "postgresql://keys")
    monkeypatch.setenv("OPENAI_KEY", "k1")
    monkeypatch.setenv("PAGE", "a long secret")

    def read(text: str) -> GatewayConfig:
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        return read_gateway(path)

    return read


def test_a_whole_file(read):
    config = read(WHOLE)
    assert [one.name for one in config.upstreams] == ["api.openai.test", "azure"]
    assert config.upstreams[0].url == "https://api.openai.test"
    assert config.upstreams[1].auth() == ("api-key", "k1")
    assert (config.host, config.port, config.shutdown_seconds) == ("0.0.0.0", 9000, 2.5)
    assert (config.keys, config.live_page) == ("postgresql://keys", "a long secret")
    assert config.guard["store"] == "redis://redis:6379/0"
    assert config.guard["reserve_output"] == 1024
    assert [limit.name for limit in config.limits_for("acme")] == ["one call"]
    assert [limit.unit for limit in config.limits_for("other")] == ["output_tokens", "cost"]
    assert [limit.unit for limit in config.limits_for(None)] == ["output_tokens", "cost"]
    assert "k1" not in repr(config)


def test_the_ledger_may_stand_in_either_place(read):
    config = read(f"{UP}[tell]\nledger = 'postgresql://db/usage'\nspool = 'spool'\notel = true\n")
    assert (config.ledger, config.ledger_spool) == ("postgresql://db/usage", "spool")
    assert config.tell == {"otel": True}


def test_a_file_is_read_where_the_databases_extra_is_missing(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "streamguard.gateway.keys", None)
    assert read(f"keys = 'sqlite:///keys.db'\n{UP}").keys == "sqlite:///keys.db"


def test_the_shortest_file(read):
    config = read('[[upstreams]]\nurl = "http://h"\n')
    assert config.guard["store"] == DEFAULT_STORE
    assert config.limits_for("anybody") == ()
    assert (config.host, config.port, config.keys, config.ledger) == ("127.0.0.1", 8383, "", "")


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", 1, "upstreams: there is none"),
        ("upstreams = 5\n", 1, "upstreams must be a list of tables, written [[upstreams]]"),
        ("upstreams = [5]\n", 1, "upstreams[0]: must be a table, written [[upstreams]]"),
        (
            '[[upstreams]]\nulr = "http://h"\n',
            2,
            "unknown keys ['ulr'], did you mean 'url'?; known",
        ),
        (f"{UP}[tell]\nalert = 5\n", 4, "tell: unknown keys ['alert']"),
        (f"{UP}[tell.alerts]\ndaily_spend = 'x'\n", 4, "tell.alerts.daily_spend='x': cost 'x'"),
        (f"{UP}[tell]\nalerts = {{webhooks = [{{}}]}}\n", 4, "webhooks[0].url is missing"),
        (
            f"{UP}[tell.alerts]\n[[tell.alerts.webhooks]]\nurl = 'https://x'\nattempts = 0\n",
            6,
            "tell.alerts.webhooks[0].attempts=0 must be a whole number",
        ),
        (f"{UP}[tell]\nprometheus = 5\n", 4, "tell.prometheus=5 must be true, or the page's"),
        (f"{UP}[tell]\nprometheus = 'short'\n", 4, "the metrics page's password has 5 characters"),
        (f"{UP}[tell]\nledger = 'x'\n", 4, "tell.ledger: a ledger is sqlite:///FILE"),
        (f"tell = 5\n{UP}", 1, "tell must be a table, written [tell]"),
        (
            f"ledger = 'sqlite:///a.db'\n{UP}[tell]\nledger = 'sqlite:///b.db'\n",
            5,
            "tell.ledger and ledger= are one setting; keep one of them",
        ),
        (f'{UP}[[upstreams]]\nfamily = "openai"\n', 3, "upstreams[1]: needs a url"),
        (f"{UP}modls = []\n", 3, "upstreams[0]: unknown keys ['modls']"),
        (f'{UP}\nmodels = "gpt"\n', 4, "models='gpt' must be a list of strings"),
        (f"{UP}models = [1]\n", 3, "models=[1] must be a list of strings"),
        (f"{UP}family = 5\n", 3, "family=5 must be a string"),
        (f'{UP}[[upstreams]]\nurl = "http://i"\nfamily = "opnai"\n', 5, "family='opnai'"),
        (f'{UP}key_env = "NOT_SET_ANYWHERE"\n', 3, "key_env='NOT_SET_ANYWHERE'"),
        (f'{UP}key_env = "sk-pasted"\n', 3, "key_env= must name an environment variable"),
        ('[[upstreams]]\nurl = "ftp://h"\n', 2, "url= must be http(s)://HOST"),
        ('[[upstreams]]\nurl = "http://[h"\n', 2, "url= must be http(s)://HOST"),
        ('[[upstreams]]\nurl = "http://me:pw@h"\n', 2, "url= must be http(s)://HOST"),
        ('[[upstreams]]\nurl = "http://h?key=5"\n', 2, "url= must be http(s)://HOST"),
        (f'port = "80"\n{UP}', 1, "port='80' must be a whole number"),
        (f"# a comment\nport = 70000\n{UP}", 2, "port=70000 must be between 0 and 65535"),
        (f"shutdown_seconds = -1\n{UP}", 1, "shutdown_seconds=-1 must be between"),
        (f"live_page = 'short'\n{UP}", 1, "live_page: the live page's password has 5 characters"),
        (f"\nkeys = 'keys.db'\n{UP}", 2, "keys= must be sqlite:///FILE or postgresql://USER@HOST"),
        (f"ledger = 'usage.db'\n{UP}", 1, "ledger: a ledger is sqlite:///FILE"),
        (f"host = 5\n{UP}", 1, "host=5 must be a string"),
        (f"shutdown_seconds = '1'\n{UP}", 1, "shutdown_seconds='1' must be a number"),
        (f"live_pages = 'x'\n{UP}", 1, "unknown keys ['live_pages'], did you mean 'live_page'?"),
        (f"port = true\n{UP}", 1, "port=True must be a whole number"),
        (f'keys = "env:NOT_SET_ANYWHERE"\n{UP}', 1, "that environment variable is not set"),
        (f'store = "mystery://x"\n{UP}', 1, "no store for 'mystery'"),
        (f"reserve_output = 0\n{UP}", 1, "reserve_output=0"),
        (f'hold_ttl = "long"\n{UP}', 1, "hold_ttl='long' must be more than 0 seconds"),
        (f"store_policy = []\n{UP}", 1, "fail policy []; use"),
        (f"reserve_outputs = 5\n{UP}", 1, "unknown keys ['reserve_outputs']"),
        (f"{UP}[[limits]]\ntokens = 5\nper = 'fortnight'\n", 5, "limits[0]: per='fortnight'"),
        (f"{UP}[[limits]]\ntokens = 5\n\n[[limits]]\ntokens = -5\n", 7, "limits[1]: tokens=-5"),
        (f"{UP}[[limits]]\ntokns = 5\n", 4, "unknown keys ['tokns']"),
        (
            f"{UP}[plans.a]\n[[plans.a.limits]]\ntokens = 1\n[[plans.a.limits]]\ntokens = 'x'\n",
            7,
            "plans.a: limits[1]: tokens='x' must be a whole number",
        ),
        (f"{UP}[plans.free]\nlimit = 5\n", 3, "plans.free: a plan holds limits only"),
        (f"{UP}[plans]\nfree = 5\n", 4, "plans.free: a plan holds limits only"),
        (f"{UP}[plans]\nfree.limits = 5\n", 4, "plans.free: limits must be tables"),
        (f"plans = 5\n{UP}", 1, "plans must be a table, written [plans]"),
        (f'{UP}[plans.free]\n[tenants]\nacme = "fre"\n', 5, "tenants.acme: 'fre' is no plan"),
        (f"{UP}[tenants]\nacme = 5\n", 4, "tenants.acme: 5 is no plan"),
        (
            f"{UP}[[limits]]\ntokens = 1\n[plans.a]\n[[plans.a.limits]]\ntokens = 1\n",
            5,
            "plans.a: limits share the names ['1 tokens/request']",
        ),
    ],
)
def test_errors_name_file_line_and_key(read, tmp_path, text, line, told):
    with pytest.raises(ConfigurationError) as error:
        read(text)
    message = error.value.message
    assert told in message
    assert message.startswith(f"{tmp_path}/gateway.toml:{line}: ")
    assert "me:pw" not in message
    assert "sk-pasted" not in message


def test_files_that_are_none(read, tmp_path):
    with pytest.raises(ConfigurationError, match=r"not valid TOML: .*line 2"):
        read("a = 1\nb = \n")
    with pytest.raises(ConfigurationError, match=r"cannot read .*No such file"):
        read_gateway(tmp_path / "none.toml")
    Path(tmp_path, "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_gateway(tmp_path / "latin.toml")


def test_lines_of_dotted_and_quoted_keys():
    text = 'a.b = 1\n"c d" = 2\n[x."y".z]\nk = 3\n[[l]]\nk = 4\n[[l]]\n[l.m]\nk = 5\n'
    assert line_of(text, "a.b is wrong") == 1
    assert line_of(text, "l[1]: 'm' and k=5") == 8
    assert line_of(text, "l[0]: k=4") == 6
    assert line_of(text, "l[7]: k=4") == 5


def change(running, old, new):
    text = running.file.read_text()
    assert old in text
    running.file.write_text(text.replace(old, new))
    later = running.file.stat().st_mtime_ns + 1_000_000
    os.utime(running.file, ns=(later, later))


LIMITED = """
[[limits]]
name = "one call"
output_tokens = 40

[plans.free]
[[plans.free.limits]]
name = "few"
requests = 0
per = "day"
"""


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr("streamguard.gateway.app.WATCH_SECONDS", 0.02)


@pytest.mark.usefixtures("_quick")
def test_changes_are_taken_up_while_running(run, capfd):
    running = run(LIMITED)

    def limit():
        return client.post(CHAT, json=ASK).headers.get("x-streamguard-output-limit")

    with running.client() as client:
        assert limit() == "40"
        change(running, "output_tokens = 40", "output_tokens = 30")
        wait_until(lambda: limit() == "30", "not taken up")
        change(running, "output_tokens = 30", "output_tokens = -5")
        wait_until(lambda: "config_rejected" in capfd.readouterr().out, "not told of")
        assert limit() == "30"
        change(running, "output_tokens = -5", 'output_tokens = 20\n[tenants]\nacme = "free"')
        wait_until(lambda: client.post(CHAT, json=ASK).status_code == 429, "no plan")
        running.file.rename(running.file.with_suffix(".gone"))
        wait_until(lambda: "cannot read" in capfd.readouterr().out, "not told of")
        assert client.post(CHAT, json=ASK).status_code == 429
        running.file.with_suffix(".gone").rename(running.file)
        change(running, 'name = "the openai one"', 'name = "new"\nmodels = ["other"]')
        wait_until(lambda: running.gateway.config.upstreams[0].name == "new", "not taken up")


@pytest.mark.usefixtures("_quick")
def test_what_needs_a_restart_is_told(run, capfd):
    running = run("[plans.free]\n")
    change(running, "store =", "port = 9999\nreserve_output = 7\ntell.alerts = {}\nstore =")
    seen = []

    def told():
        seen.append(capfd.readouterr().out)
        return "needs_restart=['port', 'tell', 'reserve_output']" in "".join(seen)

    wait_until(told, "not told of")


def test_two_catalogs_are_no_difference():
    ups = (Upstream(url="http://h"),)
    one = GatewayConfig(ups, guard={"store": "memory://", "catalog": object()})
    other = GatewayConfig(ups, guard={"store": "memory://", "catalog": object()})
    assert one.needs_restart(other) == []


def test_a_setting_that_fails_in_an_unforeseen_way_is_one_line_too(monkeypatch):
    def fails(**settings):
        raise TypeError("unhashable")

    monkeypatch.setattr("streamguard.gateway.config.Guard", fails)
    with pytest.raises(ConfigurationError, match="a setting of the wrong kind: unhashable"):
        parse_gateway({"upstreams": [{"url": "http://h"}]})

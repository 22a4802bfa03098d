"""``streamguard check``: right or wrong, and what it all means."""

from __future__ import annotations

import json

import anyio
import pytest
from click.testing import CliRunner

from streamguard import Limit, cli
from streamguard.cli import check as module
from streamguard.core.accounts import Balance, Grant
from streamguard.core.admission import Rates
from streamguard.core.meaning import dollars, words

CONFIG = """
store = "memory://"
fallback = ["gpt-4o-mini"]
[[limits]]
name = "a prompt"
input_tokens = 16_000
[[limits]]
name = "a day"
cost = "25.00"
per = "day"
scope = ["tenant"]
"""


def run(*args, **env):
    args = ["check", *map(str, args)]
    return CliRunner().invoke(cli.main, args, prog_name="streamguard", env=env)


def written(tmp_path, text):
    path = tmp_path / "guard.toml"
    path.write_text(text)
    return path


def test_a_good_config_tells_what_is_in_force(tmp_path):
    result = run(written(tmp_path, CONFIG), "--json", "-m", "gpt-4o", "-m", "gpt-4")
    assert result.exit_code == 0
    found = json.loads(result.output)
    assert found["store"] == {"kind": "memory", "ok": True, "problem": None}
    prompt, day = found["limits"]
    assert prompt["words"] == "16,000 input tokens a request"
    assert prompt["dollars"][0] == {"model": "gpt-4o", "low": 0.04, "high": 0.04, "month": None}
    assert day["words"] == "$25.00 each day for each tenant"
    assert day["dollars"][1] == {"model": "gpt-4", "low": 25.0, "high": 25.0, "month": 750.0}
    assert found["settings"]["fallback"] == ["gpt-4o-mini"]
    assert found["warnings"] == ["memory:// keeps the budgets of one process, until it ends"]


def test_people_get_a_table(tmp_path):
    text = run(written(tmp_path, CONFIG + "[models.odd]\ncontext_window = 9\n")).output
    assert "guard.toml: valid; store memory answers" in text
    assert "$750.00" in text
    assert 'fallback = ["gpt-4o-mini"]' in text
    assert "warning: memory://" in text
    assert "\x1b[" in run(written(tmp_path, CONFIG), FORCE_COLOR="1").output


def test_the_store_is_really_asked(tmp_path):
    config = written(tmp_path, CONFIG)
    good = run(config, "--store", f"sqlite:///{tmp_path / 'budgets.db'}", "--json")
    assert json.loads(good.output)["store"]["ok"]
    assert good.exit_code == 0
    closed = run(config, "--store", "redis://127.0.0.1:1/0")
    assert closed.exit_code == 1
    assert "does not work" in closed.output
    unknown = run(config, "--store", "paper://ledger", "--json")
    assert unknown.exit_code == 1
    assert "paper" in json.loads(unknown.output)["store"]["problem"]


class Odd:
    """A store that answers and does not keep books."""

    def __init__(self, url):
        self.slow = url == "slow://"

    async def open(self):
        if self.slow:
            await anyio.sleep_forever()

    async def close(self):
        pass

    async def reserve(self, *args, **kwargs):
        return Grant(0, ())

    async def balances(self, demands):
        return [Balance(1, 0, 0)]

    async def release(self, hold):
        pass


@pytest.mark.parametrize(("url", "says"), [("odd://", "held or gave back"), ("slow://", "within")])
def test_a_store_that_is_none_or_hangs_is_found_out(tmp_path, monkeypatch, url, says):
    monkeypatch.setattr("streamguard.stores.open_store", Odd)
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    result = run(written(tmp_path, CONFIG), "--store", url, "--json")
    assert result.exit_code == 1
    assert says in json.loads(result.output)["store"]["problem"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there are no limits"),
        ("observe = true\n", "observe is on"),
        ("[[limits]]\ntokens = 5\nsoft = true\n", "all limits are soft"),
        ('fallback = ["nobody-knows-it"]\n', "'nobody-knows-it' has no known price"),
        ('[sizes]\nauto = [[9, "nobody-knows-it"]]\n', "'nobody-knows-it' has no known price"),
        ('[[limits]]\ncost = "1"\nwhere = {model = "nobody-knows-it"}\n', "so it is refused"),
    ],
)
def test_what_is_odd_is_warned_of(tmp_path, text, says):
    result = run(written(tmp_path, text))
    assert result.exit_code == 0
    assert says in result.output


def test_a_model_without_a_price_is_told(tmp_path):
    result = run(written(tmp_path, CONFIG), "--model", "nobody-knows-it")
    assert (
        "model 'nobody-knows-it' has no known price: limits in dollars refuse it" in result.output
    )


@pytest.mark.parametrize("text", ["store_policy = 'x'\n", "[[limits]]\ntokens = 5\nfail = 'x'\n"])
def test_a_policy_that_is_none_is_refused(tmp_path, text):
    result = run(written(tmp_path, text))
    assert result.exit_code == 1
    assert "fail policy 'x'; use 'closed', 'open'" in result.output


def test_a_window_no_calendar_has_is_named(tmp_path):
    text = '[[limits]]\nname = "odd"\ntokens = 5\nper = "7m"\ncalendar = true\n'
    result = run(written(tmp_path, text))
    assert "'odd'" in result.output + result.stderr


def test_a_gateways_plans_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        '[[upstreams]]\nurl = "http://127.0.0.1:9/v1"\n'
        '[plans.free]\n[[plans.free.limits]]\nname = "free day"\ntokens = 1000\nper = "day"\n'
    )
    result = run(written(tmp_path, text))
    assert "forwards to http://127.0.0.1:9" in result.output
    assert "free: free day" in result.output


def test_a_bad_config_is_one_line_and_exit_code_1(tmp_path):
    bad = run(written(tmp_path, '[[limits]]\ntokens = 5\nper = "fortnight"\n'))
    assert bad.exit_code == 1
    assert "limits[0]: per='fortnight'" in bad.stderr
    assert len(bad.stderr.splitlines()) == 1
    assert run(tmp_path / "none.toml").exit_code == 1
    path = written(tmp_path, "fit = 'drop-oldset'\n")
    assert run(path).stderr.startswith(f"Error: {path}: fit='drop-oldset' is unknown; use one of")


RATES = Rates(1_000, 10, 40)


@pytest.mark.parametrize(
    ("limit", "said", "worth"),
    [
        (Limit(tokens=100, per="hour"), "100 tokens each hour", (1_000, 4_000, 4_000 * 720)),
        (Limit(output_tokens=50), "50 output tokens a request", (2_000, 2_000, None)),
        (Limit(cost="2", per="month", soft=True),
         "$2 each calendar month (UTC) (warns only)", (2 * 10**9, 2 * 10**9, 2 * 10**9)),
        (Limit(requests=2, per="day", calendar=True, timezone="Asia/Tokyo"),
         "2 requests each calendar day (Asia/Tokyo)", (None, 2 * (900 * 10 + 100 * 40), None)),
        (Limit(concurrency=3, scope=("tenant", "user")),
         "3 calls at once for each tenant and user", (None, None, None)),
    ],
)  # fmt: skip
def test_limits_in_words_and_dollars(limit, said, worth):
    assert words(limit) == said
    found = dollars(limit, RATES, 100)
    assert (found.low, found.high) == worth[:2]
    assert found.month == worth[2] or limit.unit == "requests"


def test_spans_of_seconds_and_unknown_prices():
    from datetime import timedelta

    odd = Limit(tokens=5, per=timedelta(seconds=90), where={"model": "m"})
    assert words(odd) == "5 tokens each 90 seconds, only model m"
    assert dollars(odd, Rates(), 10) == (None, None, None)
    calls = Limit(requests=5, per="day")
    assert dollars(calls, Rates(None, 1, 1), 10) == (None, None, None)

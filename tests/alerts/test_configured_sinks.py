from __future__ import annotations

import asyncio
import base64
import subprocess
import sys

import pytest
from support.events import refused, settled

from streamguard import ConfigurationError, Guard
from streamguard.cli.configs import load
from streamguard.sinks.alerts import AlertSink
from streamguard.sinks.configured import sinks_from
from streamguard.sinks.ledger import LedgerSink
from streamguard.sinks.otel import OtelSink
from streamguard.sinks.structlog import StructlogSink

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
FILE = """
[[limits]]
tokens = 100
per = "day"

[tell]
ledger = "sqlite:///usage.db"

[tell.alerts]
daily_spend = "50.00"
user_burst = false
context_share = 0.5
per_hour = 5

[[tell.alerts.webhooks]]
url = "env:HOOK"
secrets = ["env:HOOK_SECRET"]
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOOK", "https://ops.example.com/")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    file = tmp_path / "streamguard.toml"
    file.write_text(FILE)
    return file


def names(sink):
    return [rule.name for rule in sink._book._rules]


def test_a_guard_tells_whom_its_file_says(path):
    guard = Guard.from_config(path)
    log, ledger, alerts = guard.teller._sinks
    assert isinstance(log, StructlogSink)
    assert isinstance(ledger, LedgerSink)
    assert names(alerts) == [
        *("context_share", "daily_growth", "daily_spend", "budget_refusal"),
        "runaway_conversation",
    ]
    assert len(alerts._lines) == 1
    assert load(path).store == "memory://"
    assert len(sinks_from({"ledger": "sqlite:///usage.db"}, "tell")) == 2


def test_the_figures_are_the_rules(path):
    (_log, alerts) = sinks_from({"alerts": {"context_share": 0.5, "daily_spend": "1"}}, "tell")
    alerts._report = lambda *_args, **_figures: None
    half = settled(1, tokens=600, context_window=1_000, cost_nano_usd=2 * 10**9)
    fired = [alert.rule for alert in alerts._book.feed(half)]
    assert fired == ["context_share", "daily_spend"]
    asyncio.run(alerts.close())


def test_without_figures_the_default_rules_watch():
    (_log, alerts) = sinks_from({"alerts": {}}, "tell")
    assert names(alerts) == names(AlertSink())
    assert len(alerts._book.feed(refused(1))) == 1


def hook(**given):
    return {"alerts": {"webhooks": [{"url": "https://x", **given}]}}


@pytest.mark.parametrize(
    ("tell", "words"),
    [
        ([], "tell must be a table"),
        ({"webhook": 1}, r"tell: unknown keys \['webhook'\]"),
        ({"ledger": "usage.db"}, "tell.ledger: .*sqlite:///FILE"),
        ({"ledger": 5}, "tell.ledger=5 must be a string"),
        ({"spool": "x"}, "tell.spool needs tell.ledger"),
        ({"otel": "yes"}, "tell.otel='yes' must be true or false"),
        ({"ledger": "env:NOT_SET"}, "tell.ledger='env:NOT_SET': that environment variable"),
        ({"alerts": {"burst": 1}}, r"tell.alerts: unknown keys \['burst'\]"),
        ({"alerts": {"context_share": 90}}, "tell.alerts.context_share=90: share=90 must lie"),
        ({"alerts": {"budget_refusal": 3}}, "tell.alerts.budget_refusal=3 is no figure"),
        ({"alerts": {"user_burst": "x"}}, "tell.alerts.user_burst='x' is no figure of this rule"),
        ({"alerts": {"per_hour": 0}}, "tell.alerts.per_hour=0 must be a whole number"),
        ({"alerts": {"webhooks": {}}}, "tell.alerts.webhooks must be a list"),
        ({"alerts": {"webhooks": [{}]}}, r"tell.alerts.webhooks\[0\].url is missing"),
        (hook(url="ops.example.com"), "must be https://HOST/…, this one is without https://"),
        (hook(url="http://x"), r"tell.alerts.webhooks\[0\]: a webhook's URL must be https"),
        (hook(url=5), r"tell.alerts.webhooks\[0\].url must be a string"),
        (hook(secrets="whsec_x"), r"secrets must be a list of strings$"),
        (hook(secrets=["x"]), r"tell.alerts.webhooks\[0\]: a webhook secret is whsec_"),
        (hook(format="teams"), r"format='teams' must be 'standard' or 'slack'"),
        (hook(allow_private=1), "allow_private=1 must be true or false"),
        (hook(dead_letters=1), "dead_letters=1 must be a file's name"),
        (hook(attempts=True), "attempts=True must be a whole number of 1 or more"),
        (hook(timeout=0), "timeout=0 must be seconds, more than 0"),
    ],
)
def test_a_wrong_key_is_named_with_its_place(tell, words):
    with pytest.raises(ConfigurationError, match=words):
        sinks_from(tell, "tell")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamguard.sinks.ledger", None)
    with pytest.raises(
        ConfigurationError, match=r"tell.ledger needs pip install 'streamguard\[sql"
    ):
        sinks_from({"ledger": "sqlite:///usage.db"}, "tell")


def test_traces_and_metrics_where_they_are_asked_for():
    (_log, otel) = sinks_from({"otel": True}, "tell")
    assert isinstance(otel, OtelSink)
    assert len(sinks_from({"otel": False}, "tell")) == 1


def test_sqlalchemy_is_needed_for_a_ledger_alone():
    code = (
        "import sys; from streamguard.sinks.configured import sinks_from;"
        "sinks_from({'alerts': {}}, 'tell'); sys.exit('sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

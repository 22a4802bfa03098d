from __future__ import annotations

import io
import json

import pytest
from click.testing import CliRunner
from rich.console import Console

from streamguard import cli
from streamguard.cli import demo as module
from streamguard.cli import demo_incident as night
from streamguard.cli.demo_tables import Screen

RETRIES = 12


def run(*args):
    # A shorter night with longer turns: the same story in less time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(night, "NIGHT_RETRIES", RETRIES)
        patch.setattr(night, "TURN_TOKENS", 16_000)
        result = CliRunner().invoke(cli.main, ["demo", *args], prog_name="streamguard")
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def shown():
    return run("--json")


@pytest.fixture(scope="module")
def figures(shown):
    return json.loads(shown.stdout)


def test_json_is_one_object_and_nothing_else(shown, figures):
    assert list(figures["scenes"]) == ["stream", "cut", "incident", "window", "fallback"]
    assert figures["seconds"] > 0
    assert shown.stderr == ""


def test_a_stream_within_its_budget_passes(figures):
    stream = figures["scenes"]["stream"]
    assert stream["finish_reason"] == "stop"
    assert stream["received_tokens"] == stream["upstream_sent_tokens"] > 50


def test_a_stream_over_its_budget_is_cut_at_the_exact_token(figures):
    cut = figures["scenes"]["cut"]
    assert cut["finish_reason"] == "length"
    assert cut["received_tokens"] == cut["budget_tokens"] == 120
    assert 120 <= cut["upstream_sent_tokens"] < 200
    assert cut["upstream_closed_after_ms"] is not None


def test_the_incident_reaches_the_upstream_only_without_the_guard(figures):
    incident = figures["scenes"]["incident"]
    without, guarded = incident["without"], incident["with"]
    assert without["oversized_upstream"] == RETRIES
    assert without["requests_made"] == without["requests_upstream"]
    assert (without["last_status"], without["last_code"]) == (400, "context_length_exceeded")
    assert without["oversized_tokens_upstream"] > RETRIES * incident["context_window"]
    assert guarded["oversized_upstream"] == guarded["oversized_tokens_upstream"] == 0
    assert guarded["requests_made"] == guarded["requests_upstream"] + RETRIES
    assert (guarded["last_status"], guarded["last_code"]) == (413, "request_budget_exceeded")
    assert 0 < guarded["tokens_billed"] < without["tokens_billed"]
    assert guarded["cost_usd"] == pytest.approx(guarded["tokens_billed"] * 2.5e-6, rel=0.01)
    assert incident["saved_usd"] == pytest.approx(
        without["cost_usd"] - guarded["cost_usd"], abs=0.01
    )


def test_a_retry_policy_gives_up_at_once(figures):
    incident = figures["scenes"]["incident"]
    guarded, patient = incident["with"], incident["with_retry_policy"]
    assert patient["requests_made"] == patient["requests_upstream"] + 1
    assert patient["tokens_billed"] == guarded["tokens_billed"]
    assert patient["oversized_upstream"] == 0
    assert patient["last_status"] == 413


def test_a_window_runs_out_for_one_tenant_only(figures):
    window = figures["scenes"]["window"]
    *admitted, refused = window["calls"]
    assert [call["status"] for call in admitted] == [200] * window["admitted"]
    left = [call["remaining"] for call in admitted]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    assert (refused["status"], refused["code"]) == (429, "budget_exceeded")
    assert window["refused"] == 1
    assert 1 <= window["retry_after_seconds"] <= 60
    assert window["other_tenant_finish_reason"] == "stop"


def test_a_cheaper_model_answers_when_the_budget_is_spent(figures):
    fallback = figures["scenes"]["fallback"]
    answered = [call["answered_by"] for call in fallback["calls"]]
    assert answered == ["gpt-4o"] * 3 + ["gpt-4o-mini"] * 3
    assert fallback["switched"] == 1
    spent = sum(c["cost_usd"] for c in fallback["calls"] if c["answered_by"] == "gpt-4o")
    assert 0 < spent <= fallback["budget_usd"]


def test_the_screen_shows_the_figures_within_its_width(figures):
    console = Console(file=io.StringIO(), width=80)
    screen = Screen(console)
    for name, scene in figures["scenes"].items():
        screen.hear(name, None)
        screen.hear(name, scene)
    screen.close(figures)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for shown in (
        "the client got 120 length",
        f"{figures['scenes']['incident']['without']['tokens_billed']:,}",
        "refused at last with 400 413 413",
        "budget_exceeded: come back in",
        "Saved in one night: $",
    ):
        assert shown in flat


def test_without_json_the_scenes_are_shown_as_they_play(monkeypatch, figures):
    async def play(hear, watch):
        for name, scene in figures["scenes"].items():
            hear(name, None)
            watch("as it [plays]")
            hear(name, scene)
        return figures

    monkeypatch.setattr(module, "_play", play)
    out = run().stdout
    assert out.count("as it [plays]") == 5
    assert out.index("A stream within") < out.index("A tenant's minute")

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from support.texts import SAMPLES
from support.upstream import count as tokens

from streamguard import cli, count_request

BODY = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": SAMPLES["english"]},
    ],
}


def run(*args, given=""):
    return CliRunner().invoke(cli.main, ["count", *args], input=given, prog_name="streamguard")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_text_has_as_many_tokens_as_its_encoding_says(name, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(SAMPLES[name])
    result = run(str(path), "--json")
    row = json.loads(result.stdout)
    assert result.exit_code == 0
    assert row["input_tokens"] == tokens(SAMPLES[name]) == row["components"]["text"]
    assert (row["model"], row["method"], row["context_window"]) == ("gpt-4o", "exact", 128_000)
    assert row["cost_usd"] == pytest.approx(2.5e-6 * row["input_tokens"])


def test_stdin_is_read_and_a_byte_order_mark_is_no_token():
    assert json.loads(run("--json", given="\ufeffhello world").stdout)["input_tokens"] == 2


def test_the_readable_form_says_the_same():
    result = run(given="hello world")
    assert result.stdout.splitlines() == [
        "2 input tokens (exact; gpt-4o)",
        "$0.000005 as input",
        "0.0% of the 128,000-token context window",
    ]


def test_a_request_is_counted_as_it_is_billed():
    result = run("--json", given=json.dumps(BODY))
    row = json.loads(result.stdout)
    counted = count_request(BODY)
    assert row["input_tokens"] == counted.input_tokens == sum(row["components"].values())
    assert row["components"] == dict(counted.components)
    readable = run(given=json.dumps(BODY)).stdout
    assert f"{counted.input_tokens:,} input tokens" in readable
    assert "  system " in readable


def test_the_model_can_be_given():
    row = json.loads(run("--json", "-m", "gpt-4", given=json.dumps(BODY)).stdout)
    assert row["model"] == "gpt-4"
    assert row["input_tokens"] != count_request(BODY).input_tokens


def test_a_request_can_be_taken_as_text():
    text = json.dumps(BODY)
    assert json.loads(run("--json", "--text", given=text).stdout)["input_tokens"] == tokens(text)
    other = '{"a": 1}'
    assert json.loads(run("--json", given=other).stdout)["input_tokens"] == tokens(other)


def test_a_request_that_is_not_json_is_counted_as_text_and_said_so():
    result = run("--json", given='{"messages": [')
    assert json.loads(result.stdout)["components"].keys() == {"text"}
    assert result.stderr.startswith("Note: counted as plain text: the body is not valid JSON")
    assert result.exit_code == 0


def test_json_that_is_no_request_is_counted_as_text_and_said_so():
    result = run("--json", given='{"foo": 1}')
    assert json.loads(result.stdout)["components"] == {"text": 6}
    assert "the JSON has none of messages, input, contents, prompt" in result.stderr


def test_rows_without_their_flag_are_pointed_out():
    assert "for rows of JSON give --jsonl" in run(given='{"a": 1}\n{"a": 2}\n').stderr


def test_what_is_unknown_is_null_and_said_in_words():
    body = {"messages": [{"role": "user", "content": "hi"}]}
    row = json.loads(run("--json", given=json.dumps(body)).stdout)
    assert row["model"] is row["cost_usd"] is row["context_window"] is None
    readable = run(given=json.dumps(body)).stdout
    assert "no model named" in readable
    assert "cost unknown: no listed price" in readable


@pytest.mark.parametrize(
    ("asked", "near"),
    [("gpt4o", "gpt-4o"), ("Claude-Sonet-4-5", "claude-sonnet-4-5"), ("my-own-thing", None)],
)
def test_a_misspelled_model_is_pointed_out(asked, near):
    result = run("-m", asked, given="hi")
    hint = f"Note: no price is listed for {asked!r}; did you mean {near}?\n" if near else ""
    assert (result.exit_code, result.stderr) == (0, hint)


def test_text_that_is_not_utf8_is_refused():
    result = run(given=b"abc\xff")
    assert (result.exit_code, result.stderr) == (1, "Error: the text is not UTF-8 at byte 3\n")


def test_a_margin_is_shown(monkeypatch):
    from streamguard.cli import count as module
    from streamguard.core.prompt import PromptCount

    counted = PromptCount(110, "calibrated", 0.1, {"user": 100, "overhead": 10}, "claude-x")
    monkeypatch.setattr(module, "count_request", lambda _body, _model: counted)
    result = run(given=json.dumps(BODY))
    assert result.stdout.startswith("110 input tokens (calibrated, margin 10%; claude-x)")


def test_rows_are_counted_one_by_one():
    rows = [
        {"model": "gpt-4o", "request": BODY},
        {"request": BODY},
        {"model": "gpt-4", "request": {**BODY, "model": "gpt-4o"}},
    ]
    given = "\n\n".join(json.dumps(row) for row in rows)
    result = run("--jsonl", "--json", given=given)
    assert result.exit_code == 0
    out = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["line"] for row in out] == [1, 3, 5]
    assert [row["model"] for row in out] == ["gpt-4o", "gpt-4o", "gpt-4"]
    assert out[0]["input_tokens"] == count_request(BODY).input_tokens
    assert {"input_tokens", "method", "margin", "cost_usd"} <= out[0].keys()
    assert [
        json.loads(line)["model"]
        for line in run("--jsonl", "-m", "o1", given=given).stdout.splitlines()
    ] == ["o1"] * 3


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("nonsense", "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"model": "gpt-4o"}', 'no "request" object'),
        ('{"model": 5, "request": {"messages": []}}', '"model" must be a string'),
        ('{"request": {"colour": "blue"}}', "has no messages"),
        ('{"request": {}, "request": {}}', "duplicate key"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_printed(bad, why):
    good = json.dumps({"model": "gpt-4o", "request": BODY})
    result = run("--jsonl", given=f"{good}\n{bad}\n{good}\n")
    assert result.exit_code == 1
    assert [json.loads(line)["line"] for line in result.stdout.splitlines()] == [1, 3]
    assert result.stderr.startswith("Error: line 2: ")
    assert why in result.stderr
    assert result.stderr.count("\n") == 1

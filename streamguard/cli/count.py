"""``streamguard count``: tokens and cost before anything is sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import click

from streamguard.catalog import cost_nano, model_info
from streamguard.core.prompt import PromptCount
from streamguard.core.strict_json import loads
from streamguard.counting import count_request
from streamguard.errors import ProtocolError, StreamGuardError
from streamguard.limits import NANO
from streamguard.listings import meant
from streamguard.usage import Usage

DEFAULT_MODEL = "gpt-4o"
_BODY_KEYS = ("messages", "input", "contents", "prompt")


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--model", "-m", help=f"Count for this model. Plain text: {DEFAULT_MODEL} if absent.")
@click.option(
    "--jsonl", is_flag=True, help='Read {"model": …, "request": {…}} rows, print one each.'
)
@click.option("--text", is_flag=True, help="Take the input as plain text even if it is a request.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def count(file: BinaryIO, model: str | None, jsonl: bool, text: bool, as_json: bool) -> None:
    """Count the input tokens of FILE (or stdin): a text, or a JSON request body.

    \b
    streamguard count essay.txt --model gpt-4o
    streamguard count request.json
    streamguard count --jsonl < rows.jsonl
    """  # noqa: D301 - click's mark for lines to keep
    if jsonl:
        _count_rows(file, model)
        return
    data = file.read()
    body = None if text else _as_body(data)
    if body is None:
        row = _text_row(_decode(data), model or DEFAULT_MODEL)
    else:
        row = _row(count_request(body, model))
    _hint(row)
    click.echo(json.dumps(row) if as_json else _readable(row))


def _hint(row: Mapping[str, Any]) -> None:
    """Point out a misspelled model: its count is an estimate, and it has no price."""
    if row["model"] and row["cost_usd"] is None and (near := meant(row["model"])):
        click.echo(f"Note: no price is listed for {row['model']!r}; did you mean {near}?", err=True)


def _as_body(data: bytes) -> dict[str, Any] | None:
    """The input as a request body; ``None`` when it is plain text."""
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        body = loads(data)
    except ProtocolError as error:
        rows = "; for rows of JSON give --jsonl" if b"\n{" in data else ""
        click.echo(f"Note: counted as plain text: {error.message}{rows}", err=True)
        return None
    if any(key in body for key in _BODY_KEYS):
        return body
    click.echo(
        f"Note: counted as plain text: the JSON has none of {', '.join(_BODY_KEYS)}", err=True
    )
    return None


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"the text is not UTF-8 at byte {error.start}") from error


def _text_row(text: str, model: str) -> dict[str, Any]:
    """Only the text: what a message adds around it is left out."""
    counted = count_request({"messages": [{"role": "user", "content": text}]}, model)
    tokens = counted.components.get("user", 0)
    return _row(PromptCount(tokens, counted.method, counted.margin, {"text": tokens}, model))


def _row(counted: PromptCount) -> dict[str, Any]:
    model = counted.model
    cost = cost_nano(model, Usage(counted.input_tokens, 0)) if model else None
    return {
        "model": model,
        "input_tokens": counted.input_tokens,
        "method": counted.method,
        "margin": counted.margin,
        "components": dict(counted.components),
        "cost_usd": None if cost is None else cost / NANO,
        "context_window": model_info(model).context_window if model else None,
    }


def _readable(row: Mapping[str, Any]) -> str:
    return "\n".join(_lines(row))


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    margin = f", margin {row['margin']:.0%}" if row["margin"] else ""
    model = row["model"] or "no model named"
    yield f"{row['input_tokens']:,} input tokens ({row['method']}{margin}; {model})"
    if len(row["components"]) > 1:
        for name, tokens in row["components"].items():
            yield f"  {name.replace('_', ' '):<16}{tokens:>12,}"
    if row["cost_usd"] is None:
        yield "cost unknown: no listed price"
    else:
        yield f"${row['cost_usd']:.6f} as input"
    if row["context_window"]:
        share = row["input_tokens"] / row["context_window"]
        yield f"{share:.1%} of the {row['context_window']:,}-token context window"


def _count_rows(file: BinaryIO, model: str | None) -> None:
    bad = 0
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            click.echo(json.dumps({"line": number, **_count_row(line, model)}))
        except StreamGuardError as error:
            bad += 1
            click.echo(f"Error: line {number}: {error.message}", err=True)
    if bad:
        sys.exit(1)


def _count_row(line: bytes, model: str | None) -> dict[str, Any]:
    row = loads(line)
    request = row.get("request")
    if not isinstance(request, dict):
        raise ProtocolError('the row has no "request" object; write {"model": …, "request": {…}}')
    named = model or row.get("model")
    if named is not None and not isinstance(named, str):
        raise ProtocolError('the row\'s "model" must be a string')
    return _row(count_request(request, named))

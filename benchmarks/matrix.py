"""Protocol by client by server by event: what official clients see through the middleware.

    python benchmarks/matrix.py [--quick] [--json] [--write docs/reference/matrix.md]

A provider streams through an app that the middleware guards. Events: *normal*, the stream passes
whole; *cut*, at the exact token of its budget; *graceful*, at a sentence's end; *error*, a strict
ending; *disconnect*, the client leaves after the first text. A cell is "ok" when the client saw
just that, no crash, and, for all but the first event, with the milliseconds until the upstream was
closed after the client was through. Without node and npm the JavaScript clients are left out;
``--quick`` leaves them out too, runs uvicorn only, and takes any time to close.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.clients import CLIENTS, Seen
from support.node import node_modules
from support.relay import Provider, relay
from support.servers import SERVERS, serve, wait_until
from support.texts import ENGLISH
from support.wire import words_of

from streamguard import Guard, Limit, StreamGuardMiddleware
from streamguard.asgi.routes import Route
from streamguard.tokenizers import tokenizer_for_model

EVENTS = ("normal", "cut", "graceful", "error", "disconnect")
BUDGET = 60
ALLOWED_MS = 100
MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash", "ollama": "llama3.2",
          "completions": "gpt-3.5-turbo-instruct"}  # fmt: skip
CUT = {"openai_responses": "max_output_tokens", "anthropic": "max_tokens", "gemini": "MAX_TOKENS",
       "ai_sdk": "finish"}  # fmt: skip


def guard_for(event: str) -> Guard:
    ending = {"graceful": "graceful", "error": "strict"}.get(event, "native")
    limits = [Limit(output_tokens=BUDGET)] if event in {"cut", "graceful", "error"} else []
    return Guard(limits, sinks=[], ending=ending, graceful_tokens=40, on_disconnect="cancel")


def verdict(protocol: str, model: str, event: str, seen: Seen, provider: Provider) -> str:
    """What is wrong with what the client saw; empty when nothing is."""
    tokens = tokenizer_for_model(model).tokenizer.count(seen.text)
    cut = CUT.get(protocol, "length")
    if event == "error":
        return "" if seen.error and "budget" in seen.error else f"saw {seen.error}"
    if seen.error:
        return f"raised {seen.error[:60]}"
    if event == "normal":
        whole = seen.text == ENGLISH and (seen.finish != cut or protocol == "ai_sdk")
        return "" if whole and provider.calls[-1].finished else f"{tokens} tokens, {seen.finish}"
    if event == "cut":
        return "" if (tokens, seen.finish) == (BUDGET, cut) else f"{tokens} tokens, {seen.finish}"
    if event == "graceful":
        sentence = seen.text.rstrip("\"'").endswith((".", "?", "!"))
        fine = sentence and tokens <= BUDGET and seen.finish == cut
        return "" if fine else f"{tokens} tokens, {seen.finish}, {seen.text[-8:]!r}"
    return "" if seen.text else "no text"


def cell(
    url: str, protocol: str, client: Any, event: str, provider: Provider, allowed: float
) -> dict[str, Any]:
    model = MODELS.get(protocol, "gpt-4o")
    seen = client(url, model, event == "disconnect")
    call = provider.calls[-1]
    try:
        wait_until(lambda: call.closed_at is not None, "open", 5)
    except TimeoutError:
        return {"wrong": "the upstream was not closed", "ms": None}
    wrong = verdict(protocol, model, event, seen, provider)
    late = max(0.0, (call.closed_at or 0) - seen.at) * 1e3
    if event != "normal":
        wrong = wrong or ("the upstream ran to its end" if call.finished else "")
        wrong = wrong or (f"closed after {late:.0f} ms" if late > allowed else "")
    return {"wrong": wrong, "ms": None if event == "normal" else round(late, 1)}


def rows(provider: Provider, origin: str, *, quick: bool) -> Iterator[dict[str, Any]]:
    chosen = without_node() if quick or not has_node() else CLIENTS
    allowed = float("inf") if quick else ALLOWED_MS
    for server in SERVERS[:1] if quick else SERVERS:
        for event in EVENTS:
            provider.delay = 0.01 if event == "disconnect" else 0.002  # time for a client to leave
            routes = {"/ai_sdk": Route("openai_chat", "ai_sdk")}
            app = StreamGuardMiddleware(relay(origin), guard=guard_for(event), routes=routes)
            with serve(app, server) as url:
                for protocol, clients in chosen.items():
                    for name, client in clients.items():
                        found = cell(url, protocol, client, event, provider, allowed)
                        where = {"protocol": protocol, "client": name, "server": server}
                        yield {**where, "event": event, **found}


def has_node() -> bool:
    try:
        node_modules()
    except pytest.skip.Exception as reason:
        print(f"without the JavaScript clients: {reason}", file=sys.stderr)
        return False
    return True


def without_node() -> dict[str, dict[str, Any]]:
    script = ("node", "-ts", "npm")
    kept = {
        protocol: {name: run for name, run in clients.items() if not any(s in name for s in script)}
        for protocol, clients in CLIENTS.items()
    }
    return {protocol: clients for protocol, clients in kept.items() if clients}


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: a row for each protocol and client, a column for each event, all servers in it."""
    cells: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for one in found:
        cells.setdefault((one["protocol"], one["client"]), {}).setdefault(one["event"], []).append(
            one
        )
    lines = [
        "| protocol | client | " + " | ".join(EVENTS) + " |",
        "|---|---|" + "---|" * len(EVENTS),
    ]
    for (protocol, client), by_event in cells.items():
        lines.append(
            f"| {protocol} | {client} | {' | '.join(_said(by_event[event]) for event in EVENTS)} |"
        )
    return "\n".join(lines)


def _said(group: list[dict[str, Any]]) -> str:
    wrong = [f"{one['server']}: {one['wrong']}" for one in group if one["wrong"]]
    if wrong:
        return "; ".join(wrong)
    late = [one["ms"] for one in group if one["ms"] is not None]
    return f"ok, {max(late):.0f} ms" if late else "ok"


PAGE = """# What clients see

Made by `python benchmarks/matrix.py --write docs/reference/matrix.md` on {day}: {cells} cells,
{bad} with something wrong. Every cell ran under {servers}; "ok" means on all of them.

- **normal**: the stream passes whole.
- **cut**: {budget} tokens, exactly, and the protocol's own finish reason for a length limit.
- **graceful**: within {budget} tokens, at the end of a sentence, with the same finish reason.
- **error**: `ending="strict"`: the client raises an error that names the budget.
- **disconnect**: the client leaves after the first text.

The milliseconds are the longest of the servers, from when the client was through until the
upstream's connection was closed; {allowed} are allowed.

{table}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    provider = Provider(words_of(ENGLISH, 1, 6))
    with serve(provider) as origin:
        found = list(rows(provider, origin, quick=args.quick))
    bad = sum(bool(one["wrong"]) for one in found)
    if args.write:
        args.write.write_text(
            PAGE.format(
                day=time.strftime("%Y-%m-%d"), cells=len(found), bad=bad, budget=BUDGET,
                servers=", ".join(SERVERS), allowed=ALLOWED_MS, table=table(found),
            )
        )  # fmt: skip
    print(json.dumps(found) if args.json else table(found))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Our counts against what providers reported, on a folder of recorded calls.

    python benchmarks/truth.py --truth DIR [--list] [--json] [--quick]

DIR holds ``PROTOCOL.jsonl.gz`` files; a row has source, model, request, streaming, raw and norm
(input, output, reasoning, cached tokens as reported). Prints a table by protocol and kind of
content; ``--list`` names the sources of rows that are off. Nothing of a row is ever shown.

The input is what was reported with what came from the cache. A kind is "text", "schema" (a
response schema), "tools" (tools or calls), "media" (images, audio, documents) or "server"
(input that only the provider can see). "early" rows were recorded before OpenAI's Responses
stopped billing its preamble, in April 2025: no request of today is billed like them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from streamguard.core.prompt import PromptCount
from streamguard.counting import count_request
from streamguard.protocols import protocol_named
from streamguard.tokenizers import encoding_for_model, get_tokenizer

PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/{}:streamGenerateContent",
}
MEDIA = re.compile(
    r'"(?:image(?:_url)?|input_image|input_file|input_audio|file|document|inline_?[dD]ata|'
    r'file_?[dD]ata|container_upload)"'
)
SERVER = re.compile(
    r'"(?:previous_response_id|conversation|prompt|cachedContent|container|item_reference)": ?["{]|'
    r'"type": ?"(?:web_search|web_fetch|file_search|code_|mcp|tool_search|image_generation|advisor|'
    r'memory|computer|bash_|text_editor|compaction|reasoning"|additional_tools|tool_addition)|'
    r'"(?:google_?[sS]earch|code_?[eE]xecution|file_?[sS]earch|url_?[cC]ontext)"|"mode": ?"pro"'
)
CALLS = re.compile(r'"(?:tools|functions|tool_calls|tool_use|function_call)":? ?[\[{"]?')
SCHEMA = re.compile(r'"json_schema"|"response(?:_?[jJ]son)?_?[sS]chema"|"output_(?:config|format)"')
TEXTS = frozenset({"content", "text", "output_text"})
APRIL_2025 = 1_743_465_600


class Case(NamedTuple):
    """A recorded call and our count of it."""

    protocol: str
    kind: str
    source: str
    model: str
    streaming: bool
    reported: int
    counted: PromptCount

    @property
    def off(self) -> int:
        """Tokens too many; negative is under."""
        return self.counted.input_tokens - self.reported

    @property
    def share(self) -> float:
        """Tokens too many as a fraction of what was reported."""
        return self.off / max(1, self.reported)


def rows(folder: Path, protocol: str) -> Iterator[dict[str, Any]]:
    with gzip.open(folder / f"{protocol}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["request"] and row["norm"] and row["norm"].get("input") is not None:
                yield row


def reported_input(row: dict[str, Any], protocol: str) -> int:
    """Anthropic reports what was cached apart from the rest, the others within it."""
    norm = row["norm"]
    apart = (norm.get("cached") or 0) + (norm.get("cache_creation") or 0)
    return int(norm["input"]) + (apart if protocol == "anthropic" else 0)


def kind_of(row: dict[str, Any], protocol: str) -> str:
    text = json.dumps(row["request"])
    if protocol == "openai_responses" and _created(row["raw"]) < APRIL_2025:
        return "early"
    for kind, pattern in (("server", SERVER), ("media", MEDIA), ("tools", CALLS)):
        if pattern.search(text):
            return kind
    return "schema" if SCHEMA.search(text) else "text"


def _created(raw: Any) -> float:
    text = raw if isinstance(raw, str) else json.dumps(raw)
    found = re.search(r'"created_at": ?(\d+)', text)
    return float(found[1]) if found else float("inf")


def cases(folder: Path, protocol: str) -> Iterator[Case]:
    for row in rows(folder, protocol):
        counted = count_request(row["request"], row["model"])
        yield Case(
            protocol,
            kind_of(row, protocol),
            row["source"],
            row["model"],
            row["streaming"],
            reported_input(row, protocol),
            counted,
        )


def summary(found: list[Case]) -> dict[str, Any]:
    """One line of the table."""
    many = len(found)
    return {
        "rows": many,
        "exact %": round(100 * sum(case.off == 0 for case in found) / many, 1),
        "within 2 tokens %": round(100 * sum(abs(case.off) <= 2 for case in found) / many, 1),
        "within 2 %": round(100 * sum(abs(case.share) <= 0.02 for case in found) / many, 1),
        "covered %": round(100 * sum(case.off >= 0 for case in found) / many, 1),
        "under by > 1 %": sum(case.share < -0.01 for case in found),
        "median over %": round(100 * statistics.median(case.share for case in found), 1),
    }


def table(found: list[Case]) -> list[dict[str, Any]]:
    """By protocol, kind and method."""
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in found:
        groups.setdefault((case.protocol, case.kind, case.counted.method), []).append(case)
    names = ("protocol", "kind", "method")
    return [
        dict(zip(names, key, strict=True)) | summary(groups[key])
        for key in sorted(groups, key=lambda key: (list(PATHS).index(key[0]), *key[1:]))
    ]


def visible_output(row: dict[str, Any], protocol: str) -> tuple[str, int] | None:
    """How a stream's counted text differs from its reported output without reasoning."""
    norm = row["norm"]
    if not row["streaming"] or not isinstance(row["raw"], str) or norm.get("output") is None:
        return None
    found = protocol_named(protocol)
    request = found.parse({"model": row["model"], **row["request"]}, PATHS[protocol])
    state = found.stream(request)
    texts: dict[tuple[int, str], str] = {}
    for frames in (state.feed(row["raw"].encode()), state.finish()):
        for frame in frames:
            for delta in frame.deltas:
                texts[delta.channel] = texts.get(delta.channel, "") + delta.text
    tokenizer = get_tokenizer(encoding_for_model(row["model"]).encoding)
    counted = sum(tokenizer.count(text) for text in texts.values())
    plain = all(kind.split(":")[0] in TEXTS for _, kind in texts) and bool(texts)
    hidden = norm.get("reasoning") or 0
    label = "reasoning" if hidden else "text" if plain else "tools and other"
    within = 0 if protocol == "gemini" else hidden
    return label, counted - (norm["output"] - within)


def outputs(folder: Path, protocols: list[str]) -> list[dict[str, Any]]:
    """By protocol and kind of output: how far the counted text is from the bill."""
    groups: dict[tuple[str, str], list[int]] = {}
    for protocol in protocols:
        for row in rows(folder, protocol):
            result = visible_output(row, protocol)
            if result:
                groups.setdefault((protocol, result[0]), []).append(result[1])
    return [
        {
            "protocol": protocol,
            "output": kind,
            "rows": len(offs),
            "exact %": round(100 * sum(off == 0 for off in offs) / len(offs), 1),
            "median off": statistics.median(offs),
            "most under": min(offs),
            "most over": max(offs),
        }
        for (protocol, kind), offs in groups.items()
    ]


def show(lines: list[dict[str, Any]]) -> None:
    """A Markdown table."""
    if not lines:
        return
    print("| " + " | ".join(lines[0]) + " |")
    print("|" + " --- |" * len(lines[0]))
    for line in lines:
        print("| " + " | ".join(str(value) for value in line.values()) + " |")
    print()


def listed(found: list[Case]) -> None:
    """Sources of rows that are under, or off where the count claims to be exact."""
    for case in sorted(found, key=lambda case: case.share):
        if case.off < 0 or (case.off and case.counted.method == "exact"):
            print(
                f"{case.protocol} {case.kind} {case.counted.method} {case.model} "
                f"{case.off:+d} of {case.reported} ({case.share:+.1%}) {case.source}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--truth", type=Path, required=True, help="folder of recorded calls")
    parser.add_argument("--list", action="store_true", help="name the sources of rows that are off")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="input only")
    options = parser.parse_args()
    protocols = [name for name in PATHS if (options.truth / f"{name}.jsonl.gz").exists()]
    found = [case for protocol in protocols for case in cases(options.truth, protocol)]
    result = {"input": table(found), "output": []}
    if not options.quick:
        result["output"] = outputs(options.truth, protocols)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    show(result["input"])
    show(result["output"])
    if options.list:
        listed(found)


if __name__ == "__main__":
    main()

"""Our counts against what providers reported, on a folder of recorded calls.

    python benchmarks/truth.py --truth DIR [--list] [--json] [--markdown] [--quick]

DIR holds ``PROTOCOL.jsonl.gz`` files; a row has source, model, request, streaming, raw and norm
(input, output, reasoning, cached tokens as reported). Prints a table by protocol and kind of
content; ``--list`` names the sources of rows that are off; ``--markdown`` prints the page
docs/reference/counts.md. Nothing of a row is ever shown.

The input is what was reported with what came from the cache. A kind is "text", "schema" (a
response schema), "tools" (tools or calls), "media" (images, audio, documents) or "server"
(input that only the provider can see). "early" rows were recorded before OpenAI's Responses
stopped billing its preamble, in April 2025: no request of today is billed like them.

The output is what was reported without reasoning; its residue is what we count of the texts less
that. "of tools" are texts where tools were offered.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from streamguard.core.families import CLASSIC, HARMONY, family_of
from streamguard.core.prompt import PromptCount
from streamguard.core.wire import Delta, Request, WireProtocol
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
OPENAI = frozenset({"openai_chat", "openai_responses"})
APRIL_2025 = 1_743_465_600


PAGE = {
    "input": """\
# Counts against the bill

Our counts against what providers reported, on some 1,900 recorded calls from the test suites of
public projects. The recordings are not part of this project; the page is made by

```sh
python benchmarks/truth.py --truth DIR --markdown > docs/reference/counts.md
```

where `DIR` holds `PROTOCOL.jsonl.gz` files, a row of which has `model`, `request`, `streaming`,
`raw` and `norm` (the reported `input`, `output`, `reasoning` and `cached` tokens). Some hosts are
compatible services with tokenizers of their own, and some recordings were edited by their authors.

## Input

*text*, *schema* (a response schema), *tools* (tools or calls), *media* (images, audio, documents),
*server* (input that only the provider sees, such as an earlier response) and *early*: Responses
calls from before April 2025, when the API billed a preamble that no request of today is billed
(some 18 tokens, some 216 with tools). Nothing is fitted to those. *Covered* rows are not
under-counted.
""",
    "under": """\
## Every input that is under-counted

""",
    "output": """\
## Output

The residue is what we count of the texts less what was reported without reasoning: below 0, more
was billed than can be seen. *Exact with its frame* adds what OpenAI bills around a text
([why](../explanation/where-counts-come-from.md#output-that-cannot-be-seen)). *text of tools* are
texts where tools were offered.
""",
}
"""Headings of the generated page."""


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


class Said(NamedTuple):
    """A recorded reply: its texts by channel and the tokens reported for what can be seen."""

    texts: dict[tuple[int, str], str]
    visible: int
    thought: bool

    @property
    def kind(self) -> str:
        """What the reply is made of; "reasoning" is a text after reasoning, seen or not."""
        kinds = {name.partition(":")[0] for _, name in self.texts}
        if not kinds:
            return "nothing"
        if kinds - TEXTS - {"reasoning"}:
            return "refusal" if kinds == {"refusal"} else "tool calls"
        return "reasoning" if self.thought or "reasoning" in kinds else "text"

    def counted(self, model: str) -> int:
        """Tokens of the texts."""
        tokenizer = get_tokenizer(encoding_for_model(model).encoding)
        return sum(tokenizer.count(text) for text in self.texts.values())


def said(row: dict[str, Any], protocol: str) -> Said | None:
    """The reply of a row, where it can be read and its output was reported."""
    norm, raw = row["norm"], row["raw"]
    if norm.get("output") is None or not raw:
        return None
    found = protocol_named(protocol)
    request = found.parse({"model": row["model"], **row["request"]}, PATHS[protocol])
    texts: dict[tuple[int, str], str] = {}
    for channel, text, _ in deltas(found, request, raw, streaming=row["streaming"]):
        texts[channel] = texts.get(channel, "") + text
    hidden = norm.get("reasoning") or 0
    return Said(texts, norm["output"] - (0 if protocol == "gemini" else hidden), hidden > 0)


def deltas(found: WireProtocol, request: Request, raw: Any, *, streaming: bool) -> Iterator[Delta]:
    """All texts of a response, streamed or whole."""
    if streaming and isinstance(raw, str):
        state = found.stream(request)
        for frames in (state.feed(raw.encode()), state.finish()):
            for frame in frames:
                yield from frame.deltas
    else:
        body = raw if isinstance(raw, str) else json.dumps(raw)
        yield from found.read_reply(request, body.encode()).deltas


def frame(row: dict[str, Any], protocol: str) -> int | None:
    """Tokens that OpenAI bills around a text it answers with; ``None`` where no rule is known.

    GPT-3.5 to GPT-4.5: none on Chat, but one where tools are offered (the model says whom it
    speaks to). GPT-5 and newer: three, the header of the channel. Responses: one more, the end.
    """
    family = family_of(row["model"])
    if protocol not in OPENAI or family not in (CLASSIC, HARMONY) or is_o_series(row["model"]):
        return None
    offered = bool(row["request"].get("tools"))
    header = 3 if family is HARMONY else int(offered)
    return header + (protocol == "openai_responses")


def is_o_series(model: str) -> bool:
    """Models that always think: what they bill around a text depends on how."""
    return bool(re.match(r"o\d", model))


def outputs(folder: Path, protocols: list[str]) -> list[dict[str, Any]]:
    """By protocol, kind of output and model family: the residue, counted less reported."""
    groups: dict[tuple[str, str, str, str], list[tuple[int, int | None]]] = {}
    for protocol in protocols:
        for row in rows(folder, protocol):
            if (reply := said(row, protocol)) is None:
                continue
            offered = " of tools" if row["request"].get("tools") and reply.kind == "text" else ""
            off = reply.counted(row["model"]) - reply.visible
            known = frame(row, protocol) if reply.kind == "text" else None
            stream = "stream" if row["streaming"] else "whole"
            key = (protocol, stream, reply.kind + offered, family_of(row["model"]).name)
            groups.setdefault(key, []).append((off, known))
    return [
        dict(zip(("protocol", "reply", "output", "family"), key, strict=True))
        | residue(groups[key])
        for key in sorted(groups, key=lambda key: (list(PATHS).index(key[0]), *key[1:]))
    ]


def residue(found: list[tuple[int, int | None]]) -> dict[str, Any]:
    """How far the counted text is from the bill, alone and with what is billed around it."""
    offs = [off for off, _ in found]
    framed = [off + known for off, known in found if known is not None]
    usual, times = Counter(offs).most_common(1)[0]
    return {
        "rows": len(offs),
        "exact %": share_of(offs),
        "usual residue": f"{usual:+d} ({times})",
        "lowest": min(offs),
        "median": statistics.median(offs),
        "highest": max(offs),
        "exact with its frame %": share_of(framed) if framed else "",
    }


def share_of(offs: list[int]) -> float:
    """Percentage of zeros."""
    return round(100 * sum(off == 0 for off in offs) / len(offs), 1)


def under(found: list[Case]) -> list[dict[str, Any]]:
    """Under-counts by protocol, kind and method; rows are never named, sources with --list."""
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in found:
        if case.off < 0:
            groups.setdefault((case.protocol, case.kind, case.counted.method), []).append(case)
    return [
        {
            "protocol": protocol,
            "kind": kind,
            "method": method,
            "rows": len(cases),
            "by > 1 %": sum(case.share < -0.01 for case in cases),
            "most tokens": -min(case.off for case in cases),
            "most %": round(-100 * min(case.share for case in cases), 1),
        }
        for (protocol, kind, method), cases in groups.items()
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
    parser.add_argument("--markdown", action="store_true", help="the page of the docs")
    parser.add_argument("--quick", action="store_true", help="input only")
    options = parser.parse_args()
    protocols = [name for name in PATHS if (options.truth / f"{name}.jsonl.gz").exists()]
    found = [case for protocol in protocols for case in cases(options.truth, protocol)]
    result = {"input": table(found), "under": under(found), "output": []}
    if not options.quick:
        result["output"] = outputs(options.truth, protocols)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for name, lines in result.items():
        if options.markdown:
            print(PAGE[name])
        show(lines)
    if options.list:
        listed(found)


if __name__ == "__main__":
    main()

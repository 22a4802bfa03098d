from __future__ import annotations

import json
from typing import Any

import pytest
from support.upstream import count

from streamguard import Guard, Limit
from streamguard.core.disconnect import keeps_billing
from streamguard.guard.metered import MeteredStream

pytestmark = pytest.mark.anyio

WORDS = [
    "One",
    "two",
    "three",
    "four.",
    "Five",
    "six",
    "seven",
    "eight",
    "nine.",
    "Ten",
    "eleven",
    "twelve",
]


def chunk(text: str) -> bytes:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


async def cut(limit: int, **settings: Any) -> bytes:
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with Guard([Limit(output_tokens=limit)], sinks=[], **settings) as guard:
        call = await guard.begin(await guard.subject(body, path="/v1/chat/completions"))
        stream = MeteredStream(call)
        out = b""
        for number, word in enumerate(WORDS):
            out += stream.feed(chunk(f" {word}" if number else word))
            if stream.over:
                break
        assert stream.cut
    return out


def text_of(out: bytes) -> str:
    events = [line[6:] for line in out.split(b"\n\n") if line.startswith(b"data: {")]
    choices = [one for event in events for one in json.loads(event).get("choices", ())]
    return "".join(one["delta"].get("content") or "" for one in choices)


async def test_native_is_the_protocols_own_end_at_the_exact_token():
    out = await cut(8)
    assert count(text_of(out)) == 8
    assert b'"length"' in out


async def test_strict_is_an_error_event():
    out = await cut(8, ending="strict")
    assert count(text_of(out)) == 8
    assert b"reached its budget of 8 tokens" in out
    assert b'"length"' not in out


async def test_graceful_ends_with_a_sentence():
    out = await cut(8, ending="graceful")
    assert text_of(out) == "One two three four."
    assert b'"length"' in out


@pytest.mark.parametrize(
    ("protocol", "model", "kept"),
    [
        ("openai_chat", "gpt-4o", False),
        ("anthropic", "claude-sonnet-4-5", False),
        ("openai_chat", "deepseek-chat", False),
        ("gemini", "anything", True),
        ("openai_chat", "google/gemini-2.5-pro", True),
        ("openai_chat", "mistral-large-latest", True),
        ("openai_chat", "groq/llama-3.3-70b", True),
        ("openai_chat", "us.amazon.nova-pro-v1:0", True),
    ],
)
async def test_which_providers_bill_on(protocol, model, kept):
    assert keeps_billing(protocol, model) is kept

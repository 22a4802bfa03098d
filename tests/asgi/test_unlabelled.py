"""A stream that is not labelled as one hides nothing: all its bytes are read, so all count."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asgi import BODY, WHOLE, Wire, chunk

from streamguard import Guard, Limit, StreamGuardMiddleware
from streamguard.core.streams import StreamMeter
from streamguard.protocols import protocol_named
from streamguard.protocols.unlabelled import Unlabelled, is_labelled
from streamguard.sinks.memory import ListSink
from streamguard.tokenizers.registry import get_tokenizer

pytestmark = pytest.mark.anyio

WORDS = "tide lamp fog boat bread letter " * 100
TEXTS = {
    "text": WORDS,
    "with blank lines": WORDS.replace("boat", "\n\n"),
    "like events": "data: hi\n\n" + WORDS,
    "like comments": ": " + WORDS.replace("boat", "\n: "),
    "like JSON": '{"answer": "' + WORDS + '"}',
    "like one event": "data: " + WORDS,
    "like events without output": 'data: {"tide": "' + f'{WORDS}"}}\n\ndata: {{"'.join("abcdefgh"),
    "like names": "data: {}\n\n" + WORDS.replace("boat", "\n\nevent: x\nid: "),
}


def state() -> Unlabelled:
    chat = protocol_named("openai_chat")
    return Unlabelled(chat.stream(chat.parse(BODY, "/v1/chat/completions")))


def replying(parts: list[bytes], kind: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", kind)] if kind else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


async def through(parts: list[bytes], kind: bytes) -> tuple[bytes, Any]:
    sink = ListSink()
    async with Guard([Limit(tokens=10_000, per="hour")], sinks=[sink]) as guard:
        wire = await Wire().through(StreamGuardMiddleware(replying(parts, kind), guard=guard))
    return wire.body, sink.events[-1]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("kind", [b"text/plain; charset=utf-8", b"text/html", b""])
async def test_text_is_cut_at_its_budget_whatever_it_looks_like(text, kind):
    data = text.encode()
    body, event = await through([data[at : at + 40] for at in range(0, len(data), 40)], kind)
    assert (event.outcome, event.charged.output_tokens) >= ("cut", 50)
    assert len(body) < (800 if 'tide": ' not in text else 17_000)


async def test_events_that_are_labelled_as_text_are_read_as_events():
    body, event = await through(WHOLE, b"text/plain")
    assert body == b"".join(WHOLE)
    assert (event.outcome, event.charged.output_tokens) == ("completed", 2)
    body, event = await through([chunk(WORDS)], b"text/plain")
    assert event.outcome == "cut"
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("media", "labelled"),
    [
        ("text/event-stream; charset=utf-8", True),
        ("application/x-ndjson", True),
        ("application/json", True),
        ("application/stream+json", True),
        ("text/plain", False),
        (None, False),
    ],
)
def test_what_names_a_stream(media, labelled):
    assert is_labelled(media) is labelled


@given(st.lists(st.sampled_from([b"data: {}", b": x", b"\n", b"\n\n", b"id: 7", b"e", b" tide"])))
def test_no_line_beside_the_data_goes_uncounted(parts):
    meter, sent = StreamMeter(state(), get_tokenizer("o200k_base")), b"".join(parts)
    assert b"".join(map(meter.feed, parts)) + meter.finish() == sent
    strays = [line for line in sent.split(b"\n") if line.strip() not in (b"", b"data: {}")]
    assert meter.observed or not strays


def test_an_untouched_stream_ends_as_nothing():
    untouched = state()
    assert (untouched.ended, untouched.served.model, untouched.reported.output_tokens) == (
        False, "", None,
    )  # fmt: skip
    assert untouched.end("cut", untouched.reported) == b""
    assert list(untouched.feed(b" ")) == []
    assert [frame.raw for frame in untouched.finish()] == [b" "]

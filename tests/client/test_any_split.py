"""Whatever the split of the bytes, the budget and the point where the caller leaves."""

from __future__ import annotations

import asyncio

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st
from support.books import HELLO, Books
from support.texts import SAMPLES
from support.upstream import count
from support.wire import chat_stream, chat_text

from streamguard import Limit

CHAT = {
    "model": "gpt-4o",
    "messages": HELLO,
    "stream": True,
    "stream_options": {"include_usage": True},
}
URL = "http://provider/v1/chat/completions"


class Parts(httpx2.AsyncByteStream):
    """Bytes in pieces; says how often it was closed."""

    def __init__(self, data, sizes):
        self.data, self.sizes, self.closed = data, sizes, 0

    async def __aiter__(self):
        at, turn = 0, 0
        while at < len(self.data):
            size = self.sizes[turn % len(self.sizes)]
            yield self.data[at : at + size]
            at, turn = at + size, turn + 1

    async def aclose(self):
        self.closed += 1


def answering(parts):
    headers = {"content-type": "text/event-stream"}
    return httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, stream=parts))


async def read(book, parts, most):
    """The bytes a client gets that leaves after ``most`` pieces."""
    client = book.guard.wrap(httpx2.AsyncClient(transport=answering(parts)))
    got = b""
    async with client, client.stream("POST", URL, json=CHAT) as answer:
        pieces = 0
        async for piece in answer.aiter_raw():
            got += piece
            pieces += 1
            if pieces == most:
                break
    balance = await book.balance()
    return got, balance


@given(
    text=st.sampled_from([text[:240] for text in SAMPLES.values()]),
    words=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=5),
    budget=st.integers(1, 160),
    most=st.one_of(st.none(), st.integers(1, 20)),
)
@settings(max_examples=60, deadline=None)
def test_one_settle_an_exact_cut_and_untouched_bytes(text, words, sizes, budget, most):
    pieces = [text[at : at + words] for at in range(0, len(text), words)]
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": count(text),
        "total_tokens": 12 + count(text),
    }
    sent = chat_stream(pieces, usage=usage)
    book, parts = Books(Limit(output_tokens=budget)), Parts(sent, sizes)
    got, balance = asyncio.run(read(book, parts, most))
    ended = book.ended
    assert [event.event for event in ended] == ["settled"]
    assert balance.held == 0
    assert balance.used == sum(book.charged[0])
    assert parts.closed == 1
    shown = chat_text(got[: got.rfind(b"\n\n") + 2])
    assert text.startswith(shown)
    assert count(shown) <= budget
    if ended[0].outcome == "cut" and most is None:
        assert got.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"length"' in got
        assert count(text[: len(shown) + 1]) > budget
    elif ended[0].outcome != "cut":
        assert sent.startswith(got)
        assert most is not None or got == sent

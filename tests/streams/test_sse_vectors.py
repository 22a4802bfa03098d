"""WHATWG HTML §9.2.6, vector by vector: the format cases of web-platform-tests, own inputs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire import pieces_of

from streamguard.core.sse import Event, EventSplitter, encode
from streamguard.errors import ProtocolError

BOM = b"\xef\xbb\xbf"

# ruff: noqa: E501
# case: (bytes, [(data, event type, last event id)])
VECTORS = {
    "bom": (BOM + b"data:a\n\n" + BOM + b"data:b\n\ndata:c\n\n", [("a",), ("c",)]),
    "bom-2": (BOM * 2 + b"data:a\n\ndata:b\n\n", [("b",)]),
    "comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + b"y" * 3000 + b"\rdata:3\n:data:no\r:z\ndata:4\n\n",
        [("1\n2\n3\n4",)],
    ),
    "data-before-final-empty-line": (
        b"retry:1000\ndata:done\n\nid:lost\ndata:not dispatched",
        [("done",)],
    ),
    "data-one-newline-at-the-end": (b"data:done\n\ndata:lost\n", [("done",)]),
    "field-data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", [("",), ("\n",), ("test",)]),
    "field-event": (
        b"event:other\ndata:x\n\ndata:y\n\n",
        [("x", "other"), ("y", "message")],
    ),
    "field-event-empty": (b"event: \ndata:data\n\n", [("data", "message")]),
    "field-event-resets-without-data": (b"event:other\n\ndata:x\n\n", [("x", "message")]),
    "field-event-last-wins": (b"event:a\nevent:b\ndata:x\n\n", [("x", "b")]),
    "field-id": (
        "id:…\ndata:a\n\ndata:b\n\n".encode(),
        [("a", "message", "…"), ("b", "message", "…")],
    ),
    "field-id-3-persists": (
        b"id:1\ndata:a\n\ndata:b\n\nid:2\ndata:c\n\n",
        [("a", "message", "1"), ("b", "message", "1"), ("c", "message", "2")],
    ),
    "field-id-3-resets": (
        b"id:1\ndata:a\n\nid:\ndata:b\n\nid:3\ndata:c\n\nid\ndata:d\n\n",
        [("a", "message", "1"), ("b", "message", ""), ("c", "message", "3"), ("d", "message", "")],
    ),
    "field-id-without-data": (b"id:7\n\ndata:a\n\n", [("a", "message", "7")]),
    "field-id-null": (
        b"id:\0\0\ndata:a\n\nid:x\0\ndata:b\n\nid:\0x\ndata:c\n\nid:x\0x\ndata:d\n\n",
        [(letter, "message", "") for letter in "abcd"],
    ),
    "field-parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rd\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [("\0\n 2\n1\n3\n\n4",)],
    ),
    "field-retry": (b"retry:3000\ndata:x\n\n", [("x",)]),
    "field-retry-bogus": (b"retry:3000\nretry:1000x\ndata:x\n\n", [("x",)]),
    "field-retry-empty": (b"retry\ndata:test\n\n", [("test",)]),
    "retry-only": (b"retry:3000\n\ndata:x\n\n", [("x",)]),
    "field-unknown": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:comment\ndata:test\n\n",
        [("test\n\ntest",)],
    ),
    "leading-space": (b"data:\ttest\rdata: \ndata:test\n\n", [("\ttest\n\ntest",)]),
    "newlines": (b"data:test\r\ndata\ndata:test\r\n\r", [("test\n\ntest",)]),
    "newlines-crlf": (b"data:a\r\n\r\ndata:b\r\n\r\n", [("a",), ("b",)]),
    "newlines-cr": (b"data:a\r\rdata:b\r\r", [("a",), ("b",)]),
    "newlines-mixed-blank": (b"data:a\n\r\ndata:b\r\n\ndata:c\r\n\rdata:d\n\n", "abcd"),
    "null-character": (b"data:\0\n\n", [("\0",)]),
    "utf-8": ("data:ok…\n\n".encode(), [("ok…",)]),
    "utf-8-replaced": (
        b"data:\xff\xe2\x82|\xed\xa0\x80\n\n",
        [("\ufffd\ufffd|\ufffd\ufffd\ufffd",)],
    ),
    "line-separator-is-no-newline": (
        "data:a\u2028b\x85c\x0bd\n\n".encode(),
        [("a\u2028b\x85c\x0bd",)],
    ),
    "keep-alive": (b": ping\n: ping\ndata:a\n\n:\n\n\n\ndata:b\n\n: end\n", [("a",), ("b",)]),
    "blank-lines-first": (b"\n\r\n\rdata:a\n\n", [("a",)]),
}


def expected(name: str) -> list[tuple[str, str, str]]:
    return [(*row, "message", "")[: max(3, len(row))] if len(row) == 1
            else (*row, "")[:3] if len(row) == 2 else row for row in VECTORS[name][1]]  # fmt: skip


def split(pieces: list[bytes]) -> tuple[bytes, list[tuple[str, str, str]]]:
    """What a reader sees of the pieces, and the bytes handed on."""
    splitter = EventSplitter()
    events: list[Event] = []
    for piece in pieces:
        events += splitter.feed(piece)
    events += splitter.finish()
    seen = [
        (event.data.decode("utf-8", "replace"), event.name, event.last_id)
        for event in events
        if event.data is not None
    ]
    return b"".join(event.raw for event in events), seen


@pytest.mark.parametrize("name", VECTORS)
def test_vector_whole(name):
    text = VECTORS[name][0]
    assert split([text]) == (text, expected(name))


@pytest.mark.parametrize("name", VECTORS)
def test_vector_at_every_two_way_split(name):
    text = VECTORS[name][0]
    for at in range(len(text) + 1):
        assert split([text[:at], text[at:]]) == (text, expected(name)), at


@pytest.mark.parametrize("name", VECTORS)
def test_vector_byte_by_byte(name):
    text = VECTORS[name][0]
    assert split([text[at : at + 1] for at in range(len(text))]) == (text, expected(name))


LINES = st.sampled_from(
    [b"data: x", b"data", b"data:", b":c", b"event: e", b"id: 4", b"", b"", b"\xff", b"junk", BOM]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS)).map(
    lambda rows: b"".join(line + end for line, end in rows)
)


@given(STREAMS, st.lists(st.integers(0, 200)))
def test_any_split_reads_the_same(text, cuts):
    assert split(pieces_of(text, cuts)) == split([text])


def test_keep_alives_are_handed_on_at_once():
    splitter = EventSplitter()
    assert [event.raw for event in splitter.feed(b": ping\n")] == [b": ping\n"]
    assert [event.raw for event in splitter.feed(b"data: half")] == []
    assert [event.raw for event in splitter.feed(b"\n: inside\n")] == []
    assert [event.raw for event in splitter.feed(b"\n")] == [b"data: half\n: inside\n\n"]


def test_salvage_reads_an_unterminated_event():
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: x")) == []
    assert [event.data for event in splitter.finish(salvage=True)] == [b"x"]


def test_events_are_made_as_they_are_taken():
    splitter = EventSplitter()
    first = next(splitter.feed(b"data: a\n\ndata: b\n\n"))
    assert first.data == b"a"
    assert [event.data for event in splitter.feed(b"")] == [b"b"]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_event_over_the_cap_is_an_error(size):
    splitter = EventSplitter(max_event=50)
    text = b"data: ok\n\ndata: " + b"x" * 60 + b"\n\n"
    seen = []
    with pytest.raises(ProtocolError, match="over 50 bytes"):
        seen.extend(
            event.data
            for at in range(0, len(text), size)
            for event in splitter.feed(text[at : at + size])
        )
    assert seen in ([b"ok"], [])


def test_only_takes_exactly_one_whole_one_line_event():
    splitter = EventSplitter(max_event=50)
    assert splitter.only(b'data: {"a":1}\n\n') == b'{"a":1}'
    assert splitter.only(b"data: x\r\n\r\n") == b"x"
    assert splitter.only(b"event: e\ndata: x\n\n") == b"x"
    assert splitter.only(b"event: error\ndata: x\n\n") is None
    for other in (
        b"data: a\n",
        b"data: a\n\n\n",
        b"data: a\ndata: b\n\n",
        b"data: a\n\ndata: b\n\n",
        b"data:a\n\n",
        b"data: a\r\n\n",
        b"data: a\r\n\r\n\r\n",
        b"data: a\ndata: b\r\n\r\n",
        b"event: x\r\ndata: b\r\n\r\n",
        b"event: x\n\n",
        b"\n\n",
        b"",
        b"data: " + b"x" * 50 + b"\n\n",
    ):
        assert splitter.only(other) is None
    list(splitter.feed(b"data: held"))
    assert splitter.only(b"data: a\n\n") is None


def test_no_bom_is_skipped_after_the_first_event():
    for first in (b"data: a\n\n", b": ping\n"):
        splitter = EventSplitter()
        if splitter.only(first) is None:
            list(splitter.feed(first))
        (event,) = splitter.feed(BOM + b"data: b\n\n")
        assert event.data is None


def test_encode_reads_back():
    (event,) = EventSplitter().feed(encode(b"{}", "ping"))
    assert (event.data, event.name) == (b"{}", "ping")
    assert encode(b"[DONE]") == b"data: [DONE]\n\n"

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.core.strict_json import dumps, loads
from streamguard.errors import ProtocolError

SECRET = "do-not-show"

REFUSED = {
    "duplicate": (b'{"a": 1, "a": 2}', r"duplicate key at \$\.a"),
    "duplicate by escape": (b'{"a": 1, "\\u0061": 2}', r"duplicate key at \$\.a"),
    "duplicate inside": (b'{"a": [{}, {"b": {"k": 1, "k": 1}}]}', r"\$\.a\[1\]\.b\.k"),
    "duplicate after others": (b'{"a": [{"b": 1}, [2], null], "b": {"c": 1, "c": 2}}', r"\$\.b\.c"),
    "odd duplicate key": (b'{"do-not-show": 1, "do-not-show": 2}', r"duplicate key at \$\.…"),
    "NaN": (b'{"a": NaN}', "not valid JSON at byte 6"),
    "Infinity": (b'{"a": -Infinity}', "not valid JSON at byte 7"),
    "1e400": (b'{"a": 1e400}', "out of range"),
    "-1e400": (b'{"a": -1e400}', "out of range"),
    "5000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "out of range"),
    "lone surrogate": (b'{"a": "\\ud800"}', "not valid JSON"),
    "reversed surrogates": (b'{"a": "\\udc00\\ud800"}', "not valid JSON"),
    "encoded surrogate": (b'{"a": "\xed\xa0\x80"}', "not UTF-8 at byte 7"),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
    "BOM": (b"\xef\xbb\xbf{}", "not valid JSON at byte 0"),
    "empty": (b"", "not valid JSON"),
    "list": (b"[]", "must be a JSON object"),
    "string": (b'"do-not-show"', "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "truncated": (b'{"a": "do-not-show', "not valid JSON"),
    "trailing": (b'{"a": 1} "do-not-show"', "not valid JSON"),
    "control character": (b'{"a": "\n"}', "not valid JSON"),
    "leading zero": (b'{"a": 01}', "not valid JSON"),
    "single quotes": (b"{'a': 1}", "not valid JSON"),
    "comment": (b'{"a": 1 /* do-not-show */}', "not valid JSON"),
    "trailing comma": (b'{"a": 1,}', "not valid JSON"),
    "depth 65": (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
    "list depth 65": (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64"),
    "depth 5000": (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "deeper than 64"),
    "depth 300000": (b"[" * 300_000, "deeper than 64|not valid JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_place_and_no_value(name):
    body, where = REFUSED[name]
    with pytest.raises(ProtocolError, match=where) as caught:
        loads(body)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_deep_but_not_too_deep():
    body = b'{"a":' * 63 + b"{}" + b"}" * 63
    assert loads(body) == json.loads(body)
    with pytest.raises(ProtocolError, match="deeper than 3 levels"):
        loads(b'{"a":{"b":{"c":{}}}}', max_depth=3)


def test_the_parser_itself_may_run_out_of_stack():
    """A low recursion limit must give the same clear refusal."""
    limit = sys.getrecursionlimit()
    body = b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"
    with pytest.raises(ProtocolError, match="deeper than 64"):
        loads(body)
    assert sys.getrecursionlimit() == limit


def test_kept_as_they_are():
    body = '{"é": "\\ud83d\\ude00 \\u0000", "big": 123456789012345678901234567890, "f": 1.5}'
    value = loads(body.encode())
    assert value == {"é": "😀 \0", "big": 123456789012345678901234567890, "f": 1.5}
    assert loads(dumps(value)) == value


def test_dumps_is_compact_and_bounded():
    assert dumps({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()
    deep: list[object] = []
    for _ in range(1_000_000):  # Python 3.14 and later go as deep as their stack
        deep = [deep]
    with pytest.raises(ProtocolError, match="too deeply"):
        dumps(deep)
    while deep:  # taken apart gently: freeing it at once would recurse as deep
        deep = deep.pop()  # type: ignore[assignment]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=5))
def test_everything_sound_reads_as_the_standard_library_does(value):
    body = json.dumps(value).encode()
    assert loads(body) == json.loads(body)


@given(st.binary(max_size=60))
def test_any_bytes_give_an_object_or_a_protocol_error(body):
    try:
        value = loads(b'{"a":' + body + b"}")
    except ProtocolError:
        return
    assert isinstance(value, dict)

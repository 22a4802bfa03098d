"""A body of a few megabytes must not hold a million things to render."""

from __future__ import annotations

import pytest

from streamguard import ProtocolError
from streamguard.core.strict_json import loads


@pytest.mark.parametrize("item", [b"{}", b"[]", b'""', b'{"a":[1]}'])
def test_too_many_values_are_refused(item):
    body = b'{"messages":[' + b",".join([item] * 100_001) + b"]}"
    with pytest.raises(ProtocolError, match="too many values"):
        loads(body)


def test_long_lists_of_token_ids_and_long_texts_pass():
    ids = b'{"prompt":[' + b",".join([b"17"] * 400_000) + b"]}"
    assert len(loads(ids)["prompt"]) == 400_000
    text = b'{"messages":[' + b",".join([b'{"content":"x"}'] * 50_000) + b"]}"
    assert len(loads(text)["messages"]) == 50_000
    with pytest.raises(ProtocolError, match="too many values"):
        loads(b'{"prompt":[' + b",".join([b"1"] * 500_001) + b"]}")

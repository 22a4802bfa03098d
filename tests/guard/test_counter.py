from __future__ import annotations

from typing import Any

import pytest

from streamguard import Guard, Usage
from streamguard.core.billing import Spent
from streamguard.guard.counter import weight

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({}, 0),
        ({"prompt": "abcd"}, 4),
        ({"messages": [{"content": "abcd"}, {"content": [{"text": "ab"}, {"text": 3}, 4]}]}, 134),
        ({"input": ["abc", {"content": None}]}, 131),
        ({"contents": [{"parts": [{"text": "abc"}]}]}, 67),
        ({"messages": {"content": "abcd"}}, 0),
    ],
)
def test_weight_is_about_the_text(body, size):
    assert weight(body) == size


async def test_reports_correct_the_estimates():
    body: dict[str, Any] = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "The keeper wrote letters. " * 40}],
    }
    async with Guard(sinks=[]) as guard:
        before = await guard.preflight(body, path="/v1/messages")
        for _ in range(25):
            call = await guard.begin(await guard.subject(body, path="/v1/messages"))
            reported = Usage(before.input_tokens * 2, 5)
            await call.finish(Spent("completed", Usage(output_tokens=5), reported))
        after = await guard.preflight(body, path="/v1/messages")
    assert after.input_tokens >= before.input_tokens * 2
    assert after.count.method == "calibrated"

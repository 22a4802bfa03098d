"""Whoever is charged is an Identity: anything else is told at once, with what to write."""

from __future__ import annotations

import httpx
import pytest

from streamguard import ConfigurationError, Guard, Identity

pytestmark = pytest.mark.anyio

BODY = {"model": "gpt-4o", "messages": []}
PATH = "/v1/chat/completions"


async def texts():
    yield "hi"


@pytest.mark.parametrize("wrong", ["acme", {"tenant": "acme"}, 5])
async def test_what_is_no_identity_is_refused_with_what_to_write(wrong):
    asks = (
        lambda guard: guard.stream(texts(), model="gpt-4o", identity=wrong),
        lambda guard: guard.wrap(httpx.AsyncClient(), identity=wrong),
    )
    async with Guard(sinks=[]) as guard:
        for ask in asks:
            with pytest.raises(ConfigurationError, match=r"Identity\(tenant='acme'\)"):
                ask(guard)
        with pytest.raises(ConfigurationError, match=f"not a {type(wrong).__name__}"):
            await guard.preflight(BODY, identity=wrong)
        for empty in ("", 0):
            with pytest.raises(ConfigurationError, match="must be an Identity"):
                await guard.preflight(BODY, identity=empty)


@pytest.mark.parametrize("part", ["tenant", "user", "feature"])
def test_its_parts_are_texts(part):
    with pytest.raises(
        ConfigurationError, match=rf"Identity\({part}=…\) must be a string, not int"
    ):
        Identity(**{part: 5})

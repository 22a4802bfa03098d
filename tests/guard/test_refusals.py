"""A remembered refusal holds for those it would meet anyway, and for nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from streamguard import (
    BudgetExceededError,
    ContextWindowExceededError,
    Guard,
    Identity,
    Limit,
    OversizedRetryError,
)

pytestmark = pytest.mark.anyio

LONG = "word " * 20_000


@pytest.mark.parametrize(
    ("small", "large", "body"),
    [
        (
            "/openai/deployments/gpt-4/chat/completions",
            "/openai/deployments/gpt-4o/chat/completions",
            {"messages": [{"role": "user", "content": LONG}]},
        ),
        (
            "/v1beta/models/gemma-7b:generateContent",
            "/v1beta/models/gemini-2.5-pro:generateContent",
            {"contents": LONG},
        ),
    ],
)
async def test_a_model_that_the_path_names_is_part_of_the_request(small, large, body: Any):
    error = ContextWindowExceededError("too long")
    async with Guard([], sinks=[]) as guard:
        guard.learn_oversized(body, error, (await guard.subject(body, path=small)).request.model)
        with pytest.raises(OversizedRetryError):
            await guard.preflight(body, path=small)
        assert (await guard.preflight(body, path=large)).input_tokens > 10_000


async def test_a_limit_of_one_tenant_refuses_no_other():
    limit = Limit(input_tokens=5, per="request", where={"tenant": "small"}, name="r")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 50}]}
    async with Guard([limit], sinks=[]) as guard:
        for refused in (BudgetExceededError, OversizedRetryError):
            with pytest.raises(refused):
                await guard.preflight(body, identity=Identity(tenant="small"))
        await guard.preflight(body, identity=Identity(tenant="large"))


async def test_who_sends_what_somebody_else_was_refused_for_does_not_learn_who_that_was():
    limit = Limit(input_tokens=5, per="request", scope=("tenant", "user"), name="r")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 50}]}
    async with Guard([limit], sinks=[]) as guard:
        with pytest.raises(BudgetExceededError):
            await guard.preflight(body, identity=Identity("acme", "ann"))
        with pytest.raises(OversizedRetryError) as refused:
            await guard.preflight(body, identity=Identity("other", "bob"))
        assert refused.value.scope == {"tenant": "other", "user": "bob"}
        assert refused.value.first.scope == refused.value.scope
        with pytest.raises(OversizedRetryError) as again:
            await guard.preflight(body, identity=Identity("acme", "ann"))
        assert again.value.scope == {"tenant": "acme", "user": "ann"}

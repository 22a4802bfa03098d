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
from streamguard.core.billing import Spent
from streamguard.guard.context import current_call

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


async def test_nobody_learns_what_other_tenants_were_refused_for():
    limit = Limit(input_tokens=5, per="request", scope=("tenant", "user"), name="r")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 50}]}
    others = [Identity("other", "ann"), Identity(user="ann"), Identity(user="bob"), Identity()]
    async with Guard([limit], sinks=[]) as guard:
        for first in (Identity("acme", "ann"), *others):
            with pytest.raises(BudgetExceededError):
                await guard.preflight(body, identity=first)
        with pytest.raises(OversizedRetryError) as again:
            await guard.preflight(body, identity=Identity("acme", "bob"))
        assert again.value.scope == {"tenant": "acme", "user": "bob"}
        assert again.value.first.scope == again.value.scope


async def test_what_a_provider_refused_is_remembered_of_who_sent_it():
    error, path = ContextWindowExceededError("too long"), "/v1/chat/completions"
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": LONG}]}
    ann, bob = Identity("acme", "ann"), Identity("other", "bob")
    async with Guard([], sinks=[]) as guard:
        outer = await guard.subject({**body, "messages": []}, path=path, identity=ann)
        call = await guard.begin(outer)
        token = current_call.set(call)
        guard.learn_oversized(body, error)
        current_call.reset(token)
        call.learn_oversized(error)
        for sent in (body, {**body, "messages": []}):
            with pytest.raises(OversizedRetryError):
                await guard.preflight(sent, identity=ann)
            await guard.preflight(sent, identity=bob)
        await call.finish(Spent("completed"))

"""A retry loop that waits for what can succeed and never repeats what cannot.

It talks to a model server of its own that is out of breath at first, and that has a small context
window; no key is needed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from openai import APIStatusError, AsyncOpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from streamguard import Guard, retry_policy
from streamguard.cli.serving import serving

calls: list[int] = []


async def model(request: Request) -> JSONResponse:
    """Busy twice; then an answer, or a 400 for prompts that are too long for it."""
    prompt = str((await request.json())["messages"])
    calls.append(len(prompt))
    if len(calls) <= 2:
        return JSONResponse({"error": {"message": "busy"}}, 429, {"retry-after": "0.1"})
    if len(prompt) > 10_000:
        code = "context_length_exceeded"
        return JSONResponse({"error": {"message": "too long", "code": code}}, 400)
    message = {"role": "assistant", "content": "Here you are."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    return JSONResponse({"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
                         "choices": [choice], "usage": usage})  # fmt: skip


async def ask(guard: Guard, client: AsyncOpenAI, text: str) -> str | None:
    """One question, tried again where that can help."""
    messages: list[Any] = [{"role": "user", "content": text}]
    async for attempt in retry_policy(guard, attempts=5, initial_wait=0.05):
        with attempt:
            reply = await client.chat.completions.create(model="gpt-4o", messages=messages)
            return reply.choices[0].message.content
    return None


async def main(url: str) -> None:
    """A busy model is waited for; a prompt that is too long is sent once, by anybody."""
    async with (
        Guard(sinks=()) as guard,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as plain,
    ):
        client = guard.wrap(plain)
        print("answer:", await ask(guard, client, "Please."), f"after {len(calls)} requests")

        long = "word " * 5_000
        for _ in range(100):  # a loop outside that knows no better
            try:
                await ask(guard, client, long)
            except APIStatusError as error:
                last = f"{error.status_code} {error.code}"
        print(f"too long: {last}; {sum(size > 10_000 for size in calls)} of 100 reached the model")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/chat/completions", model, methods=["POST"])])
    with serving(app) as served:
        asyncio.run(main(served))

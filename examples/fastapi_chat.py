"""A FastAPI chat endpoint with budgets.

Run it with ``uvicorn examples.fastapi_chat:app`` and OPENAI_API_KEY set, then:

    curl -N localhost:8000/v1/chat/completions -H 'authorization: Bearer key-of-acme' \\
        -H 'content-type: application/json' \\
        -d '{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "Hi!"}]}'

As a script it needs no key: it serves itself with the demo's model server and shows a reply being
cut. From a clone: ``uv run --with fastapi python examples/fastapi_chat.py``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

from streamguard import Guard, Identity, Limit, StreamGuardMiddleware

TENANTS = {"Bearer key-of-acme": "acme"}  # your own authentication stands here

guard = Guard(
    limits=[
        Limit(input_tokens=8_000),
        Limit(output_tokens=60),
        Limit(cost="5.00", per="day", scope=("tenant",)),
    ]
)


def identify(scope: Mapping[str, Any]) -> Identity:
    """Who is charged, from what the key proves."""
    headers = dict(scope["headers"])
    return Identity(tenant=TENANTS.get(headers.get(b"authorization", b"").decode("latin-1")))


app = FastAPI()
app.add_middleware(StreamGuardMiddleware, guard=guard, identify=identify)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> StreamingResponse:
    """Pass the chat on to the model and stream the answer back."""
    model = AsyncOpenAI(base_url=os.environ.get("OPENAI_BASE_URL"))
    chunks = await model.chat.completions.create(**await request.json())

    async def lines() -> AsyncIterator[str]:
        async with model, chunks:
            async for chunk in chunks:
                yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def main(url: str) -> None:
    """Talk to the app as any client does."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="key-of-acme") as client:
        stream = await client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "Write me an essay on budgets."}],
            stream=True,
        )
        async for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="")
                if choice.finish_reason:
                    print(f"\n\nfinish_reason: {choice.finish_reason}")


if __name__ == "__main__":
    from streamguard.cli.serving import serving
    from streamguard.cli.upstream import DemoUpstream

    with serving(DemoUpstream(context_window=128_000).app) as upstream, serving(app) as here:
        os.environ |= {"OPENAI_BASE_URL": f"{upstream}/v1", "OPENAI_API_KEY": "none"}
        asyncio.run(main(here))

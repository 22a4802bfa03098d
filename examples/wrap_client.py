"""An OpenAI client with budgets: the same object, the same methods.

Set OPENAI_API_KEY and OPENAI_BASE_URL to use a model of yours; without a key it starts the demo's
model server.
"""

from __future__ import annotations

import asyncio
import os

from openai import APIStatusError, AsyncOpenAI

from streamguard import Guard, Identity, Limit

guard = Guard(
    limits=[
        Limit(input_tokens=1_000),
        Limit(tokens=100_000, per="day", scope=("feature",)),
    ]
)


async def main() -> None:
    """One call that fits, one that does not."""
    async with guard, AsyncOpenAI() as plain:
        client = guard.wrap(plain, identity=Identity(feature="summaries"))

        reply = await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "Sum up: all is well."}]
        )
        print("the model said:", reply.choices[0].message.content)

        try:
            await client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "Sum up: " + "blah " * 2_000}]
            )
        except APIStatusError as error:
            print("refused, and never sent:", error.status_code, error.message)


if __name__ == "__main__":
    if "OPENAI_API_KEY" in os.environ:
        asyncio.run(main())
    else:
        from streamguard.cli.serving import serving
        from streamguard.cli.upstream import DemoUpstream

        with serving(DemoUpstream(context_window=128_000).app) as url:
            os.environ |= {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "none"}
            asyncio.run(main())

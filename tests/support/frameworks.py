"""Agent frameworks that a guide names, each in the version it names, in an environment of uv's.

Run as a script there, it calls the guide's code against the demo's model server, and prints what
came of it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.repo import ROOT, blocks

GUIDE = ROOT / "docs" / "how-to" / "frameworks.md"
SHORT, LONG = "Hello", "word " * 40_000


def versions() -> dict[str, str]:
    """The frameworks' names on the package index, and the versions that the guide tells of."""
    told = re.search(r"^Tried with (.*?)\.$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert told
    return dict(re.findall(r"`([\w-]+)(?:\[\w+\])?==([\d.]+)`", told[1]))


@functools.cache
def python() -> list[str]:
    """The command of a Python that has them; skips the test, with the reason, where none can be."""
    import pytest

    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    words = ["uv", "run", "--quiet", "--no-project", "--python", sys.executable]
    for name, version in versions().items():
        words += ["--with", f"{name}{'[openai]' * name.startswith('pydantic')}=={version}"]
    words += ["--with-editable", str(ROOT), "python"]
    try:
        subprocess.run([*words, "-c", ""], check=True, capture_output=True, timeout=110)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"uv could not install the frameworks: {type(error).__name__}")
    return words


def tried(name: str) -> Any:
    """What came of a framework's calls; see ``calls``."""
    env = os.environ | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }
    words = [*python(), __file__, name]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


Ask = Callable[[str], Awaitable[str]]


def langchain(page: dict[str, Any], **options: Any) -> Ask:
    model = page["langchain_model"]("acme", **options)

    async def ask(question: str) -> str:
        reply = await model.ainvoke(question)
        assert (await asyncio.to_thread(model.invoke, question)).content == reply.content
        return f"{reply.response_metadata['finish_reason']}: {reply.content}"

    return ask


def pydantic_ai(page: dict[str, Any], **options: Any) -> Ask:
    agent = page["pydantic_agent"]("acme", **options)

    async def ask(question: str) -> str:
        done = await agent.run(question)
        return f"{done.response.finish_reason}: {done.output}"

    return ask


def openai_agents(page: dict[str, Any], **options: Any) -> Ask:
    from agents import Runner

    agent = page["openai_agent"]("acme", **options)

    async def ask(question: str) -> str:
        return f"?: {(await Runner.run(agent, question)).final_output}"

    return ask


def litellm(page: dict[str, Any], **options: Any) -> Ask:
    async def ask(question: str) -> str:
        (choice,) = (await page["litellm_answer"]("acme", question, **options)).choices
        return f"{choice.finish_reason}: {choice.message.content}"

    return ask


async def calls(page: dict[str, Any], make: Callable[..., Ask], url: str, books: list[Any]) -> Any:
    """An answer, the refusal of a prompt that is too long, and a cut answer."""
    from streamguard import Guard, Limit

    ask = make(page, base_url=f"{url}/v1", api_key="none")
    answer, before = await ask(SHORT), len(books)
    told = {"answer": answer, **await refusal(ask), "sent": len(books) - before}
    page["guard"] = Guard(limits=[Limit(output_tokens=3)], sinks=[])
    ask = make(page, base_url=f"{url}/v1", api_key="none")
    return {**told, "cut": await ask(SHORT)}


async def refusal(ask: Ask) -> dict[str, Any]:
    """What a framework makes of a refused call."""
    try:
        await ask(LONG)
    except Exception as error:  # noqa: BLE001
        kinds, causes = ([kind.__name__ for kind in type(each).__mro__]
                         for each in (error, error.__cause__))  # fmt: skip
        status = getattr(error, "status_code", None)
        return {"kinds": kinds, "causes": causes, "status": status, "text": str(error)}
    raise AssertionError("the long prompt was not refused")


def main(name: str) -> None:
    """Call the guide's code for one framework, and print what came of it."""
    from streamguard.cli.serving import serving
    from streamguard.cli.upstream import DemoUpstream

    page: dict[str, Any] = {"__name__": "page"}
    for block in blocks(GUIDE):
        if block.language == "python":
            exec(compile(block.code, str(block), "exec"), page)
    model = DemoUpstream(context_window=128_000)
    with serving(model.app) as url:
        told = asyncio.run(calls(page, globals()[name], url, model.books))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What README and docs show beside Python: commands are run, files are read."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from support.repo import ROOT, Block, blocks, pages

from streamguard import cli
from streamguard.gateway.config import read_gateway
from streamguard.guard.config import read_config
from streamguard.identity import Identity
from streamguard.sinks.ledger import LedgerSink
from streamguard.usage import Usage, UsageEvent

EVERYWHERE = [block for page in pages() for block in blocks(page)]
LONG_RUNNING = {"serve", "demo"}
TUTORIAL = ROOT / "docs" / "tutorial" / "first-guarded-app.md"  # test_tutorial.py runs it
BEFORE = re.compile(r"^(\w+=\S+ )*(opentelemetry-instrument -- )?")
REQUEST = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}]}


def ours(page: Path) -> list[str]:
    """The page's ``streamguard`` command lines, in order, without what stands before them."""
    lines = [line for b in blocks(page) if b.language == "sh" for line in b.code.splitlines()]
    bare = [BEFORE.sub("", line) for line in lines]
    return [line for line in bare if line.startswith("streamguard ")]


def write_files(page: Path, folder: Path) -> None:
    """What a reader of the page has: its TOML files, a text, requests, a log and a ledger."""
    for block in blocks(page):
        if block.language == "toml":
            (folder / block.code.split()[1]).write_text(block.code)
    (folder / "models" / "llama-3").mkdir(parents=True)
    (folder / "models" / "llama-3" / "tokenizer.json").write_text("{}")
    (folder / "essay.txt").write_text("A budget is a promise about the future.")
    (folder / "request.json").write_text(json.dumps(REQUEST))
    (folder / "rows.jsonl").write_text(json.dumps({"model": "gpt-4o", "request": REQUEST}))
    row = {"at": 1_790_000_000, "input_tokens": 900, "output_tokens": 90, "tenant": "acme"}
    (folder / "events.jsonl").write_text(json.dumps(row))


async def fill(url: str) -> None:
    """Some calls of the last hour."""
    sink = LedgerSink(url)
    await sink.open()
    for number in range(1, 4):
        used = Usage(60_000 * number, 100)
        used, at = Usage(60_000 * number, 100), time.time() - 60 * number
        who, what = Identity("acme", "ann"), {"counted": used, "charged": used, "model": "gpt-4o"}
        sink.emit(UsageEvent("settled", f"sg-{number}", at, who, conversation="8f3c", **what))
    await sink.close()


@pytest.mark.parametrize("page", [page for page in pages() if ours(page)], ids=lambda p: p.stem)
def test_the_commands_of_a_page_succeed(page, tmp_path):
    write_files(page, tmp_path)
    asyncio.run(fill(f"sqlite:///{tmp_path}/usage.db"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "STREAMGUARD_DB": "sqlite:///usage.db"}
    for line in ours(page):
        if line.split()[1] in LONG_RUNNING:
            assert accepted(line)
            continue
        done = run(line.replace("sg-Ab12…x9Yz", hint(tmp_path)), tmp_path, env)
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout


def run(line: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A line as a shell runs it."""
    return subprocess.run(
        ["sh", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def hint(folder: Path) -> str:
    """How the key that a guide made is shown, if it made one."""
    if not (folder / "streamguard-keys.db").exists():
        return ""
    words = [sys.executable, "-m", "streamguard", "keys", "list", "--json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    return str(rows[0]["key"])


def accepted(line: str) -> Any:
    """The command line takes these words, subcommands included."""
    words = shlex.split(line, comments=True)[1:]
    command = cli.main.get_command(click.Context(cli.main), words[0])
    assert command is not None, line
    if isinstance(command, click.Group):
        command, words = command.commands[words[1]], words[1:]
    with command.make_context(words[0], words[1:], resilient_parsing=False) as taken:
        return taken.params


def inline() -> Iterator[str]:
    """Whole commands in the midst of sentences and tables."""
    for page in pages():
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for line in re.findall(r"`(streamguard [^`]+)`", text):
            if "…" not in line and not re.search(r"\b(COMMAND|FILE|CONFIG|HINT)\b", line):
                yield line


@pytest.mark.parametrize("line", sorted(set(inline())))
def test_a_command_within_a_sentence_is_taken(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(TUTORIAL, tmp_path)
    group = cli.main.get_command(click.Context(cli.main), line.split()[1])
    assert group is not None
    assert (isinstance(group, click.Group) and len(line.split()) == 2) or accepted(line)


def test_scripts_that_are_named_are_there_and_take_the_options():
    text = "\n".join(page.read_text() for page in pages())
    named = set(re.findall(r"python (benchmarks/\w+\.py)((?: --[\w-]+)*)", text))
    assert len(named) > 5
    for script, options in named:
        source = (ROOT / script).read_text()
        assert all(f'"{option}"' in source or "common" in source for option in options.split())


def test_packages_that_are_installed_have_the_extras():
    declared = (ROOT / "pyproject.toml").read_text()
    text = "\n".join(page.read_text() for page in pages())
    extras = {one for many in re.findall(r"streamguard\[([\w,]+)\]", text)
              for one in many.split(",")}  # fmt: skip
    assert extras
    assert {extra for extra in extras if f"\n{extra} = [" not in declared} == set()


FILES = [block for block in EVERYWHERE if block.language == "toml"]
SECRET = "whsec_bWFrZSBvbmUgb2YgeW91ciBvd24sIHBsZWFzZQ=="


@pytest.mark.parametrize("block", FILES, ids=str)
def test_a_file_is_read_by_the_guard_or_the_gateway(block: Block, tmp_path, monkeypatch):
    for name in re.findall(r"env:(\w+)|key_env = \"(\w+)", block.code):
        value = SECRET if "SECRET" in "".join(name) else "https://example.com/of-some-length"
        monkeypatch.setenv("".join(name), value)
    monkeypatch.chdir(tmp_path)
    write_files(block.path, tmp_path)
    part, name = re.match(r"# (in )?(\S+\.toml)\n", block.code).groups()
    rest = '\n[[upstreams]]\nurl = "http://h"\n' if part else ""
    (tmp_path / name).write_text(block.code + rest)
    read = read_gateway if "[[upstreams]]" in block.code + rest else read_config
    assert read(tmp_path / name)


def test_no_block_is_of_a_kind_that_no_test_runs():
    kinds = {"python", "toml", "json", "sh", "text", "nginx", "sql", "yaml"}
    assert {str(block) for block in EVERYWHERE if block.language not in kinds} == set()
    starts = {"streamguard", "python", "pip", "uv", "export", "unshare", "uvicorn"}
    for block in EVERYWHERE:
        if block.language == "sh" and block.path != TUTORIAL:
            bare = (BEFORE.sub("", line) for line in block.code.splitlines())
            assert {line.split()[0] for line in bare if line} <= starts
        assert block.language != "text" or block.path == TUTORIAL

"""Every Python block in README and docs runs, page by page, in order."""

from __future__ import annotations

import json
import linecache
import re

import click
import pytest
from support.repo import ROOT, blocks, modules, pages, tracked

import streamguard
from streamguard import cli

PAGES = [page for page in pages() if any(b.language == "python" for b in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "toml":  # its first line names the file
            (tmp_path / block.code.split()[1]).write_text(block.code)
        if block.language == "python":
            lines = block.code.splitlines(keepends=True)
            linecache.cache[str(block)] = (len(block.code), None, lines, str(block))
            exec(compile(block.code, str(block), "exec"), names)


def test_the_readme_is_one_of_them_and_shows_both_commands():
    assert (ROOT / "README.md") in PAGES
    shown = [block.code.strip() for block in blocks(ROOT / "README.md") if block.language == "sh"]
    assert "pip install uv && uv run streamguard demo" in shown
    assert "pip install uv && uv run --group test pytest" in shown
    (example,) = (b.code for b in blocks(ROOT / "README.md") if b.language == "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12


def test_every_public_name_is_in_the_reference():
    told = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    homes = {name: getattr(streamguard, name).__module__ for name in streamguard.__all__}
    listed = set(re.findall(r"^::: (\S+)", told, re.MULTILINE))
    missing = [
        name
        for name, home in homes.items()
        if f"{home}.{name}" not in listed and home not in listed
    ]
    assert missing == []


@pytest.mark.parametrize("name", list(cli._COMMANDS))
def test_every_command_and_option_is_in_the_reference(name):
    told = (ROOT / "docs" / "reference" / "cli.md").read_text()
    _, _, section = told.partition(f"## `streamguard {name}")
    section = section.partition("\n## ")[0]
    command = cli.main.get_command(click.Context(cli.main), name)
    parts = [command, *getattr(command, "commands", {}).values()]
    options = {flag for part in parts for each in part.params for flag in each.opts}
    assert {flag for flag in options if flag[0] == "-" and f"`{flag}`" not in section} == set()
    assert "--json" in options
    assert all(f"`{part.name}" in section for part in parts[1:])


def test_every_header_is_in_the_reference():
    told = (ROOT / "docs" / "reference" / "http.md").read_text()
    code = "".join(path.read_text() for path in modules())
    sent = set(re.findall(r'"(x-streamguard-[a-z-]+[a-z])"', code))
    assert len(sent) > 5
    assert {name for name in sent if f"`{name}`" not in told} == set()


def test_every_benchmark_is_in_the_reference():
    told = (ROOT / "docs" / "reference" / "benchmarks.md").read_text()
    scripts = {path.name for path in tracked() if path.parent == ROOT / "benchmarks"}
    assert {name for name in scripts if f"| `{name}` |" not in told} == set()


def test_json_in_the_docs_is_json():
    shown = [block for page in pages() for block in blocks(page) if block.language == "json"]
    assert shown
    for block in shown:
        json.loads(block.code)

"""Every Python block in README and docs runs, page by page, in order."""

from __future__ import annotations

import linecache

import pytest
from support.repo import ROOT, blocks, pages

PAGES = [page for page in pages() if any(b.language == "python" for b in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python":
            lines = block.code.splitlines(keepends=True)
            linecache.cache[str(block)] = (len(block.code), None, lines, str(block))
            exec(compile(block.code, str(block), "exec"), names)


def test_the_readme_has_pages_to_point_at():
    assert (ROOT / "README.md") in PAGES

"""Imports point down only."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from support.repo import PACKAGE, ROOT, modules

PURE = {"core", "protocols"}
IMPURE = {
    "asyncio", "anyio", "time", "logging", "starlette", "openai", "redis", "structlog", "httpx",
    "httpx2", "sqlalchemy", "tenacity", "tiktoken", "toktok", "socket", "random",
}  # fmt: skip


def test_the_import_contracts_hold():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    run = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if path.relative_to(PACKAGE).parts[0] in PURE],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_pure_layers_import_nothing_that_waits_or_asks_the_world(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert not imported & IMPURE

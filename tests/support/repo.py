"""The repository's own files, for tests about the house."""

from __future__ import annotations

import ast
import re
import subprocess
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "streamguard"


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control; in an unpacked archive, all files but what tools leave."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        names = listed.stdout.decode().strip("\0").split("\0")
        return tuple(path for name in names if (path := ROOT / name).is_file())
    left = {"__pycache__", "site", "dist"}
    found = (path for path in ROOT.rglob("*") if path.is_file())
    return tuple(
        path
        for path in found
        if not any(
            part in left or (part.startswith(".") and part not in {".ci", ".gitignore"})
            for part in path.relative_to(ROOT).parts
        )
    )


def modules() -> list[Path]:
    """The package's Python files."""
    return sorted(PACKAGE.rglob("*.py"))


class Function(NamedTuple):
    """A function of the package, nested ones included, with its length in lines."""

    where: str
    lines: int


def functions() -> Iterator[Function]:
    """Every function; what is only declared (overloads, protocols' stubs) is left out."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{path.relative_to(ROOT)}:{node.name}"
                yield Function(where, (node.end_lineno or 0) - node.lineno + 1)


def undocumented() -> Iterator[str]:
    """Public modules, classes and functions without a docstring."""
    for path in modules():
        yield from _without_docstring(ast.parse(path.read_text()), str(path.relative_to(ROOT)))


def _without_docstring(node: ast.AST, where: str) -> Iterator[str]:
    if not ast.get_docstring(node):  # type: ignore[arg-type]
        yield where
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if named and not child.name.startswith("_"):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            yield from _without_docstring(child, f"{where}:{child.name}")


def unannounced() -> Iterator[str]:
    """Errors that a public function raises itself and no docstring of it or its class names.

    Commands are left out: theirs is what ``--help`` shows. So are errors of a wrong type.
    """
    for path in modules():
        if path.parent.name != "cli":
            for error in _raised_untold(ast.parse(path.read_text()), ""):
                yield f"{path.relative_to(ROOT)}:{error}"


_OF_PYTHON = {"AttributeError", "NotImplementedError", "StopAsyncIteration", "TypeError"}
_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _raised_untold(node: ast.AST, told: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _SCOPES[:3]):
            continue
        public = not child.name.startswith("_")
        words = told + (ast.get_docstring(child) or "")
        if isinstance(child, ast.ClassDef) and public:
            yield from _raised_untold(child, words)
        elif public or child.name in {"__init__", "__post_init__"}:
            untold = {name for name in _raised(child) if name not in words} - _OF_PYTHON
            yield from (f"{child.name} raises {name}" for name in sorted(untold))


def _raised(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _SCOPES):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            what = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            if isinstance(what, ast.Name) and what.id[0].isupper():
                yield what.id
        yield from _raised(child)


class Block(NamedTuple):
    """A fenced code block of a Markdown file."""

    path: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path) -> Iterator[Block]:
    """The file's fenced blocks, in order, those in lists included."""
    text = path.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start(3)) + 1
        yield Block(path, line, match[2], textwrap.dedent(match[3]))


def pages() -> list[Path]:
    """README and every page of the docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

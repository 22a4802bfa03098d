"""What the code imports is declared where it is needed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions

import pytest
from support.repo import PACKAGE, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = {"streamguard", "support"}


def names(requirements):
    found = (re.match(r"[\w.-]+", each) for each in requirements if isinstance(each, str))
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found}


RUNTIME = names(PROJECT["project"]["dependencies"])
EXTRAS = names(
    each for group in PROJECT["project"]["optional-dependencies"].values() for each in group
)
TESTS = names(PROJECT["dependency-groups"]["test"])


@cache
def distributions():
    return packages_distributions()


def imported(folder):
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    tops = {name.partition(".")[0] for name in found}
    beside = {path.stem for path in folder.glob("*.py")}  # a script may import the one beside it
    return tops - OURS - beside - set(sys.stdlib_module_names)


def undeclared(folder, declared):
    return {
        top
        for top in imported(folder)
        if not {re.sub(r"[-_.]+", "-", name).lower() for name in distributions().get(top, [top])}
        & declared
    }


def test_the_package_imports_what_it_declares():
    # Types of a client that the user brings along are only imported beside that client.
    assert undeclared(PACKAGE, RUNTIME | EXTRAS) <= {"anthropic", "google", "httpx", "pydantic"}


@pytest.mark.parametrize("folder", ["tests", "examples", "benchmarks"])
def test_tests_import_what_their_group_declares(folder):
    # Benchmarks take them if installed; one guide is tried with its frameworks.
    optional = {"agents", "atheris", "limits", "matplotlib", "pydantic_ai", "uvloop"}
    assert undeclared(ROOT / folder, RUNTIME | TESTS) <= optional


def test_there_are_no_urls_among_the_requirements():
    assert "://" not in str([PROJECT["project"]["dependencies"], PROJECT["dependency-groups"]])
    assert "@" not in str(PROJECT["tool"]["uv"]["constraint-dependencies"])

"""The reference names everything that users can import, set or read."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re

import pytest
from support.repo import PACKAGE, ROOT, blocks, modules, pages

from streamguard import Catalog, Identity, Limit, Usage, UsageEvent, errors
from streamguard.errors import ConfigurationError, StreamGuardError
from streamguard.gateway.config import GatewayConfig, parse_gateway
from streamguard.gateway.upstreams import Upstream
from streamguard.guard.config import parse_config
from streamguard.guard.settings import Cache, Queue, Settings
from streamguard.sinks.configured import sinks_from
from streamguard.sinks.ledger_table import USAGE
from streamguard.sinks.measures import INSTRUMENTS

PAGES = {path.name: path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md")}
LISTED = set(re.findall(r"^::: (\S+)", "".join(PAGES.values()), re.MULTILINE))


def imported() -> set[str]:
    """Where the names live that the guides import."""
    found = set()
    for block in (block for page in pages() for block in blocks(page)):
        for node in ast.walk(ast.parse(block.code)) if block.language == "python" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("streamguard"):
                home = importlib.import_module(node.module)
                found |= {f"{getattr(home, one.name).__module__}.{one.name}" for one in node.names}
    return found


def taking(folder: str, method: str) -> set[str]:
    """The public classes of a folder with this method."""
    return {
        f"streamguard.{folder}.{path.stem}.{node.name}"
        for path in modules()
        if path.parent == PACKAGE / folder
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        if any(getattr(part, "name", "") == method for part in node.body)
    }


def test_names_that_guides_import_are_in_the_reference():
    names = imported() - {"streamguard.cli.upstream.DemoUpstream"}  # the tutorial's model
    assert len(names) > 25
    assert {name for name in names if not {name, name.rpartition(".")[0]} & LISTED} == set()


@pytest.mark.parametrize(("folder", "method"), [("sinks", "emit"), ("stores", "reserve")])
def test_every_sink_and_store_is_in_the_reference(folder, method):
    assert len(taking(folder, method)) > 4
    assert taking(folder, method) - LISTED == set()


def known(check, *given) -> list[str]:
    """The keys that an error about an unknown one names."""
    with pytest.raises(ConfigurationError, match="(known|use)") as caught:
        check(*given)
    return re.findall(r"'(\w+)'", re.split("known: |; use ", str(caught.value))[-1])


@pytest.mark.parametrize(
    ("page", "check", "given"),
    [
        ("settings.md", parse_config, ({"nope": 1}, "f")),
        ("settings.md", sinks_from, ({"nope": 1}, "f")),
        ("settings.md", sinks_from, ({"alerts": {"nope": 1}}, "f")),
        ("settings.md", sinks_from, ({"alerts": {"webhooks": [{"nope": 1}]}}, "f")),
        ("settings.md", Catalog, ({"m": {"nope": 1}},)),
        ("limits.md", parse_config, ({"limits": [{"nope": 1}]}, "f")),
        ("gateway-config.md", parse_gateway, ({"upstreams": [{"url": "http://h", "nope": 1}]},)),
    ],
)
def test_every_key_of_a_file_is_in_the_reference(page, check, given):
    keys = known(check, *given)
    assert len(keys) > 2
    told = PAGES[page] + "".join(inspect.getdoc(one) for one in (Settings, Limit))
    assert [key for key in keys if not re.search(rf"[`.[]{key}\b|\b{key}:", told)] == []


def test_every_setting_of_the_gateway_is_in_the_reference():
    names = {field.name for field in dataclasses.fields(GatewayConfig)} - {"guard"}
    assert {name for name in names if not re.search(rf"`\[*{name}\b", PAGES["gateway-config.md"])} \
        == set()  # fmt: skip


@pytest.mark.parametrize(
    "kind", [Settings, Queue, Cache, Limit, Identity, Usage, UsageEvent, Upstream, GatewayConfig]
)
def test_every_field_is_described(kind):
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    assert [name for name in names if not re.search(rf"\b{name}\b.*:", inspect.getdoc(kind))] == []


def test_every_refusal_a_client_may_see_is_in_the_reference():
    kinds = [kind for _name, kind in inspect.getmembers(errors, inspect.isclass)]
    codes = {kind.code for kind in kinds if issubclass(kind, StreamGuardError)}
    ours = {"streamguard_error", "configuration_error"}  # raised where the app is set up
    assert {code for code in codes - ours if f"`{code}` |" not in PAGES["http.md"]} == set()


def test_what_ones_own_code_catches_has_the_status_and_code_beside_it():
    rows = re.findall(
        r"^\| .+ \| ([\d, ]+) \| `(\w+)` \| (`.+`) \|$", PAGES["http.md"], re.MULTILINE
    )
    assert len(rows) == 6
    for statuses, code, names in rows:
        for name in re.findall(r"\w+", names):
            error = getattr(errors, name)
            assert error.code == code
            assert str(error.status) in statuses.split(", ")


def test_every_column_of_the_ledger_is_in_the_reference():
    names = [column.name for column in USAGE.columns]
    told = PAGES["ledger.md"]
    groups = ("counted", "reported", "charged")
    left = [name for name in names if f"`{name}`" not in told and name.split("_")[0] not in groups]
    assert left == []
    assert all(f"`{group}_…`" in told for group in groups)


def test_every_format_is_in_the_reference():
    sources = "".join(path.read_text() for path in (PACKAGE / "protocols").glob("*.py"))
    names = set(re.findall(r'^class.*?\n    name = "(\w+)"$', sources, re.MULTILINE | re.DOTALL))
    assert len(names) > 6
    assert {name for name in names if f"| `{name}` |" not in PAGES["formats.md"]} == set()


def test_the_errors_that_are_explained_are_those_that_were_measured():
    told = (ROOT / "docs" / "explanation" / "where-counts-come-from.md").read_text()
    rows = [line.split(" | ") for line in told.splitlines() if line.startswith("| `")]
    shown = [[cell.strip(" |`") for cell in row] for row in rows if len(row) == 7]
    assert len(shown) == 8
    lines = PAGES["counts.md"].splitlines()
    measured = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    kept = [[*row[:5], row[7], row[9]] for row in measured if len(row) == 10]
    assert [row for row in shown if row not in kept] == []


def test_every_metric_is_in_its_guide():
    told = (ROOT / "docs" / "how-to" / "metrics.md").read_text()
    assert {one.name for one in INSTRUMENTS if f"| `{one.name}` |" not in told} == set()

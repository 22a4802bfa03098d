"""The house rules that a reader would notice: sizes, depth, docstrings, layout."""

from __future__ import annotations

import importlib.util
import statistics

from support.repo import PACKAGE, ROOT, functions, modules, unannounced, undocumented

MAX_FUNCTION, MEDIAN_FUNCTION, P90_FUNCTION, MAX_FILE = 60, 8, 25, 300


def test_functions_are_short():
    lengths = sorted(function.lines for function in functions())
    assert [function for function in functions() if function.lines > MAX_FUNCTION] == []
    assert statistics.median(lengths) <= MEDIAN_FUNCTION
    assert lengths[int(len(lengths) * 0.9)] <= P90_FUNCTION


def test_files_are_short():
    lines = {path.name: len(path.read_text().splitlines()) for path in modules()}
    assert {name: count for name, count in lines.items() if count > MAX_FILE} == {}


def test_folders_are_one_deep():
    assert [path for path in modules() if len(path.relative_to(PACKAGE).parts) > 2] == []


def test_everything_public_has_a_docstring():
    assert list(undocumented()) == []


def test_errors_that_are_raised_are_documented():
    assert list(unannounced()) == []


def test_the_layout_table_lists_every_file_with_what_it_is_for():
    spec = importlib.util.spec_from_file_location("layout", ROOT / ".ci" / "layout.py")
    layout = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layout)
    document = layout.CONTRIBUTING.read_text()
    assert layout.embedded(document) == document, "run: python .ci/layout.py"
    assert [path for path in layout.files() if not layout.first_line(path)] == []

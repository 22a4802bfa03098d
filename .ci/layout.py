"""The layout table of CONTRIBUTING.md, made from the first line of each file's docstring.

``python .ci/layout.py`` rewrites the table; a test checks that it is up to date.
"""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
START, END = "<!-- layout: made by .ci/layout.py -->", "<!-- end of layout -->"
DATA = {
    "py.typed": "Marks the package as typed.",
    ".xz": "A vocabulary, compressed; verified when it is loaded.",
    "page.html": "The live page's elements; style and script are put in as it is served.",
    "page.css": "The live page's style, light and dark.",
    "draw.js": "The live page's words, elements and plots; everything is put in as text.",
    "page.js": "The live page's script: what each event shows, and the connection.",
}


def first_line(path: Path) -> str:
    """What the file is for, in one line."""
    if path.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        return docstring.partition("\n")[0]
    if path.suffix == ".lua":
        return path.read_text().partition("\n")[0].lstrip("- ")
    if path.suffix == ".md":
        return path.read_text().partition("\n")[0].lstrip("# ")
    return DATA.get(path.name) or DATA.get(path.suffix, "")


def files() -> list[Path]:
    """Every file of the package under version control, folder by folder from the top."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "streamguard"],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    found = [ROOT / name for name in listed] or (ROOT / "streamguard").rglob("*")
    kept = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return sorted(kept, key=lambda path: (len(path.parts) > len(ROOT.parts) + 2, path))


def table() -> str:
    """The table as Markdown."""
    rows = [f"| `{path.relative_to(ROOT)}` | {first_line(path)} |" for path in files()]
    return "\n".join(["| file | what it is for |", "|---|---|", *rows])


def embedded(document: str) -> str:
    """The document with its table renewed."""
    head, _, rest = document.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    CONTRIBUTING.write_text(embedded(CONTRIBUTING.read_text()))

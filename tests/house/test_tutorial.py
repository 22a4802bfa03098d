"""The tutorial from its first file to its last command, and that it shows what is printed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.gateways import free_port
from support.repo import ROOT, blocks

from streamguard.tokenizers import get_tokenizer

PAGE = ROOT / "docs" / "tutorial" / "first-guarded-app.md"
CHANGES = re.compile(r"in \d+ s")  # how long until the budget has room again


def of(language: str) -> list[str]:
    return [block.code for block in blocks(PAGE) if block.language == language]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Everything the tutorial's commands print, in one shell, on ports that are free."""
    missing = [name for name in ("bash", "curl", "grep") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"the tutorial's commands need {', '.join(missing)}: not installed")
    folder = tmp_path_factory.mktemp("guarded")
    model, app, guard, ask = of("python")
    (folder / "model.py").write_text(model)
    (folder / "app.py").write_text(app + guard)
    install, start, *rest = of("sh")
    assert "pip install" in install
    again = 'ask key-of-bolt "$essay"\n'
    script = start + "\n".join(rest) + again + "kill %1 %2\nwait\npython - <<'END'\n"
    script += f"from app import guard\n{ask}END\n"
    for port in ("8000", "9000"):
        script = script.replace(port, str(free_port()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        told, wrong = shell.communicate(timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # the servers too, however far it came
        shell.communicate()
    assert shell.returncode == 0, wrong
    # Python 3.13 and later use RFC 9110's name for 413.
    return told.replace("\r\n", "\n").replace(" Content Too Large", " Request Entity Too Large")


@pytest.mark.parametrize("shown", of("text"), ids=lambda text: text.splitlines()[0])
def test_what_the_tutorial_shows_is_printed(shown, printed):
    flat = CHANGES.sub("", " ".join(printed.split()))
    for piece in re.split(r"…|\n\n|\n(?=x-|data:|\{)", shown):
        assert CHANGES.sub("", " ".join(piece.split())) in flat


def test_what_the_tutorial_says_of_it_is_so(printed):
    first = printed.partition("[DONE]")[0]
    sent = [json.loads(line) for line in re.findall(r"^data: (\{.*\})$", first, re.MULTILINE)]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in sent)
    assert text.startswith("A budget is a promise")
    assert get_tokenizer("o200k_base").count(text) == 20
    assert [int(left) for left in re.findall(r"remaining: (\d+)", printed)][:7] == [
        168, 135, 102, 69, 36, 3, 2,
    ]  # fmt: skip
    assert printed.count("HTTP/1.1 200 OK") == 7  # six of acme, one of bolt
    assert "9 tokens; 20 may come back" in printed
    assert "413 request_budget_exceeded 3008 over 1000" in printed
    for event in ("cut", "settled", "refused"):
        assert re.search(rf"\] {event} ", re.sub(r"\x1b\[\d*m", "", printed))

"""Every example runs as a script, offline, and shows what it promises."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.repo import ROOT

SHOWN = {
    "fastapi_chat.py": ["A budget is a promise", "finish_reason: length"],
    "wrap_client.py": ["the model said: Noted.", "refused, and never sent: 413"],
    "retry_loop.py": [
        "answer: Here you are. after 3 requests",
        "too long: 400 context_length_exceeded; 1 of 100 reached the model",
    ],
}


def test_no_example_is_left_out():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_runs(name):
    env = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in SHOWN[name]:
        assert line in done.stdout

"""Node and the npm packages that some tests need: installed once into a cache, or skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("openai", "@anthropic-ai/sdk", "ai")


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "streamguard-tests" / "npm"


def node_modules() -> Path:
    """A folder with ``node_modules`` in it; skips the test, with the reason, where none can be.

    ``STREAMGUARD_NPM`` names a folder that has them already.
    """
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    folder = Path(os.environ.get("STREAMGUARD_NPM") or _cache())
    if all((folder / "node_modules" / name).exists() for name in PACKAGES):
        return folder
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder)]
    try:
        subprocess.run([*command, *PACKAGES], check=True, capture_output=True, timeout=100)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm could not install {', '.join(PACKAGES)}: {type(error).__name__}")
    return folder


def run_module(source: str, *args: str) -> Any:
    """Run an ES module and return the JSON it printed last."""
    folder = node_modules()
    script = folder / f"case-{abs(hash(source))}-{os.getpid()}.mjs"
    script.write_text(source)
    try:
        done = subprocess.run(
            ["node", str(script), *args], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        script.unlink()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

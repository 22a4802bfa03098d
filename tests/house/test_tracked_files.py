"""Nothing of one machine or one workplace is committed."""

from __future__ import annotations

import re

import pytest
from support.repo import ROOT, tracked

# Written in pieces, so that this file does not find itself.
HOSTS = ["py" + r"pi\.org", "python" + "hosted", r"registry\.npm" + "js", "deb" + r"ian\.org"]
FOLDERS = ["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers", "t" + "mp"]
FORBIDDEN = re.compile("|".join([*HOSTS, rf"(?<![\w.~}}/-])/(?:{'|'.join(FOLDERS)})/[\w.]"]))


@pytest.mark.parametrize("path", tracked(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_registry_host_and_no_path_of_a_machine(path):
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return
    assert FORBIDDEN.findall(text) == []


def test_no_lock_file_and_no_big_file():
    names = {path.name for path in tracked()}
    assert not names & {"uv.lock", "poetry.lock", "package-lock.json"}
    assert [path for path in tracked() if path.stat().st_size > 4_000_000] == []

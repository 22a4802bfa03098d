"""What Dockerfile and compose.yaml say works where no container engine is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import textwrap

import click
import pytest
from support.repo import ROOT
from support.servers import serve

from streamguard import cli
from streamguard.gateway.app import Gateway
from streamguard.gateway.config import GatewayConfig, read_gateway
from streamguard.gateway.upstreams import Upstream

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


def accepted(words):
    """The command line takes these words."""
    command = cli.main.get_command(click.Context(cli.main), words[0])
    return command.make_context(words[0], words[1:], resilient_parsing=False).params


def test_the_commands_are_ours():
    dockers = json.loads(re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])
    composes = json.loads(re.search(r"command: (\[\"serve.*\])", COMPOSE)[1])
    for words in (dockers, composes):
        params = accepted(words)
        assert str(params["config"]) == "/etc/streamguard/gateway.toml"
        assert params["host"] == "0.0.0.0"
        assert params["as_json"]
    assert accepted(composes)["workers"] == 2
    assert 'ENTRYPOINT ["streamguard"]' in DOCKERFILE


def test_the_image_runs_as_nobody_in_particular_and_copies_what_exists():
    assert re.search(r"^USER streamguard$", DOCKERFILE, re.MULTILINE)
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for name in shlex.split(line):
            assert (ROOT / name).exists()
            assert f"!{name}" in (ROOT / ".dockerignore").read_text()
    extras = re.search(r"\.\[([\w,]+)\]", DOCKERFILE)[1].split(",")
    assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in extras)


def test_the_health_check_tells_a_running_gateway_from_none():
    (line,) = re.findall(r"CMD (\[\"python.*\])", DOCKERFILE)
    words = json.loads(line)
    gateway = Gateway(GatewayConfig((Upstream(url="http://h"),), guard={"store": "memory://"}))
    with serve(gateway) as url:
        here = words[2].replace("http://127.0.0.1:8383", url)
        assert subprocess.run([sys.executable, *words[1:2], here], check=False).returncode == 0
    gone = subprocess.run([sys.executable, *words[1:2], here], capture_output=True, check=False)
    assert gone.returncode != 0


def test_the_file_in_compose_is_a_valid_one(tmp_path, monkeypatch):
    content = re.search(r"content: \|\n(.*?)\nvolumes:", COMPOSE, re.DOTALL)[1]
    path = tmp_path / "gateway.toml"
    path.write_text(textwrap.dedent(content))
    for name, value in re.findall(r"^      (STORE|DATABASE): (\S+)$", COMPOSE, re.MULTILINE):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    config = read_gateway(path)
    assert config.guard["store"] == "redis://valkey:6379/0"
    assert config.keys.endswith("@postgres:5432/streamguard")
    assert config.ledger_spool


@pytest.mark.parametrize("page", ["run-the-gateway", "behind-nginx"])
def test_the_commands_in_the_guides_are_ours(page):
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["streamguard"] and words[1] == "serve":
                assert accepted(words[1:])


def test_the_file_in_the_guide_is_a_valid_one(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "how-to" / "run-the-gateway.md").read_text()
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "k")
    path = tmp_path / "gateway.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    config = read_gateway(path)
    assert len(config.upstreams) == 4
    assert [limit.name for limit in config.limits_for("zeta")][1:] == ["free day"]

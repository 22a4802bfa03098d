from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib

import click
import pytest
from click.testing import CliRunner
from support.repo import ROOT

from streamguard import cli
from streamguard.errors import ConfigurationError

COMMANDS = list(cli._COMMANDS)


def run(*args, **options):
    return CliRunner().invoke(cli.main, args, prog_name="streamguard", **options)


def test_help_lists_every_command_without_importing_any():
    code = (
        "import sys\nfrom streamguard.cli import main\n"
        "try: main(['--help'], prog_name='streamguard')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted(m for m in sys.modules if m.startswith('streamguard.cli.')))\n"
        "print([m for m in ('rich', 'openai', 'uvicorn', 'tiktoken') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_takes_json(name):
    assert run(name, "--help").exit_code == 0
    context = click.Context(cli.main)
    assert name in cli.main.list_commands(context)
    command = cli.main.get_command(context, name)
    assert command.name == name
    for sub in getattr(command, "commands", [""]):
        assert "--json" in run(name, *filter(None, [sub]), "--help").stdout


@pytest.mark.parametrize("args", [["cuont"], ["--bad"], ["count", "--bad"], ["count", "no-file"]])
def test_bad_usage_is_one_line_and_exit_code_2(args):
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "--help'" in result.stderr


def test_no_command_shows_the_help_and_exits_2():
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr + result.stdout


def failing(error):
    @click.command("count")
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigurationError("per='x' is\nno span"), "Error: per='x' is no span\n"),
        (click.ClickException("no such day"), "Error: no such day\n"),
        (click.Abort(), "Error: interrupted\n"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(monkeypatch, error, line):
    monkeypatch.setattr(cli.main, "get_command", lambda _ctx, _name: failing(error))
    result = run("count")
    assert (result.exit_code, result.stderr) == (1, line)


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli.main, "get_command", lambda _ctx, _name: failing(KeyError("bug")))
    assert isinstance(run("count").exception, KeyError)


def test_a_reader_that_leaves_is_no_error():
    rows = json.dumps({"model": "gpt-4o", "request": {"messages": []}}) + "\n"
    process = subprocess.Popen(
        [sys.executable, "-m", "streamguard", "count", "--jsonl"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        process.stdout.close()
        _, errors = process.communicate(rows * 2000)
    assert process.returncode == 1
    assert "Traceback" not in errors


def test_the_script_and_the_module_are_the_same_program():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"streamguard": "streamguard.cli:main"}
    done = subprocess.run(
        [sys.executable, "-m", "streamguard", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"streamguard, version {project['version']}\n"


def test_keys_tell_whom_they_are_for(tmp_path):
    where = ("--keys", f"sqlite:///{tmp_path}/keys.db")

    def keys(*args):
        return CliRunner().invoke(cli.main, ["keys", *args, *where], prog_name="streamguard")

    assert "there are no keys yet" in keys("list").stderr
    assert keys("list", "--json").output == "[]\n"
    nobody = keys("create", "--tenant", " ")
    assert (nobody.exit_code, "--tenant is empty" in nobody.stderr) == (2, True)
    made = json.loads(keys("create", "--tenant", "acme", "--user", "ann", "--json").stdout)
    assert (made["tenant"], made["user"], made["feature"]) == ("acme", "ann", None)


def test_importing_the_module_runs_nothing():
    assert importlib.import_module("streamguard.__main__").main is cli.main

"""The command line: ``streamguard COMMAND``.

Exit codes: 0 fine, 1 the check or request failed, 2 bad usage. Errors are one line on stderr.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from streamguard.errors import StreamGuardError


class _Entry(NamedTuple):
    """Where a command lives, and its line in the help; it is imported when it is run."""

    module: str
    name: str
    help: str


_COMMANDS = {
    "demo": _Entry("streamguard.cli.demo", "demo", "The whole story, on this machine."),
    "keys": _Entry("streamguard.cli.keys", "keys", "The gateway's virtual keys."),
    "serve": _Entry("streamguard.cli.serve", "serve", "The gateway."),
    "check": _Entry("streamguard.cli.check", "check", "A config and its store; limits in dollars."),
    "simulate": _Entry("streamguard.cli.simulate", "simulate", "Past usage under other limits."),
    "usage": _Entry("streamguard.cli.usage", "usage", "The usage ledger: totals, top, outliers."),
    "count": _Entry("streamguard.cli.count", "count", "Tokens and cost of a text or a request."),
}


class _LazyGroup(click.Group):
    """Imports a command only when it is run; turns a refusal into one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(entry.module), entry.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in _COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run and exit with the command's code."""
        extra["standalone_mode"] = False
        try:
            sys.exit(super().main(*args, **extra))
        except StreamGuardError as error:
            _fail(error.message, 1)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "streamguard"
            _fail(f"{error.format_message().rstrip('.')}. See '{command} --help'", error.exit_code)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except click.Abort:
            _fail("interrupted", 1)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(code)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamguard", prog_name="streamguard")
def main() -> None:
    """Token budgets for LLM apps: count, guard, and see what was used.

    Every command takes --json.
    """

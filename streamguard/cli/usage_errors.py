"""Wrong values of options, told as bad usage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from streamguard.errors import ConfigurationError


@contextmanager
def bad_usage(option: str, key: str = "") -> Iterator[None]:
    """A wrong value in here is one of this option; ``key`` is its name in a file.

    Raises:
        click.UsageError: in place of a ``ConfigurationError``.
    """
    try:
        yield
    except ConfigurationError as error:
        told = error.message.removeprefix(key).strip()
        raise click.UsageError(f"{option}: {told}") from error

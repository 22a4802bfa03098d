"""``streamguard keys``: the gateway's virtual keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from streamguard.cli.usage_errors import bad_usage
from streamguard.errors import ConfigurationError
from streamguard.identity import Identity

if TYPE_CHECKING:
    from streamguard.gateway.keys import KeyRing

_URL = click.option(
    "--keys",
    "url",
    default="sqlite:///streamguard-keys.db",
    show_default=True,
    help="Where the keys are kept.",
)
_LONGEST = 200
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def keys() -> None:
    """Create, list and revoke the keys that clients of the gateway present."""


@keys.command()
@click.option("--tenant", required=True, help="Who is charged.")
@click.option("--user", help="The user within the tenant.")
@click.option("--feature", help="The feature the key is for.")
@_URL
@_JSON
def create(tenant: str, user: str | None, feature: str | None, url: str, as_json: bool) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    if not tenant.strip():
        raise click.UsageError("--tenant is empty; say who is charged")
    for name, value in (("tenant", tenant), ("user", user), ("feature", feature)):
        if len(value or "") > _LONGEST:
            message = f"--{name} has {len(value or '')} characters; at most {_LONGEST} are kept"
            raise click.UsageError(message)
    key = _ring(url).create(Identity(tenant, user, feature))
    row = {"key": key, "tenant": tenant, "user": user, "feature": feature}
    click.echo(json.dumps(row) if as_json else key)


@keys.command("list")
@_URL
@_JSON
def list_keys(url: str, as_json: bool) -> None:
    """List the keys by their first and last characters."""
    rows = [
        {
            "key": record.hint,
            "tenant": record.identity.tenant,
            "user": record.identity.user,
            "feature": record.identity.feature,
            "created": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="seconds"),
            "revoked": record.revoked is not None,
        }
        for record in _ring(url).list()
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("Note: there are no keys yet; make one with 'streamguard keys create'", err=True)
    for row in rows:
        state = "revoked" if row["revoked"] else "active"
        whom = "/".join(str(row[name]) for name in ("tenant", "user", "feature") if row[name])
        click.echo(f"{row['key']:<14}{state:<9}{row['created']:<27}{whom}")


@keys.command()
@click.argument("hint")
@_URL
@_JSON
def revoke(hint: str, url: str, as_json: bool) -> None:
    """Revoke the key that the list shows as HINT (three dots may stand for its …)."""
    hint = hint.replace("...", "…")
    found = _ring(url).revoke(hint)
    if not found:
        message = f"no active key is shown as {hint}; 'streamguard keys list' shows them"
        raise click.ClickException(message)
    click.echo(json.dumps({"revoked": found}) if as_json else f"revoked {hint}")


def _ring(url: str) -> KeyRing:
    try:
        from streamguard.gateway.keys import KeyRing, checked_url
    except ImportError as error:
        message = f"keys need {error.name}; pip install 'streamguard[gateway]'"
        raise ConfigurationError(message) from error
    with bad_usage("--keys", "keys="):
        checked_url(url)
    return KeyRing(url)

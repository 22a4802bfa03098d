"""``streamguard check``: whether the configuration is right, and what it means."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import click

from streamguard.cli.configs import Loaded, load
from streamguard.core.accounts import Balance, Demand, Grant, Window, account_key
from streamguard.core.admission import Rates, window_of
from streamguard.core.meaning import dollars, words
from streamguard.errors import ConfigurationError, StoreUnavailableError, StreamGuardError
from streamguard.limits import NANO, Limit

DEFAULT_MODEL = "gpt-4o"
_PATIENCE = 5.0


@click.command()
@click.argument("config", type=click.Path(path_type=Path), default="streamguard.toml")
@click.option("--store", help="Check this store, not the config's.")
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    help=f"Price the limits with this model; give it again for more. {DEFAULT_MODEL} if absent.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(config: Path, store: str | None, models: Sequence[str], as_json: bool) -> None:
    """Check the CONFIG (streamguard.toml if absent) and its store; say what is in force.

    Every limit is told in words and in dollars: the least and most that one account of it can
    cost in one span, and the most in thirty days. The store is opened and asked to hold, to
    give back and to read. Exit code 1 where something is wrong.

    \b
    streamguard check streamguard.toml --model gpt-4o --model gpt-4o-mini
    """  # noqa: D301 - click's mark for lines to keep
    loaded = load(config)
    found: dict[str, Any] = {
        "config": str(config),
        "store": anyio.run(_store, store or loaded.store),
        "upstreams": list(loaded.upstreams),
        "settings": _settings(loaded),
        "limits": [_limit(each, plan, loaded, models) for each, plan in _all(loaded)],
        "warnings": list(_warnings(loaded, store or loaded.store, models)),
    }
    if as_json:
        click.echo(json.dumps(found))
    else:
        from streamguard.cli.check_view import show

        show(found)
    if not found["store"]["ok"]:
        sys.exit(1)


def _all(loaded: Loaded) -> Iterator[tuple[Limit, str | None]]:
    """Every limit, and the plan that it belongs to."""
    yield from ((limit, None) for limit in loaded.limits)
    for plan, limits in loaded.plans.items():
        yield from ((limit, plan) for limit in limits)


async def _store(url: str) -> dict[str, Any]:
    from streamguard.stores import open_store

    scheme = url.partition("://")[0]
    try:
        with anyio.fail_after(_PATIENCE):
            await _tried(open_store(url))
    except TimeoutError:
        problem = f"no answer within {_PATIENCE:g} s"
    except (StoreUnavailableError, ConfigurationError) as error:
        problem = error.message
    else:
        return {"kind": scheme, "ok": True, "problem": None}
    return {"kind": scheme, "ok": False, "problem": problem}


async def _tried(store: Any) -> None:
    """Hold a token, read it, give it back: under a name that no limit has."""
    window = Window(60)
    name = account_key("streamguard check", {"tenant": uuid.uuid4().hex}, window)
    demand, hold = Demand(name, 1, window, 1, 1), uuid.uuid4().hex
    await store.open()
    try:
        answer = await store.reserve(hold, [demand], want=0, least=0, ttl=_PATIENCE)
        held: Balance = (await store.balances([demand]))[0]
        await store.release(hold)
        left: Balance = (await store.balances([demand]))[0]
    finally:
        await store.close()
    if not isinstance(answer, Grant) or (held.held, left.held) != (1, 0):
        message = "the store answers, but not as a budget store: it held or gave back wrongly"
        raise StoreUnavailableError(message)


def _settings(loaded: Loaded) -> dict[str, Any]:
    settings = loaded.settings
    names = (
        "reserve_output", "reserve_reasoning", "min_output", "adaptive_reserve", "observe",
        "hold_ttl", "store_timeout", "on_disconnect",
    )  # fmt: skip
    return {
        **{name: getattr(settings, name) for name in names},
        "fallback": list(settings.fallback),
        "sizes": {name: [list(each) for each in sizes] for name, sizes in settings.sizes.items()},
        "fit": settings.fit is not None,
        "queue": settings.queue.capacity if settings.queue else None,
        "cache": settings.cache is not None,
    }


def _limit(limit: Limit, plan: str | None, loaded: Loaded, models: Sequence[str]) -> dict[str, Any]:
    named = limit.where.get("model")
    chosen = [named] if named else models or [DEFAULT_MODEL]
    return {
        "name": limit.name,
        "plan": plan,
        "words": words(limit),
        "dollars": [_dollars(limit, model, loaded) for model in chosen],
    }


def _dollars(limit: Limit, model: str, loaded: Loaded) -> dict[str, Any]:
    found = dollars(limit, _rates(loaded, model), loaded.settings.reserve_for(model))
    usd = {name: None if nano is None else nano / NANO for name, nano in found._asdict().items()}
    return {"model": model, **usd}


def _rates(loaded: Loaded, model: str) -> Rates:
    info = loaded.catalog.model_info(model)
    return Rates(info.context_window, info.input_rate, info.output_rate)


def _warnings(loaded: Loaded, store: str, models: Sequence[str]) -> Iterator[str]:
    limits = [limit for limit, _plan in _all(loaded)]
    if not limits:
        yield "there are no limits: only context windows are held"
    if store.startswith("memory:") and any(limit.span is not None for limit in limits):
        yield "memory:// keeps the budgets of one process, until it ends"
    if loaded.settings.observe:
        yield "observe is on: nothing is refused or cut"
    if limits and all(limit.soft for limit in limits):
        yield "all limits are soft: nothing is refused"
    yield from _unpriced(loaded, limits, models)
    for limit in limits:
        yield from _calendar(limit)


def _unpriced(loaded: Loaded, limits: Sequence[Limit], models: Sequence[str]) -> Iterator[str]:
    """The models without a price, and what that means where each is named."""

    def priced(model: str) -> bool:
        return _rates(loaded, model).output_rate is not None

    for model in (*loaded.settings.fallback, *_sized(loaded)):
        if not priced(model):
            yield f"model {model!r} has no known price: it is no fallback where money is short"
    for model in models:
        if not priced(model):
            yield f"model {model!r} has no known price: limits in dollars refuse it"
    for limit in limits:
        named = limit.where.get("model")
        if limit.unit == "cost" and named and not priced(named):
            yield f"limit {limit.name!r}: model {named!r} has no known price, so it is refused"


def _sized(loaded: Loaded) -> Iterator[str]:
    for sizes in loaded.settings.sizes.values():
        yield from (model for _most, model in sizes)


def _calendar(limit: Limit) -> Iterator[str]:
    """A window that no store could keep."""
    from streamguard.core.windows import ruler

    if limit.span is None:
        return
    try:
        ruler(window_of(limit))
    except StreamGuardError as error:
        yield f"limit {limit.name!r}: {error.message}"

"""``Guard``: the one object a user configures."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from streamguard.catalog import Catalog
from streamguard.errors import ConfigurationError
from streamguard.guard.config import read_config
from streamguard.guard.engine import Engine
from streamguard.guard.options import Options
from streamguard.guard.settings import Cache, Queue, Settings, as_option
from streamguard.identity import Identity, checked
from streamguard.limits import Limit
from streamguard.sinks.base import Sink
from streamguard.stores.base import Store

if TYPE_CHECKING:
    from streamguard.client.flow import Unlisted
    from streamguard.client.stream import GuardedStream
    from streamguard.guard.options import Options
from streamguard.guard.settings import LimitSource

Client = TypeVar("Client")
Item = TypeVar("Item")


class Guard(Engine):
    """Budgets, the store that holds them, and who is told.

    ::

        guard = Guard(limits=[Limit(tokens=100_000, per="day", scope=("tenant",))])
        client = guard.wrap(AsyncOpenAI())

    An async context manager, and a plain one for programs without an event loop; without either,
    the first call opens the store. ``limits`` are the budgets, or a callable that looks them up
    for an identity and a model. ``store`` is a Store or a URL ("memory://",
    "sqlite:///budgets.db", "redis://…"). Every other setting is a field of ``Settings``.
    """

    def __init__(
        self,
        limits: Sequence[Limit] | LimitSource = (),
        *,
        store: Store | str = "memory://",
        catalog: Catalog | None = None,
        sinks: Sequence[Sink] | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Raise ``ConfigurationError`` for a figure or an object that cannot work."""
        settings: dict[str, Any] = {**options}
        _check_names(settings)
        _check_parts(catalog, sinks)
        if "fit" in settings:
            from streamguard.planner.fitting import as_fit

            settings["fit"] = as_fit(settings["fit"], catalog)
        settings["queue"] = as_option(Queue, settings.get("queue"))
        settings["cache"] = as_option(Cache, settings.get("cache"))
        super().__init__(
            Settings(limits=tuple(limits) if isinstance(limits, Iterable) else limits, **settings),
            store=store,
            catalog=catalog,
            sinks=sinks,
        )

    def __enter__(self) -> Self:
        """For programs without an event loop: the guard runs on one in the background."""
        self._on_its_loop(self.open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._on_its_loop(self.close)

    def _on_its_loop(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        from streamguard.client.io import SyncIo, run_now

        run_now(SyncIo(lambda: self.books.loop).guard(work))

    @classmethod
    def from_config(cls, path: str | Path) -> Self:
        """A guard as a TOML file describes it.

        Raises:
            ConfigurationError: the file cannot be read or a key in it is wrong.
        """
        given = read_config(Path(path))
        try:
            return cls(**given)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error.message}") from error

    def wrap(
        self, client: Client, *, identity: Identity | None = None, unlisted: Unlisted = "detect"
    ) -> Client:
        """A client of the same type whose every HTTP call is guarded, SDK retries included.

        ``client`` itself stays as it is. Without ``identity`` the running request's is charged.
        """
        from streamguard.client.wrap import wrap

        return wrap(self, client, identity and checked(identity), unlisted=unlisted)

    def stream(
        self,
        source: AsyncIterable[Item] | Awaitable[AsyncIterable[Item]],
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]] | None = None,
        identity: Identity | None = None,
        **request: Any,
    ) -> GuardedStream[Item]:
        """Guard any async iterator of SDK chunks or of text.

        The result is an async context manager and an async iterator; closing it closes
        ``source``. ``request`` takes what else the request says (``max_tokens=``, ``tools=``).

        Raises:
            ConfigurationError: ``source`` is no async iterator.
        """
        from streamguard.client.stream import GuardedStream

        if not isinstance(source, AsyncIterable | Awaitable):
            message = f"guard.stream takes an async iterator, not a {type(source).__name__}"
            raise ConfigurationError(message)
        body = {"model": model, "messages": list(messages or ()), "stream": True, **request}
        return GuardedStream(self, source, body, identity and checked(identity))


def _check_names(settings: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Settings)]
    for name in settings:
        if name not in known:
            near = get_close_matches(name, ["limits", "store", "catalog", "sinks", *known], 1)
            asked = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"Guard() got an unexpected keyword argument {name!r}{asked}")


def _check_parts(catalog: Any, sinks: Any) -> None:
    """What fails only at a call, and a sink's failures not even there, is refused at once."""
    if catalog is not None and not isinstance(catalog, Catalog):
        raise ConfigurationError("catalog= must be a Catalog, such as Catalog({'my-model': {…}})")
    if sinks is not None and not (isinstance(sinks, Sequence) and all(map(_is_sink, sinks))):
        message = "sinks= must be a list of objects with emit(event), such as [StructlogSink()]"
        raise ConfigurationError(message)


def _is_sink(given: Any) -> bool:
    return not isinstance(given, type) and callable(getattr(given, "emit", None))

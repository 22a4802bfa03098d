"""What a guard can be set to, in one frozen value."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from streamguard.core.room import Fit
from streamguard.core.wire import Request
from streamguard.errors import ConfigurationError
from streamguard.guard.counts import Counting, CountRemote, check_counting
from streamguard.identity import Identity
from streamguard.limits import Limit
from streamguard.protocols.openai_common import has_deployments
from streamguard.stores.policy import checked_policy
from streamguard.tokenizers.own import Paths

LimitSource = Callable[[Identity, str], Sequence[Limit] | Awaitable[Sequence[Limit]]]
"""Looks limits up when a call comes: (identity, model) to limits; plans change at run time."""

OnDisconnect = Literal["auto", "cancel", "drain"]
Ending = Literal["native", "strict", "graceful"]

_SECONDS = (
    "hold_ttl", "store_timeout", "drain_seconds", "first_token_seconds", "idle_seconds",
    "stream_seconds", "count_remote_seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """How calls wait for a window that is exhausted.

    Attributes:
        capacity: calls that may wait at once in this process; the next one is refused.
        max_wait: seconds after which a call that waits is refused.
        priority: a number for an identity; higher goes first. Within one priority tenants take
            turns.

    Raises:
        ConfigurationError: a figure is not above 0.
    """

    capacity: int = 100
    max_wait: float = 30.0
    priority: Callable[[Identity], int] | None = None

    def __post_init__(self) -> None:
        """Refuse figures that cannot work."""
        if not (is_positive(self.capacity) and self.capacity >= 1 and is_positive(self.max_wait)):
            message = (
                f"queue: capacity={self.capacity!r} and max_wait={self.max_wait!r} must be > 0"
            )
            raise ConfigurationError(message)
        if self.priority is not None and not callable(self.priority):
            message = f"queue: priority={self.priority!r} must be a callable from an Identity"
            raise ConfigurationError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """How answers are kept for requests that come again word for word, in this process.

    Attributes:
        ttl: seconds an answer is kept.
        max_bytes: of all answers; the least recently used go.
        max_answer: bytes of the largest answer that is kept.
        any_temperature: keep answers to requests that do not ask for temperature 0 as well.

    Raises:
        ConfigurationError: a figure is not above 0, or one answer may be larger than all.
    """

    ttl: float = 300.0
    max_bytes: int = 64 * 2**20
    max_answer: int = 2**20
    any_temperature: bool = False

    def __post_init__(self) -> None:
        """Refuse figures that cannot work."""
        given = (self.ttl, self.max_answer, self.max_bytes)
        if not (all(map(is_positive, given)) and self.max_answer <= self.max_bytes):
            message = (
                f"cache: ttl={self.ttl!r} must be > 0, and max_answer={self.max_answer!r} between "
                f"1 and max_bytes={self.max_bytes!r}"
            )
            raise ConfigurationError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Policies of a guard.

    Attributes:
        limits: the budgets, or a callable that looks them up for an identity and a model.
        reserve_output: output tokens reserved for a choice when the request sets no cap.
        reserve_reasoning: the same for models that think before they answer.
        min_output: output tokens a choice must be able to get, else the call is refused.
        observe: refuse, clamp and cut nothing; tell as "warned" what would have been refused.
        adaptive_reserve: hold what such streams usually use, once that is known, and more while
            they run; False holds the whole cap. Models that think unseen always hold it all.
        fit: shortens a chat body that would be refused as too long; without it, it is refused.
        fallback: models that may answer where the one asked for is refused: cheaper ones where
            a budget is gone, any that takes the prompt where it is too long.
        sizes: a name that clients ask for, to ``(tokens, model)`` pairs: the first one that the
            prompt is within answers, else the last.
        deployments: names of Azure deployments to the models behind them; a name that says
            nothing of its model has no price, and its tokens are estimated.
        queue: let calls wait where a window is exhausted; without it they are refused at once.
        cache: answer a request that comes again word for word without asking the model again.
        tokenizers: models, by name or pattern, to a local Hugging Face ``tokenizer.json`` each.
        counting: "exact", or "sampled" for batches of uniform short prompts: most are estimated
            from a sample, and their method is "calibrated".
        count_remote: asks the provider where a count would be an estimate or a bound; see
            ``streamguard.client.counting``. Where it fails, the estimate stands.
        count_remote_seconds: how long it may take.
        hold_ttl: seconds after which the hold of a crashed worker comes back.
        store_policy: of limits without their own ``fail``, while the store is out of reach:
            "closed" refuses, "open" grants, a number is each worker's share of what remained.
        store_timeout: seconds the guard waits for the store.
        ending: how a cut stream ends: "native", as the protocol ends at a cap; "strict", with an
            error event; "graceful", like native but at the end of a sentence or line.
        graceful_tokens: how far below the limit a graceful ending begins to look for one.
        on_disconnect: when the client leaves, "cancel" the call, let it "drain" to its end, or
            "auto": drain where the provider bills on all the same, so that the bill is known.
        drain_seconds: how long a call may go on after its client left.
        first_token_seconds: time budget until the first output; ``None`` is no limit.
        idle_seconds: time budget between two pieces of a stream.
        stream_seconds: time budget of a whole response.

    Raises:
        ConfigurationError: a word that is no policy, or a figure that cannot work.
    """

    limits: Sequence[Limit] | LimitSource = ()
    reserve_output: int = 4_096
    reserve_reasoning: int = 16_384
    min_output: int = 1
    observe: bool = False
    adaptive_reserve: bool = True
    fit: Fit | None = None
    fallback: Sequence[str] = ()
    sizes: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    deployments: Mapping[str, str] = field(default_factory=dict)
    queue: Queue | None = None
    cache: Cache | None = None
    tokenizers: Paths = field(default_factory=dict)
    counting: Counting = "exact"
    count_remote: CountRemote | None = None
    count_remote_seconds: float = 2.0
    hold_ttl: float = 120.0
    store_policy: str | float = "closed"
    store_timeout: float = 2.0
    ending: Ending = "native"
    graceful_tokens: int = 64
    on_disconnect: OnDisconnect = "auto"
    drain_seconds: float = 30.0
    first_token_seconds: float | None = None
    idle_seconds: float | None = None
    stream_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse figures that cannot work."""
        for name in ("reserve_output", "reserve_reasoning", "min_output", "graceful_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                message = f"{name}={value!r} must be a whole number of tokens, at least 1"
                raise ConfigurationError(message)
        for name, known in (("ending", Ending), ("on_disconnect", OnDisconnect)):
            if getattr(self, name) not in get_args(known):
                message = f"{name}={getattr(self, name)!r}; use one of {get_args(known)}"
                raise ConfigurationError(message)
        for name in _SECONDS:
            value = getattr(self, name)
            if value is not None and not is_positive(value):
                message = f"{name}={value!r} must be more than 0 seconds"
                raise ConfigurationError(message)
        for name in ("observe", "adaptive_reserve"):
            if not isinstance(getattr(self, name), bool):
                message = f"{name}={getattr(self, name)!r} must be true or false"
                raise ConfigurationError(message)
        checked_policy(self.store_policy)
        if not callable(self.limits):
            _check_names(self.limits)
        _check_models(self.fallback, self.sizes)
        _check_deployments(self.deployments)
        check_counting(self.tokenizers, self.counting, self.count_remote)

    def deployed(self, request: Request, path: str) -> Request:
        """The request by the models behind its deployments, where its path is Azure's."""
        if not self.deployments or not has_deployments(path):
            return request
        known = {name.lower(): model for name, model in self.deployments.items()}
        own, *others = (known.get(name.lower(), name) for name in request.models)
        return replace(request, model=own, also=tuple(others))

    async def limits_for(self, identity: Identity, *models: str) -> Sequence[Limit]:
        """The limits of a call, looked up where they are: those of all models that may answer.
        All are soft where nothing is refused.
        """
        limits = self.limits
        if callable(limits):
            found: dict[str, Limit] = {}
            for model in models:
                looked_up = limits(identity, model)
                held = await looked_up if inspect.isawaitable(looked_up) else looked_up
                found = {limit.name: limit for limit in held} | found
            limits = list(found.values())
        return [replace(limit, soft=True) for limit in limits] if self.observe else limits

    def output_cap(self, request: Request) -> int:
        """The client's own cap for a choice, or the policy's reserve."""
        if request.output_cap is not None:
            return request.output_cap
        return self.reserve_for(request.model)

    def reserve_for(self, model: str) -> int:
        """Output tokens reserved for a choice of this model by policy."""
        return self.reserve_reasoning if thinks_unseen(model) else self.reserve_output


Option = TypeVar("Option", Queue, Cache)


def as_option(kind: type[Option], given: Option | Mapping[str, Any] | None) -> Option | None:
    """A queue or a cache from its figures, as a config file has them.

    Raises:
        ConfigurationError: no figures, an unknown key or a figure that cannot work.
    """
    if given is None or isinstance(given, kind):
        return given
    name, known = kind.__name__.lower(), sorted(field.name for field in fields(kind))
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{name}={given!r} must be a table of {known}")
    if unknown := sorted(set(given) - set(known)):
        raise ConfigurationError(f"{name}: unknown keys {unknown}; known: {known}")
    return kind(**given)


def is_positive(value: object) -> bool:
    """Whether it is a number over 0; a file may say anything."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def thinks_unseen(model: str) -> bool:
    """Whether the model spends hidden tokens on thinking, by its name."""
    name = model.lower().rsplit("/", 1)[-1].removeprefix("ft:")
    return name.startswith(("o1", "o3", "o4", "gpt-5", "gpt-6", "deepseek-reasoner"))


def _check_models(fallback: Any, sizes: Mapping[str, Any]) -> None:
    if not isinstance(fallback, Sequence) or isinstance(fallback, str) or not _are_texts(fallback):
        message = f"fallback={fallback!r} must be a list of model names"
        raise ConfigurationError(message)
    if not isinstance(sizes, Mapping):
        message = f"sizes={sizes!r} must be a table of [tokens, model] pairs by name"
        raise ConfigurationError(message)
    for name, steps in sizes.items():
        if not (isinstance(steps, Sequence) and steps and all(map(_is_step, steps))):
            message = f"sizes: {name!r} must be a list of [tokens, model] pairs, not {steps!r}"
            raise ConfigurationError(message)
        if [most for most, _ in steps] != sorted({most for most, _ in steps}):
            message = f"sizes: {name!r} must go from the smallest number of tokens to the largest"
            raise ConfigurationError(message)


def _check_deployments(given: Any) -> None:
    if not isinstance(given, Mapping) or not _are_texts([*given, *given.values()]):
        message = f"deployments={given!r} must be a table of models by deployment"
        raise ConfigurationError(message)


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_step(step: Any) -> bool:
    if isinstance(step, str) or not isinstance(step, Sequence):
        return False
    return [type(part) for part in step] == [int, str] and step[0] > 0


def _check_names(limits: Any) -> None:
    if not isinstance(limits, Sequence) or not all(isinstance(limit, Limit) for limit in limits):
        message = f"limits={limits!r} must be a list of Limit(…)"
        raise ConfigurationError(message)
    names = [limit.name for limit in limits]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        message = f"limits share the names {double}; give each its own name="
        raise ConfigurationError(message)

"""``retry_policy``: retries that wait as told, stop in time and never repeat what cannot help."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from tenacity import AsyncRetrying, RetryCallState
from tenacity.retry import retry_base
from tenacity.stop import stop_after_attempt, stop_base
from tenacity.wait import wait_base, wait_random_exponential

from streamguard.core.strict_json import loads
from streamguard.errors import (
    BudgetExceededError,
    ConfigurationError,
    ContextWindowExceededError,
    OversizedRetryError,
    ProtocolError,
    StreamGuardError,
    WindowBudgetExceededError,
)
from streamguard.guard.engine import Engine
from streamguard.guard.numbers import LONGEST_RETRY_AFTER
from streamguard.guard.provider_errors import oversized_error, status_of
from streamguard.guard.retry_advice import told_wait, transient
from streamguard.guard.retry_tally import Tally, current_tally

Sleep = Callable[[float], Awaitable[None]]

_OVERSIZED = (ContextWindowExceededError, BudgetExceededError, OversizedRetryError)


def retry_policy(
    guard: Engine,
    *,
    attempts: int = 4,
    max_total_tokens: int | None = None,
    initial_wait: float = 0.5,
    max_wait: float = LONGEST_RETRY_AFTER,
    retry_after_output: bool = False,
    retry_on: tuple[type[Exception], ...] = (),
    sleep: Sleep = asyncio.sleep,
) -> AsyncRetrying:
    """A tenacity ``AsyncRetrying`` for model calls, as a loop or as a decorator.

    ::

        async for attempt in retry_policy(guard, max_total_tokens=50_000):
            with attempt:
                reply = await client.chat.completions.create(...)

        @retry_policy(guard).wraps
        async def answer(question: str) -> str: ...

    Retried are rate limits, time-outs, broken connections, server errors, and ``retry_on``; waits
    are random and grow up to ``max_wait`` seconds, and never are shorter than the ``Retry-After``
    told. Not retried is what waiting cannot help (requests refused as oversized, budgets that
    reset later than ``max_wait``), and, without ``retry_after_output``, anything once a guarded
    stream has handed on output. ``attempts`` counts the first; ``max_total_tokens`` is for the
    prompts sent and the output received in all attempts together, and no attempt begins whose
    prompt would go over it. The last error is raised as it is. Build the SDK's client with
    ``max_retries=0``, or its own retries multiply these.

    Raises:
        ConfigurationError: a figure that cannot work, or ``retry_on`` holds what is none.
    """
    fewest = min(attempts, attempts if max_total_tokens is None else max_total_tokens)
    if fewest < 1 or min(initial_wait, max_wait) < 0:
        raise ConfigurationError("attempts and max_total_tokens start at 1, waits at 0")
    try:
        isinstance(None, retry_on)
    except TypeError as error:
        message = f"retry_on={retry_on!r} must be a tuple of exceptions, such as (ValueError,)"
        raise ConfigurationError(message) from error
    runs = _Runs()
    worthwhile = retry_if_worthwhile(runs, guard, max_wait, retry_on, again=retry_after_output)
    told = _Told(guard, runs)
    stop: stop_base = stop_after_attempt(attempts)
    if max_total_tokens is not None:
        stop |= stop_before_tokens(runs, max_total_tokens)
    return AsyncRetrying(
        sleep=sleep,
        before=runs.enter,
        retry=worthwhile,
        wait=wait_as_told(wait_random_exponential(initial_wait, max_wait), initial_wait),
        stop=stop,
        before_sleep=told.retried,
        retry_error_callback=told.gave_up,
    )


class _Runs:
    """The tally of each run: a policy is shared by all calls of a decorated function."""

    def __init__(self) -> None:
        self._runs: WeakKeyDictionary[RetryCallState, tuple[Tally, Tally | None]] = (
            WeakKeyDictionary()
        )

    def enter(self, state: RetryCallState) -> None:
        """An attempt begins: guarded calls made in it are counted."""
        if state not in self._runs:
            outer = current_tally.get()
            self._runs[state] = (Tally(outer), outer)
        current_tally.set(self._runs[state][0])

    def leave(self, state: RetryCallState) -> Tally:
        """An attempt is over."""
        tally, outer = self._runs[state]
        current_tally.set(outer)
        return tally

    def tally(self, state: RetryCallState) -> Tally:
        """What the run's attempts sent by now."""
        return self._runs[state][0]


class retry_if_worthwhile(retry_base):  # noqa: N801 - tenacity's way to name them
    """Retry what another attempt can change."""

    def __init__(
        self,
        runs: _Runs,
        guard: Engine,
        max_wait: float,
        retry_on: tuple[type[Exception], ...],
        *,
        again: bool,
    ) -> None:
        """``again`` retries although output was handed on."""
        self._runs = runs
        self._guard = guard
        self._max_wait = max_wait
        self._retry_on = retry_on
        self._again = again

    def __call__(self, retry_state: RetryCallState) -> bool:
        """Whether to try again; also tells why not, where a retry was refused."""
        tally = self._runs.leave(retry_state)
        error = _error(retry_state)
        if error is None:
            return False
        reason = self._refuses(error, tally)
        if reason is not None:
            _tell(self._guard, "retry_refused", retry_state, tally, detail=reason)
            return False
        return transient(error) or isinstance(error, self._retry_on)

    def _refuses(self, error: BaseException, tally: Tally) -> str | None:
        if _learn(self._guard, error):
            return "oversized"
        if isinstance(error, self._retry_on) or transient(error):
            if tally.handed_on and not self._again:
                return "output_handed_on"
            if (told_wait(error) or 0) > self._max_wait:
                return "wait_too_long"
        return None


class stop_before_tokens(stop_base):  # noqa: N801
    """Stop where one more prompt would take all attempts together over ``most`` tokens."""

    def __init__(self, runs: _Runs, most: int) -> None:
        self._runs = runs
        self._most = most

    def __call__(self, retry_state: RetryCallState) -> bool:
        """Whether the next attempt would go over."""
        tally = self._runs.tally(retry_state)
        return tally.tokens + tally.last_prompt > self._most


class wait_as_told(wait_base):  # noqa: N801
    """Wait as the error tells, plus up to ``spread`` seconds; else as ``otherwise`` says."""

    def __init__(self, otherwise: wait_base, spread: float) -> None:
        self._otherwise = otherwise
        self._spread = spread

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds to wait."""
        error = _error(retry_state)
        told = None if error is None else told_wait(error)
        if told is None:
            return self._otherwise(retry_state)
        return told + random.uniform(0, self._spread)  # noqa: S311 - spreads load, no secret


class _Told:
    """Tells the guard's sinks what a run does."""

    def __init__(self, guard: Engine, runs: _Runs) -> None:
        self._guard = guard
        self._runs = runs

    def retried(self, state: RetryCallState) -> None:
        """Another attempt follows."""
        _tell(self._guard, "retried", state, self._runs.tally(state), duration=state.upcoming_sleep)

    def gave_up(self, state: RetryCallState) -> Any:
        """No attempt is left: raise the last error."""
        _tell(self._guard, "retry_refused", state, self._runs.tally(state), detail="exhausted")
        assert state.outcome is not None  # noqa: S101 - an attempt was made
        return state.outcome.result()


def _learn(guard: Engine, error: BaseException) -> bool:
    """Whether a request was refused as oversized; the guard remembers one it has not seen."""
    if isinstance(error, StreamGuardError):
        return isinstance(error, _OVERSIZED) and not isinstance(error, WindowBudgetExceededError)
    refused = oversized_error(error)
    if refused is None:
        return False
    response = getattr(error, "response", None)
    request = getattr(error, "request", None) or getattr(response, "request", None)
    # An SDK may not show the request, or it was no JSON: then there is nothing to remember.
    with contextlib.suppress(AttributeError, RuntimeError, ProtocolError):
        guard.learn_oversized(loads(request.content), refused)  # type: ignore[union-attr]
    return True


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _tell(guard: Engine, event: Any, state: RetryCallState, tally: Tally, **figures: Any) -> None:
    error = _error(state)
    status = None if error is None else status_of(error)
    code = error.http_code if isinstance(error, StreamGuardError) else type(error).__name__
    guard.teller.retry(
        event, tally.subject, attempt=state.attempt_number, status=status, code=code, **figures
    )

"""The settings as keyword arguments, so that type checkers know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from streamguard.guard.counts import Counting, CountRemote
from streamguard.guard.settings import Cache, Ending, OnDisconnect, Queue
from streamguard.tokenizers.own import Paths


class Options(TypedDict, total=False):
    """What ``Guard`` takes beside its limits, store, catalog and sinks; see ``Settings``.

    ``queue`` and ``cache`` may be tables of their fields; ``fit`` a planner, a strategy for the
    history or its name.
    """

    reserve_output: int
    reserve_reasoning: int
    min_output: int
    observe: bool
    adaptive_reserve: bool
    fit: Any
    fallback: Sequence[str]
    sizes: Mapping[str, Sequence[tuple[int, str]]]
    deployments: Mapping[str, str]
    queue: Queue | Mapping[str, Any] | None
    cache: Cache | Mapping[str, Any] | None
    tokenizers: Paths
    counting: Counting
    count_remote: CountRemote | None
    count_remote_seconds: float
    hold_ttl: float
    store_policy: str | float
    store_timeout: float
    ending: Ending
    graceful_tokens: int
    on_disconnect: OnDisconnect
    drain_seconds: float
    first_token_seconds: float | None
    idle_seconds: float | None
    stream_seconds: float | None

"""Token-budget enforcement for LLM apps.

Names load on first use, so that ``import streamguard`` costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamguard.asgi import Route as Route
    from streamguard.asgi import StreamGuardMiddleware as StreamGuardMiddleware
    from streamguard.catalog import Catalog as Catalog
    from streamguard.core.prompt import PromptCount as PromptCount
    from streamguard.counting import count_request as count_request
    from streamguard.errors import BudgetExceededError as BudgetExceededError
    from streamguard.errors import ConfigurationError as ConfigurationError
    from streamguard.errors import ContextWindowExceededError as ContextWindowExceededError
    from streamguard.errors import InputBudgetExceededError as InputBudgetExceededError
    from streamguard.errors import OutputBudgetExceededError as OutputBudgetExceededError
    from streamguard.errors import OversizedRetryError as OversizedRetryError
    from streamguard.errors import ProtocolError as ProtocolError
    from streamguard.errors import StoreUnavailableError as StoreUnavailableError
    from streamguard.errors import StreamGuardError as StreamGuardError
    from streamguard.errors import TimeBudgetExceededError as TimeBudgetExceededError
    from streamguard.errors import WindowBudgetExceededError as WindowBudgetExceededError
    from streamguard.facade import Guard as Guard
    from streamguard.identity import Identity as Identity
    from streamguard.limits import Limit as Limit
    from streamguard.planner.planner import BudgetPlanner as BudgetPlanner
    from streamguard.retry import retry_policy as retry_policy
    from streamguard.tokenizers.counter import OutputCounter as OutputCounter
    from streamguard.usage import Usage as Usage
    from streamguard.usage import UsageEvent as UsageEvent

__version__ = "0.1.0"

_HOMES = {
    "BudgetExceededError": "errors",
    "BudgetPlanner": "planner",
    "Catalog": "catalog",
    "ConfigurationError": "errors",
    "ContextWindowExceededError": "errors",
    "Guard": "facade",
    "Identity": "identity",
    "InputBudgetExceededError": "errors",
    "Limit": "limits",
    "OutputBudgetExceededError": "errors",
    "OutputCounter": "tokenizers.counter",
    "OversizedRetryError": "errors",
    "PromptCount": "core.prompt",
    "ProtocolError": "errors",
    "Route": "asgi",
    "StoreUnavailableError": "errors",
    "StreamGuardError": "errors",
    "StreamGuardMiddleware": "asgi",
    "TimeBudgetExceededError": "errors",
    "Usage": "usage",
    "UsageEvent": "usage",
    "WindowBudgetExceededError": "errors",
    "count_request": "counting",
    "retry_policy": "retry",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table, kept in order


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'streamguard' has no attribute {name!r}")
    value = getattr(import_module(f"streamguard.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]

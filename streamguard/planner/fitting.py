"""A planner as a guard's fit: shortens the chat bodies that would be refused as too long."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamguard.catalog import Catalog
from streamguard.core.counting import CountText
from streamguard.core.planning import ComponentBudget
from streamguard.core.planning_keep import KeepEdges, Strategy, newest_first
from streamguard.core.room import Fit
from streamguard.counting import renderer_of
from streamguard.errors import ConfigurationError
from streamguard.planner.planner import COMPONENTS, RESERVE, BudgetPlanner
from streamguard.planner.report import Report
from streamguard.protocols import anthropic_prompt

DEFAULT_HISTORY = next(budget for budget in COMPONENTS if budget.name == "history")

NAMED: dict[str, Strategy] = {"drop-oldest": newest_first, "keep-edges": KeepEdges()}
"""Strategies by the names that a config file uses."""


@dataclass(frozen=True, slots=True)
class Fitter:
    """Plans a request's own messages anew: order kept, tool calls whole, the question kept.

    What is trimmed leaves ``reserve`` of the window free, not just the output's least: the next
    turns fit without trimming again.
    """

    components: Sequence[ComponentBudget] = ()
    reserve: float = RESERVE
    catalog: Catalog | None = None
    cache: CountText | None = None

    async def __call__(
        self, body: Mapping[str, Any], room: int
    ) -> tuple[Mapping[str, Any], Report]:
        """The body with the messages that fit ``room`` input tokens, and the plan's report.

        Raises:
            ContextWindowExceededError: what may not be trimmed does not fit.
        """
        model = str(body.get("model") or "")
        window = (self.catalog or Catalog()).model_info(model).context_window or room
        planner = BudgetPlanner(
            model,
            components=self._components(body, model),
            window=window,
            reserve=self._reserve(window, room),
            request={key: value for key, value in body.items() if key not in ("model", "messages")},
            cache=self.cache,
        )
        plan = await planner.add_messages(body["messages"]).aplan()
        return {**body, "messages": list(plan.messages)}, plan.report

    def _components(self, body: Mapping[str, Any], model: str) -> Sequence[ComponentBudget]:
        """Anthropic's messages must begin with a question, so its history goes by whole turns."""
        if renderer_of(body, model) is not anthropic_prompt.render:
            return self.components
        history = next(
            (each for each in self.components if each.name == "history"), DEFAULT_HISTORY
        )
        return (*self.components, replace(history, turns=True))

    def _reserve(self, window: int, room: int) -> int:
        """At least what makes the prompt fit the room."""
        own = self.reserve if isinstance(self.reserve, int) else -int(-self.reserve * window // 1)
        return min(window - 1, max(own, window - room))


def as_fit(given: Any, catalog: Catalog | None = None) -> Fit | None:
    """What a guard calls, from what a user gives.

    A planner (its components and reserve are used, not its messages), a strategy for the
    history, its name (``NAMED``), or a callable of a body and its room, as it is.

    Raises:
        ConfigurationError: none of these.
    """
    if given is None:
        return None
    if isinstance(given, BudgetPlanner):
        return Fitter(tuple(given.budgets.values()), given.reserve, catalog)
    if isinstance(given, str):
        if given not in NAMED:
            raise ConfigurationError(f"fit={given!r} is unknown; use one of {', '.join(NAMED)}")
        given = NAMED[given]
    if not callable(given):
        raise ConfigurationError(f"fit={given!r} is no planner, strategy or callable")
    if isinstance(given, Fitter) or _takes(given) != 1:
        fit: Fit = given
        return fit
    return Fitter((replace(DEFAULT_HISTORY, keep=given),), catalog=catalog)


def _takes(given: Any) -> int:
    """How many arguments it must be given."""
    parameters = inspect.signature(given).parameters.values()
    return sum(each.default is each.empty for each in parameters)

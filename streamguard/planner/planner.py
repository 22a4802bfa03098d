"""``BudgetPlanner``: splits a context window into components and renders the messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Self

import anyio.to_thread

from streamguard.catalog import Catalog
from streamguard.core.counting import CountText
from streamguard.core.planning import ComponentBudget
from streamguard.core.planning_keep import by_score, newest_first, oldest_first
from streamguard.core.planning_units import Grouping, Message, Unit, component_of, split_turn
from streamguard.errors import ConfigurationError
from streamguard.planner.chunks import SEPARATOR, Chunk, Chunks
from streamguard.planner.draft import Ask, Draft, Space, Summaries
from streamguard.planner.plan import Plan
from streamguard.planner.sheet import Render, Sheet, by_shape

RESERVE = 0.2
"""The fraction of the window that is kept for the output unless said otherwise."""

COMPONENTS = (
    ComponentBudget("system", kind="fixed", priority=100),
    ComponentBudget(
        "few_shot", kind="dynamic", share=0.1, priority=20, keep=oldest_first, turns=True
    ),
    ComponentBudget("history", kind="growing", share=0.4, priority=60, keep=newest_first),
    ComponentBudget("retrieved", kind="dynamic", share=0.3, priority=40, keep=by_score),
    ComponentBudget("user", kind="fixed", priority=100),
)
"""The components a planner has unless said otherwise; those given replace them by name."""

_BIG = 32_768
"""Characters above which a plan is made in a thread."""

Steps = Generator[Ask, str, Plan]


class BudgetPlanner:
    """Plans the messages of one conversation with one model.

    ::

        planner = BudgetPlanner("gpt-4o")
        planner.add_message({"role": "system", "content": "Answer from the documents."})
        planner.add_chunks([("Oslo is the capital of Norway.", 0.9)])
        planner.add_message({"role": "user", "content": "What is the capital of Norway?"})
        plan = planner.plan()

    A message's component comes from its role: ``system``, ``few_shot`` (by the names
    ``example_user`` and ``example_assistant``), ``user`` (the last question and whatever stands
    at the very end) and ``history`` (the rest). Order is kept; chunks come just before the
    question.

    Args:
        model: whose tokenizer counts and whose context window is planned.
        components: budgets that replace those of ``COMPONENTS`` with the same name, or add to
            them.
        window: tokens of the context window, where the catalog does not know the model.
        reserve: kept for the output: a fraction of the window, or tokens.
        trim: False refuses instead of trimming anything (legal and medical text).
        request: the rest of the request body (tools, response_format, …), counted too.
        catalog: where context windows are looked up.
        chunks: how the kept chunks become a message.
        cache: counts a text, from memory where it can.
        render: the prompt of a body, where its wire format is not to be told from its shape.

    Raises:
        ConfigurationError: the window is unknown or a figure cannot be.
    """

    def __init__(
        self,
        model: str,
        *,
        components: Iterable[ComponentBudget] = (),
        window: int | None = None,
        reserve: float = RESERVE,
        trim: bool = True,
        request: Mapping[str, Any] | None = None,
        catalog: Catalog | None = None,
        chunks: Chunks | None = None,
        cache: CountText | None = None,
        render: Render = by_shape,
    ) -> None:
        self.model = model
        self.reserve = reserve
        window = window or (catalog or Catalog()).model_info(model).context_window
        self.space = _space(model, window, reserve, trim=trim)
        own = {budget.name: budget for budget in (*COMPONENTS, *components)}
        self.budgets = own
        self._sheet = Sheet(model, request or {}, cache, render)
        self._chunks = chunks or Chunks()
        self._entries: list[Message | Chunk] = []
        self._summaries: Summaries = {}
        self._plain = True
        self._size = 0
        self._groups = {name: Grouping(pairs=budget.turns) for name, budget in own.items()}

    def add_message(self, message: Message, component: str | None = None) -> Self:
        """Add a message; without ``component`` it goes where its role says.

        A tool's result always joins the call it answers.

        Raises:
            ConfigurationError: there is no such component, or the message is no object.
        """
        if not isinstance(message, Mapping):
            told = "a message is an object, such as {'role': 'user', 'content': '…'}"
            raise ConfigurationError(told)
        owner = next((group for group in self._groups.values() if group.owns(message)), None)
        group = owner or self._group(component or component_of(message))
        group.add(message, len(self._entries))
        self._entries.append(message)
        self._size += _characters(message)
        return self

    def add_messages(self, messages: Iterable[Message], component: str | None = None) -> Self:
        """Add messages in order, see ``add_message``."""
        for message in messages:
            self.add_message(message, component)
        return self

    def add_chunks(
        self, chunks: Iterable[Chunk | tuple[str, float]], component: str = "retrieved"
    ) -> Self:
        """Add retrieved texts with their scores; more is better.

        Raises:
            ConfigurationError: there is no such component, or a chunk is no text with a score.
        """
        group = self._group(component)
        if self.budgets[component].kind != "dynamic":
            message = f"chunks need a dynamic component, and {component!r} is not"
            raise ConfigurationError(message)
        for chunk in chunks:
            text, score = _text_and_score(chunk)
            group.append(Unit((len(self._entries),), role="chunk", score=score))
            self._entries.append(Chunk(text, score))
            self._size += len(text)
        return self

    def plan(self) -> Plan:
        """Fit everything added into the window, less the reserve.

        Raises:
            ContextWindowExceededError: what may not be trimmed does not fit.
            ConfigurationError: a summariser is asynchronous; await ``aplan`` instead.
        """
        steps = self._steps()
        found = _advance(steps, None)
        while not isinstance(found, Plan):
            summary = found[0].by(found[1])
            if not isinstance(summary, str):
                close: Callable[[], None] = getattr(summary, "close", lambda: None)
                close()
                message = "the summariser is asynchronous; use `await planner.aplan()`"
                raise ConfigurationError(message)
            found = _advance(steps, summary)
        return found

    async def aplan(self) -> Plan:
        """``plan`` for the event loop: big ones are made in a thread, summaries awaited.

        Raises:
            ContextWindowExceededError: what may not be trimmed does not fit.
        """
        run = anyio.to_thread.run_sync if self._size > _BIG else _at_once
        steps: Steps = await run(self._steps)
        found: Ask | Plan = await run(_advance, steps, None)
        while not isinstance(found, Plan):
            answer = found[0].by(found[1])
            summary = await answer if inspect.isawaitable(answer) else answer
            found = await run(_advance, steps, summary)
        return found

    def _group(self, component: str) -> Grouping:
        if component not in self._groups:
            message = f"no component {component!r}; there are {', '.join(self._groups)}"
            raise ConfigurationError(message)
        return self._groups[component]

    def _steps(self) -> Steps:
        """Count what is new and begin a draft."""
        for group in self._groups.values():
            group.count(self._cost)
        units = {name: list(group.units) for name, group in self._groups.items()}
        if not units["user"]:
            units["history"], units["user"] = split_turn(units["history"])
        parts = [(budget, units[budget.name]) for budget in self.budgets.values()]
        return Draft(
            self._sheet,
            self.space,
            list(self._entries),
            parts,
            self._chunks,
            self._summaries,
            plain=self._plain,
        ).steps()

    def _cost(self, unit: Unit) -> float:
        entries = [self._entries[at] for at in unit.positions]
        first = entries[0]
        if isinstance(first, Chunk):
            return self._sheet.text(SEPARATOR + first.text)
        messages = [entry for entry in entries if not isinstance(entry, Chunk)]
        self._plain = self._plain and self._sheet.is_plain(messages)
        return self._sheet.cost(messages)


def _advance(steps: Steps, summary: str | None) -> Ask | Plan:
    """What the draft asks for next, or the plan."""
    try:
        return next(steps) if summary is None else steps.send(summary)
    except StopIteration as end:
        plan: Plan = end.value
        return plan


async def _at_once(work: Callable[..., Any], *args: Any) -> Any:
    return work(*args)


def _text_and_score(chunk: Any) -> tuple[str, float]:
    try:
        text, score = chunk
        if isinstance(text, str) and not isinstance(chunk, str):
            return text, float(score)
    except (TypeError, ValueError):
        pass
    kind = type(chunk).__name__
    message = f"a chunk is a text with its score, such as ('Oslo …', 0.9), and not this {kind}"
    raise ConfigurationError(message)


def _characters(message: Message) -> int:
    content = message.get("content")
    return len(content if isinstance(content, str) else str(message))


def _space(model: str, window: int | None, reserve: float, *, trim: bool) -> Space:
    if window is None:
        message = f"the context window of {model!r} is not known; give window= in tokens"
        raise ConfigurationError(message)
    tokens = reserve if isinstance(reserve, int) else -int(-(reserve * window) // 1)
    if isinstance(reserve, bool) or not 0 <= tokens < window:
        message = f"reserve={reserve!r} must leave room in the window of {window:,} tokens"
        raise ConfigurationError(message)
    return Space(window, tokens, trim)

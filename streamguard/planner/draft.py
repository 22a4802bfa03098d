"""One plan in the making: choose what to keep, put it together, count the whole, and check."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NoReturn

from streamguard.core.metering import TextMeter
from streamguard.core.planning import (
    EPSILON,
    Choice,
    ComponentBudget,
    Need,
    choose,
    floors,
    needs,
)
from streamguard.core.planning_keep import Summarise
from streamguard.core.planning_units import Message, Unit
from streamguard.core.prompt import PromptCount
from streamguard.errors import ContextWindowExceededError
from streamguard.planner.chunks import Chunk, Chunks
from streamguard.planner.plan import Plan
from streamguard.planner.report import ComponentReport, Report
from streamguard.planner.sheet import Sheet

Ask = tuple[Summarise, Sequence[Message]]
Summaries = dict[str, tuple[tuple[int, ...], str]]
"""Component to the positions that its last summary stands for, and its text."""

OPENING = "Summary of the conversation so far:\n"


@dataclass(frozen=True)
class Space:
    """The window, what of it is kept for the output, and whether trimming is allowed."""

    window: int
    reserve: int
    trim: bool = True

    @property
    def room(self) -> int:
        """Tokens of input."""
        return self.window - self.reserve


class Draft:
    """Makes one plan. ``steps`` yields what is to be summarised and is sent the summary."""

    def __init__(
        self,
        sheet: Sheet,
        space: Space,
        entries: Sequence[Message | Chunk],
        parts: Sequence[tuple[ComponentBudget, Sequence[Unit]]],
        chunks: Chunks,
        summaries: Summaries,
        *,
        plain: bool,
    ) -> None:
        """``plain``: what was added costs the same together as one by one."""
        self._sheet = sheet
        self._space = space
        self._entries = entries
        self._chunks = chunks
        self._summaries = summaries
        self._plain = plain and sheet.is_plain([chunks.message([])])
        budgets, units = [part[0] for part in parts], [part[1] for part in parts]
        self._needs = needs(budgets, units, trim=space.trim)
        self._floors = floors(self._needs, trim=space.trim)
        self._base = sheet.around(self._system())
        self._around = self._base + sum(
            sheet.cost([chunks.message([])])
            for each in units
            if any(unit.score is not None for unit in each)
        )

    def _system(self) -> Message | None:
        """The first system message, which is kept where anything is."""
        fixed = (unit for need in self._needs if need.budget.kind == "fixed" for unit in need.units)
        found = (unit.positions[0] for unit in fixed if unit.role in ("system", "developer"))
        first = min(found, default=None)
        return None if first is None else self._message(first)

    def steps(self) -> Generator[Ask, str, Plan]:
        """Choose, summarise, assemble and count until the count fits.

        Raises:
            ContextWindowExceededError: the components' minima do not fit, or nothing may be
                trimmed and something would have to be.
        """
        while True:
            room = self._space.room - self._around
            if sum(self._floors) > room + EPSILON:
                self._refuse()
            choices = choose(self._needs, self._floors, room)
            allowance = self._allowance(choices)
            if allowance and sum(self._floors) + allowance <= room:
                choices = choose(self._needs, self._floors, room - allowance)
                yield from self._summarise(choices)
                messages, texts = self._assemble(choices, with_summaries=True)
            else:
                messages, texts = self._assemble(choices, with_summaries=False)
            report = self._report(choices, messages, texts)
            over = report.input_tokens - self._space.room
            if over <= 0:
                return Plan(messages, report, self._sheet.request)
            # Messages can cost more together than one by one: that is overhead too.
            self._around += over

    def _refuse(self) -> NoReturn:
        space = self._space
        components = {need.budget.name: ceil(need.tokens) for need in self._needs}
        components = {name: tokens for name, tokens in components.items() if tokens}
        components["overhead"] = ceil(self._around)
        least = ceil(sum(self._floors) + self._around)
        largest = max(components, key=lambda name: components[name])
        message = (
            f"the prompt needs at least {least:,} tokens and the context window of "
            f"{space.window:,} less {space.reserve:,} reserved for the output leaves "
            f"{space.room:,} (largest part: {largest} with {components[largest]:,}). "
            + (
                "Shorten what is fixed, lower the components' minima or use a larger model."
                if space.trim
                else "Nothing may be trimmed (trim=False): shorten it or use a larger model."
            )
        )
        raise ContextWindowExceededError(
            message,
            limit=space.window,
            used=least,
            requested=least + space.reserve,
            unit="tokens",
            components=components,
        )

    def _allowance(self, choices: Sequence[Choice]) -> int:
        """Tokens that the summaries of what was dropped may take."""
        return sum(
            need.budget.keep.tokens
            for need, choice in zip(self._needs, choices, strict=True)
            if isinstance(need.budget.keep, Summarise) and len(choice.kept) < len(need.units)
        )

    def _summarise(self, choices: Sequence[Choice]) -> Generator[Ask, str, None]:
        for need, choice in zip(self._needs, choices, strict=True):
            keep, name = need.budget.keep, need.budget.name
            dropped = _dropped(need, choice)
            if not isinstance(keep, Summarise) or not dropped:
                continue
            known, text = self._summaries.get(name, ((), ""))
            if known == dropped:
                continue
            older = known if known and dropped[: len(known)] == known else ()
            earlier = [_said(keep, text)] if older else []
            text = yield keep, [*earlier, *(self._message(at) for at in dropped[len(older) :])]
            self._summaries[name] = (dropped, self._cut(keep, text))

    def _cut(self, keep: Summarise, text: str) -> str:
        """The longest beginning of a summary whose message costs at most its allowance."""
        limit = int(keep.tokens - self._sheet.cost([_said(keep, "")]))
        short = text
        while short and (over := self._sheet.cost([_said(keep, short)]) - keep.tokens) > 0:
            short = TextMeter(self._sheet.tokenizer).take(text, max(0, limit))
            limit -= max(1, int(over))
        return short

    def _message(self, position: int) -> Message:
        entry = self._entries[position]
        assert not isinstance(entry, Chunk)  # noqa: S101 - asked for messages only
        return entry

    def _assemble(
        self, choices: Sequence[Choice], *, with_summaries: bool
    ) -> tuple[tuple[Message, ...], list[Message]]:
        """The messages in their order, and which of them are summaries."""
        placed: list[tuple[float, Message]] = []
        summaries: list[Message] = []
        for need, choice in zip(self._needs, choices, strict=True):
            kept = [need.units[at] for at in sorted(choice.kept)]
            chunks = [unit for unit in kept if unit.score is not None]
            if chunks:
                placed.append((self._before_the_turn() - 0.25, self._chunk_message(chunks)))
            placed += [
                (at, self._message(at))
                for unit in kept
                if unit.score is None
                for at in unit.positions
            ]
            dropped = _dropped(need, choice)
            if with_summaries and dropped and isinstance(need.budget.keep, Summarise):
                text = self._summaries[need.budget.name][1]
                summaries.append(_said(need.budget.keep, text))
                placed.append((dropped[0] - 0.5, summaries[-1]))
        placed.sort(key=lambda pair: pair[0])
        return tuple(message for _, message in placed), summaries

    def _chunk_message(self, kept: Sequence[Unit]) -> Message:
        chunks = [self._entries[unit.positions[0]] for unit in kept]
        return self._chunks.render([chunk for chunk in chunks if isinstance(chunk, Chunk)])

    def _before_the_turn(self) -> int:
        """Where the present question stands; after everything when there is none."""
        present = next((need.units for need in self._needs if need.budget.name == "user"), ())
        return min((unit.positions[0] for unit in present), default=len(self._entries))

    def _report(
        self, choices: Sequence[Choice], messages: Sequence[Message], texts: Sequence[Message]
    ) -> Report:
        spent = [self._spent(*pair) for pair in zip(self._needs, choices, strict=True)]
        summaries = self._sheet.cost(texts)
        count = self._count(messages, [*spent, summaries, self._base])
        *shown, brief = _whole([*spent, summaries], count.input_tokens)
        return Report(
            model=self._sheet.model,
            window=self._space.window,
            reserve=self._space.reserve,
            input_tokens=count.input_tokens,
            method=count.method,
            overhead=count.input_tokens - sum(shown) - brief,
            summaries=brief,
            components=tuple(map(_component, self._needs, choices, shown)),
            asked=self._needs,
            choices=choices,
        )

    def _count(self, messages: Sequence[Message], costs: Sequence[float]) -> PromptCount:
        if self._plain:
            return PromptCount(round(sum(costs)), "exact")
        return self._sheet.count(messages)

    def _spent(self, need: Need, choice: Choice) -> float:
        """What a component costs in the end: chunks as the one message that they became."""
        kept = [need.units[at] for at in sorted(choice.kept)]
        chunks = [unit for unit in kept if unit.score is not None]
        if not chunks:
            return choice.tokens
        own = sum(unit.tokens for unit in kept if unit.score is None)
        return own + self._sheet.cost([self._chunk_message(chunks)])


def _whole(parts: Sequence[float], total: int) -> list[int]:
    """Whole tokens that add up to the parts' sum, rounded up, and to no more than ``total``."""
    found: list[int] = []
    running = 0.0
    for part in parts:
        running += part
        found.append(min(total, ceil(running - EPSILON)) - sum(found))
    return found


def _component(need: Need, choice: Choice, spent: int) -> ComponentReport:
    return ComponentReport(
        name=need.budget.name,
        kind=need.budget.kind,
        needed=max(spent, ceil(need.tokens - EPSILON)),
        tokens=spent,
        kept=len(choice.kept),
        trimmed=len(need.units) - len(choice.kept),
    )


def _dropped(need: Need, choice: Choice) -> tuple[int, ...]:
    units = (unit for at, unit in enumerate(need.units) if at not in choice.kept)
    return tuple(sorted(at for unit in units for at in unit.positions))


def _said(keep: Summarise, text: str) -> Mapping[str, Any]:
    return {"role": keep.role, "content": OPENING + text}

"""What a planner answers: the messages that fit, and the report of how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamguard.core.planning_units import Message
from streamguard.planner.report import Report

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Plan:
    """Messages that fit, and the report of how they came about.

    Print it with ``rich`` for a picture of the window, or take ``svg()``.
    """

    messages: tuple[Message, ...] = field(repr=False)  # a prompt does not belong in a log
    report: Report
    request: Mapping[str, Any] = field(repr=False)

    @property
    def body(self) -> dict[str, Any]:
        """The request body to send: the planner's ``request=`` with model and messages."""
        return {**self.request, "model": self.report.model, "messages": list(self.messages)}

    def svg(self, width: int = 720) -> str:
        """The window as an SVG image, ``width`` pixels wide."""
        from streamguard.planner.picture import svg

        return svg(self.report, width)

    def __rich__(self) -> RenderableType:
        from streamguard.planner.picture import renderable

        return renderable(self.report)

"""Retrieved chunks: scored texts that one message carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from streamguard.core.planning_units import Message

Arrange = Literal["edges", "score", "added"]
SEPARATOR = "\n\n"


class Chunk(NamedTuple):
    """A retrieved text and how well it matches; more is better."""

    text: str
    score: float = 0.0


ChunkMessage = Callable[[Sequence[str]], Message]


def joined(texts: Sequence[str]) -> Message:
    """A user message of the texts, a blank line between them."""
    return {"role": "user", "content": SEPARATOR.join(texts)}


class Chunks:
    """How kept chunks become a message: ``message`` makes it of their texts.

    ``arrange``: "edges" puts the best at the beginning and the end, where models look most
    ("lost in the middle"); "score" puts the best first; "added" keeps the order given.
    """

    def __init__(self, message: ChunkMessage = joined, arrange: Arrange = "edges") -> None:
        self.message = message
        self.arrange = arrange

    def render(self, chunks: Sequence[Chunk]) -> Message:
        """The message of these chunks, given in the order added."""
        return self.message([chunk.text for chunk in self._arranged(chunks)])

    def _arranged(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        if self.arrange == "added":
            return chunks
        best = sorted(chunks, key=lambda chunk: -chunk.score)
        return best if self.arrange == "score" else [*best[::2], *best[1::2][::-1]]

"""What a guard learnt of prompts outlives it, in the store."""

from __future__ import annotations

import pytest

from streamguard import Guard, Limit, Usage
from streamguard.core.billing import Spent
from streamguard.errors import StoreUnavailableError
from streamguard.guard.learning import Learning
from streamguard.guard.notebook import EVERY, NAME
from streamguard.sinks.memory import ListSink
from streamguard.stores.memory import MemoryStore
from streamguard.stores.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

MODEL = "claude-sonnet-4-5"
BODY = {
    "model": MODEL,
    "max_tokens": 5,
    "messages": [{"role": "user", "content": "All work and no play. " * 40}],
}
PATH = "/v1/messages"
LIMIT = Limit(tokens=10_000_000, per="hour")


async def teach(guard, calls):
    """Calls whose provider reports half as much again as what was estimated."""
    for _ in range(calls):
        call = await guard.begin(await guard.subject(BODY, path=PATH))
        count = call.assessment.count
        raw = count.input_tokens / (1 + count.margin) / count.ratio
        reported = Usage(input_tokens=round(raw * 1.5), output_tokens=1)
        await call.finish(Spent("completed", reported, reported))


async def counted(guard):
    return (await guard.preflight(BODY, path=PATH)).count


async def test_a_second_guard_on_the_same_file_starts_with_what_the_first_learnt(tmp_path):
    url = f"sqlite:///{tmp_path}/budgets.db"
    async with Guard([LIMIT], store=url, sinks=[]) as first:
        await teach(first, 30)
        learnt = await counted(first)
    assert learnt.ratio == pytest.approx(1.5, rel=0.01)
    async with Guard([LIMIT], store=url, sinks=[]) as second:
        assert (await counted(second)).input_tokens == learnt.input_tokens
        before = second.counter.calibrator.correction(MODEL)
    async with second:  # opened again: nothing is taken up twice
        assert second.counter.calibrator.correction(MODEL) == before
    assert before.samples == 30


async def test_a_guard_that_learnt_nothing_writes_nothing(tmp_path):
    store = SqliteStore(f"{tmp_path}/budgets.db")
    async with Guard([LIMIT], store=store, sinks=[]) as guard:
        await guard.preflight(BODY, path=PATH)
    await store.open()
    assert await store.noted(NAME) is None
    await store.close()


@pytest.mark.parametrize("kept", [b"", b"{", b"[]", b'{"version": 9}', b'{"models": 5}', b"\xff"])
async def test_a_note_of_another_form_is_left_out(kept):
    store = MemoryStore()
    await store.note(NAME, kept)
    async with Guard([LIMIT], store=store, sinks=[]) as guard:
        assert guard.counter.calibrator.drift() == {}


class Forgetful(MemoryStore):
    """Budgets work, notes do not."""

    async def note(self, name, value):
        raise StoreUnavailableError("no notes")

    async def noted(self, name):
        raise StoreUnavailableError("no notes")


async def test_failing_notes_are_told_and_change_nothing():
    sink = ListSink()
    async with Guard([LIMIT], store=Forgetful(), sinks=[sink]) as guard:
        await teach(guard, 25)
        assert (await counted(guard)).ratio == pytest.approx(1.5, rel=0.01)
    told = [event.request_id for event in sink.events if event.event == "store_error"]
    assert told == [NAME, NAME]
    assert sum(event.event == "settled" for event in sink.events) == 25


async def test_it_is_saved_at_most_once_a_minute():
    store, now = MemoryStore(), 0.0
    guard = Guard([LIMIT], store=store, sinks=[])
    guard.learning = Learning(guard.settings, guard.books, guard.counter.calibrator, lambda: now)
    async with guard:
        await teach(guard, 1)
        assert await store.noted(NAME) is None
        now = EVERY
        await teach(guard, 1)
        await guard.learning.save()
        first = await store.noted(NAME)
        now = 2 * EVERY - 1
        await teach(guard, 3)
        assert first is not None
        assert await store.noted(NAME) == first
    assert await store.noted(NAME) != first

"""The page's figures, from a real guard's calls, store and ledger."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import replace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import settled
from support.texts import ENGLISH

from streamguard import Guard, Identity, Limit
from streamguard.core.fund import SLACK
from streamguard.core.metering import TextMeter
from streamguard.errors import ConfigurationError, StoreUnavailableError, StreamGuardError
from streamguard.live import costs as live_costs
from streamguard.live import spending as live_spending
from streamguard.live import view as live_view
from streamguard.live import windows as live_windows
from streamguard.live.costs import LedgerView
from streamguard.live.page import LivePage
from streamguard.live.sink import LiveSink
from streamguard.live.view import LiveView
from streamguard.sinks.ledger import LedgerSink
from streamguard.stores.memory import MemoryStore
from streamguard.tokenizers import get_tokenizer

DAY = 86_400
MESSAGES = [{"role": "user", "content": "Say something."}]
O200K = get_tokenizer("o200k_base")


class Scene:
    """A guard with a page's view on it."""

    def __init__(self, *limits, ledger=None, **settings):
        given = limits[0] if limits and callable(limits[0]) else limits
        self.guard = Guard(given, sinks=settings.pop("sinks", []), **settings)
        self.sink = LiveSink()
        self.guard.teller.listen(self.sink)
        self.now = time.time()
        self.view = LiveView(self.guard, self.sink, ledger, clock=lambda: self.now)

    async def look(self):
        return {name: figures async for name, figures in self.view.sections()}

    def stream(self, gate=None, tenant="acme", model="gpt-4o", **request):
        async def text():
            for word in ENGLISH.split(" ")[:40]:
                yield word + " "
            if gate is not None:
                await gate.wait()

        who = Identity(tenant)
        messages = request.pop("messages", MESSAGES)
        return self.guard.stream(text(), model=model, messages=messages, identity=who, **request)


async def read(stream):
    async with stream:
        return [part async for part in stream]


@given(st.lists(st.text(max_size=40), max_size=30))
def test_a_look_at_a_meter_is_exact_and_changes_nothing(parts):
    looked, left_alone = TextMeter(O200K), TextMeter(O200K)
    for number, part in enumerate(parts, start=1):
        looked.feed(part)
        left_alone.feed(part)
        assert looked.nearly == O200K.count("".join(parts[:number]))
        assert (looked.upper, looked.lower) == (left_alone.upper, left_alone.lower)
    assert looked.nearly == looked.count == left_alone.count


def test_a_look_at_a_meter_that_would_take_long_is_an_upper_bound():
    meter = TextMeter(O200K)
    meter.feed("\n" + " " * 50_000)
    assert meter.nearly == meter.upper > meter.count


def test_an_open_stream_is_shown_as_it_runs_and_goes_when_it_ends():
    async def scene():
        scene = Scene(Limit(tokens=10_000, per="hour", scope=("tenant",)))
        gate = anyio.Event()
        async with scene.guard:
            stream = scene.stream(gate, max_tokens=900)
            text = ""
            async with stream:
                before = (await scene.look())["streams"]
                for _ in range(40):
                    text += await anext(stream)
                during = (await scene.look())["streams"]
                gate.set()
            after = (await scene.look())["streams"]
        return before, during, after, text, stream

    before, during, after, text, stream = anyio.run(scene)
    (row,) = before["rows"]
    assert (row["output"], row["limit"], row["tenant"]) == (None, 900, "acme")
    (row,) = during["rows"]
    assert row["output"] == O200K.count(text)
    assert row["id"] == stream.request_id
    assert row["input"] == stream.prompt.input_tokens
    assert row["held"] <= row["limit"] == 900
    assert abs(row["at"] - time.time()) < 60
    assert (during["open"], during["waiting"]) == (1, 0)
    assert after == {"open": 0, "waiting": 0, "rows": []}


def test_a_call_inside_another_is_not_shown_twice():
    async def scene():
        scene = Scene()
        async with scene.guard:
            outer = await scene.guard.begin(await subject(scene.guard))
            inner = await scene.guard.begin(await subject(scene.guard))
            inner.assessment = replace(inner.assessment, within=outer.request_id)
            shown = (await scene.look())["streams"]
            return shown, outer.request_id

    shown, request_id = anyio.run(scene)
    assert [row["id"] for row in shown["rows"]] == [request_id]


async def subject(guard, **more):
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True, **more}
    return await guard.subject(body, path="/v1/chat/completions", identity=Identity("acme"))


def test_of_very_many_streams_those_nearest_to_their_budget_are_listed(monkeypatch):
    monkeypatch.setattr(live_view, "STREAMS", 2)

    async def scene():
        scene = Scene()
        async with scene.guard:
            calls = []
            for cap in (50, 5_000, 60, 5_000):
                call = await scene.guard.begin(await subject(scene.guard, max_tokens=cap))
                call.meter().feed(
                    b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
                )
                calls.append(call)
            return (await scene.look())["streams"], [call.request_id for call in calls]

    shown, ids = anyio.run(scene)
    assert shown["open"] == 4
    assert [row["id"] for row in shown["rows"]] == [ids[0], ids[2]]
    assert [row["output"] for row in shown["rows"]] == [1, 1]


def test_a_dropped_call_does_not_stay_on_the_page():
    async def scene():
        scene = Scene()
        async with scene.guard:
            await scene.guard.begin(await subject(scene.guard))
            import gc

            gc.collect()
            return (await scene.look())["streams"]["open"]

    assert anyio.run(scene) == 0


def test_a_look_while_another_thread_begins_a_call_shows_none_and_goes_on():
    class Changing:
        def __iter__(self):
            raise RuntimeError("Set changed size during iteration")

    async def watch():
        scene.guard._calls = Changing()
        return await scene.look()

    scene = Scene()
    found = anyio.run(watch)
    assert found["streams"] == {"open": 0, "waiting": 0, "rows": []}
    assert "error" not in str(found)


def test_windows_show_what_is_used_and_held_apart_and_by_whom():
    hour = Limit(tokens=10_000, per="hour", scope=("tenant",), name="plan")
    month = Limit(cost="5", per="month", name="all", calendar=True)
    once = Limit(tokens=5_000, per="request")
    few = Limit(concurrency=9, name="few")
    other = Limit(requests=9, per="minute", name="other", where={"tenant": "nobody"})

    async def scene():
        scene = Scene(hour, month, once, few, other, adaptive_reserve=False)
        gate = anyio.Event()
        async with scene.guard:
            await read(scene.stream())
            await read(scene.stream(tenant="tiny"))
            stream = scene.stream(gate, max_tokens=700)
            async with stream:
                for _ in range(40):
                    await anext(stream)
                found = (await scene.look())["windows"]
                gate.set()
            return found, (await scene.look())["windows"], stream.usage

    found, later, usage = anyio.run(scene)
    rows = {(row["name"], row["scope"].get("tenant")): row for row in found["rows"]}
    assert set(rows) == {("plan", "acme"), ("plan", "tiny"), ("all", None), ("few", None)}
    assert found["known"] == 4
    mine = rows["plan", "acme"]
    assert (mine["limit"], mine["unit"], mine["span"], mine["calendar"]) == (
        10_000, "tokens", 3_600, False,
    )  # fmt: skip
    assert mine["held"] == usage.input_tokens + 700 + SLACK
    assert 0 < mine["used"] < 200
    assert mine["resets_at"] > time.time()
    left = mine["limit"] - mine["used"] - mine["held"]
    assert [point[1:] for point in mine["history"]] == [[left, mine["used"]]]
    assert (rows["few", None]["held"], rows["few", None]["used"]) == (1, 0)
    assert rows["all", None]["unit"] == "cost"
    assert rows["all", None]["calendar"]
    after = next(row for row in later["rows"] if row["id"] == mine["id"])
    assert after["held"] == 0
    assert after["used"] == mine["used"] + usage.input_tokens + usage.output_tokens
    assert after["history"][-1][1:] == [10_000 - after["used"], after["used"]]


def test_the_history_of_a_window_is_bounded_and_says_when_it_changed(monkeypatch):
    monkeypatch.setattr(live_windows, "POINTS", 5)
    minute = Limit(requests=1_000, per="minute", name="calls")

    async def scene():
        scene = Scene(minute)
        async with scene.guard:
            for _ in range(8):
                await read(scene.stream())
                history = (await scene.look())["windows"]["rows"][0]["history"]
                again = (await scene.look())["windows"]["rows"][0]["history"]
                assert again == history  # a look alone adds nothing
                scene.now += 30
        return history

    history = anyio.run(scene)
    assert [used for _, _, used in history] == [4, 5, 6, 7, 8]
    assert [left for _, left, _ in history] == [996, 995, 994, 993, 992]
    assert [b[0] - a[0] for a, b in itertools.pairwise(history)] == [30] * 4


def test_of_very_many_windows_the_tightest_are_shown(monkeypatch):
    monkeypatch.setattr(live_windows, "SHOWN", 3)
    monkeypatch.setattr(live_windows, "ASKED", 10)
    monkeypatch.setattr(live_windows, "_KNOWN", 4)
    plan = Limit(tokens=2_000, per="hour", scope=("tenant",))

    async def scene():
        scene = Scene(plan)
        async with scene.guard:
            for number in range(15):
                await read(scene.stream(tenant=f"t{number}"))
            for _ in range(12):
                await read(scene.stream(tenant="t12"))
            found = (await scene.look())["windows"]
            windows = scene.view._windows
            for _ in range(30):
                await read(scene.stream(tenant=f"more {_}"))
                await scene.look()
            return found, len(windows._limits), len(windows._history)

    found, limits, history = anyio.run(scene)
    assert found["known"] == 10
    assert len(found["rows"]) == 3
    assert found["rows"][0]["scope"] == {"tenant": "t12"}
    assert limits <= 4
    assert history <= 12


def test_names_that_were_cut_name_no_account():
    async def scene():
        scene = Scene(Limit(tokens=9_000, per="hour", scope=("tenant",)))
        async with scene.guard:
            await read(scene.stream(tenant="t" * 200, max_tokens=9))
            await read(scene.stream(tenant="ok"))
            return await scene.look()

    found = anyio.run(scene)
    (cut,) = found["incidents"]["rows"]
    assert cut["tenant"].endswith("t…")
    assert [row["scope"]["tenant"] for row in found["windows"]["rows"]] == ["ok"]
    assert found["spenders"]["by"]["tenant"][0]["calls"] == 1


def test_limits_that_are_looked_up_are_asked_for_now_and_then_only():
    asked = []

    def look_up(identity, model):
        asked.append((identity.tenant, model))
        return [Limit(tokens=9_000, per="hour", scope=("tenant",), name="plan")]

    async def scene():
        scene = Scene(look_up)
        async with scene.guard:
            await read(scene.stream())
            asked.clear()
            for _ in range(5):
                assert (await scene.look())["windows"]["rows"][0]["name"] == "plan"
            scene.now += 11
            await scene.look()

    anyio.run(scene)
    assert asked == [("acme", "gpt-4o")] * 2


class Gone(MemoryStore):
    """A store that answers no question."""

    async def balances(self, demands):
        raise StoreUnavailableError("it is away")


def test_what_cannot_be_shown_says_so_and_the_rest_is_shown():
    async def scene():
        scene = Scene(Limit(tokens=9_000, per="hour"), store=Gone())
        async with scene.guard:
            await read(scene.stream())
            return await scene.look()

    found = anyio.run(scene)
    assert found["windows"] == {"error": "StoreUnavailableError"}
    assert found["pulse"]["calls"][-1] == 1


def test_refusals_and_cuts_carry_their_numbers_in_their_unit():
    spend = Limit(cost="0.00001", per="day", name="spend", where={"tenant": "poor"})
    once = Limit(input_tokens=50, name="once", where={"tenant": "long"})

    async def scene():
        scene = Scene(spend, once)
        async with scene.guard:
            for request in (
                {"tenant": "poor"},
                {"tenant": "long", "messages": [{"role": "user", "content": "many words " * 99}]},
                {"tenant": "cut", "max_tokens": 10},
            ):
                try:
                    await read(scene.stream(**request))
                except StreamGuardError as error:
                    last = error
        return (await scene.look())["incidents"], last

    found, error = anyio.run(scene)
    cut, long, poor = found["rows"]
    assert (found["refused"], found["cuts"]) == (2, 1)
    assert (cut["kind"], cut["tenant"], cut["limit"]) == ("cut", "cut", 10)
    assert cut["output"] >= 10
    assert (long["reason"], long["unit"], long["limit"]) == ("once", "input_tokens", 50)
    assert long["requested"] == error.requested > 50
    assert (poor["reason"], poor["unit"], poor["limit"]) == ("spend", "cost", 10_000)
    assert poor["code"] == "budget_exceeded"


def test_conversations_are_shown_by_how_their_prompts_grew():
    async def scene():
        scene = Scene()
        messages = [*MESSAGES]
        sizes = []
        async with scene.guard:
            for _ in range(4):
                stream = scene.stream(messages=list(messages))
                await read(stream)
                sizes.append(stream.usage.input_tokens)
                messages += [{"role": "assistant", "content": "words " * 50}, *MESSAGES]
        return (await scene.look())["talks"]["rows"], sizes

    (row,), sizes = anyio.run(scene)
    assert row["prompts"] == sizes
    assert (row["calls"], row["first"], row["tenant"]) == (4, sizes[0], "acme")
    assert row["window"] == 128_000


def test_costs_without_a_ledger_are_those_of_this_process_and_say_since_when():
    async def scene():
        scene = Scene()
        async with scene.guard:
            streams = [scene.stream(), scene.stream(tenant=None), scene.stream(model="mystery-1")]
            for stream in streams:
                await read(stream)
        cost = sum(scene.guard.catalog.cost_nano("gpt-4o", stream.usage) for stream in streams[:2])
        return await scene.look(), cost, sum(stream.usage.total_tokens for stream in streams)

    found, cost, tokens = anyio.run(scene)
    assert found["cost"]["source"] == found["spenders"]["source"] == "process"
    assert found["cost"]["since"] == found["pulse"]["since"]
    assert (found["cost"]["today"], found["cost"]["tokens"]) == (cost, tokens)
    assert (found["cost"]["calls"], found["cost"]["unpriced"]) == (3, 1)
    assert found["cost"]["ledger"] is None
    assert {row["name"] for row in found["spenders"]["by"]["tenant"]} == {"acme", None}
    assert sum(row["cost"] for row in found["spenders"]["by"]["model"]) == cost


def ledger_with(url, *events):
    async def write():
        sink = LedgerSink(url)
        await sink.open()
        for event in events:
            sink.emit(event)
        await sink.close()

    anyio.run(write)


def of(tenant, number, at, dollars):
    cost = int(dollars * 10**9)
    return settled(number, at=at, identity=Identity(tenant), cost_nano_usd=cost)


def test_costs_from_the_ledger_are_held_against_the_seven_days_before(tmp_path):
    url = f"sqlite:///{tmp_path}/usage.db"
    noon = 1_790_000_000 // DAY * DAY + DAY / 2
    before = [of("acme", day, noon - day * DAY, day) for day in (1, 2, 7, 8)]
    today = [of("acme", 20, noon, 1.5), of("b\u202eb", 21, noon, 3), of(None, 22, noon, 0.25)]
    ledger_with(url, *before, *today)

    async def scene():
        scene = Scene(ledger=LedgerView(url))
        scene.now = noon
        return await scene.look()

    found = anyio.run(scene)
    cost = found["cost"]
    assert (cost["source"], cost["today"], cost["calls"]) == ("ledger", 4_750_000_000, 3)
    assert cost["days"] == [7_000_000_000, 0, 0, 0, 0, 2_000_000_000, 1_000_000_000]
    assert (cost["mean"], cost["known_days"]) == (10_000_000_000 // 7, 7)
    assert cost["tokens"] == 360
    ranked = [(row["name"], row["cost"]) for row in found["spenders"]["by"]["tenant"]]
    assert ranked == [("b?b", 3_000_000_000), ("acme", 1_500_000_000), (None, 250_000_000)]
    assert found["spenders"]["total"] == 4_750_000_000


@pytest.mark.parametrize(("days", "mean"), [(3, 2_000_000_000), (0, None)])
def test_a_young_ledgers_mean_is_of_the_days_it_knows(tmp_path, days, mean):
    url = f"sqlite:///{tmp_path}/usage.db"
    noon = 1_790_000_000 // DAY * DAY + DAY / 2
    ledger_with(url, of("a", 1, noon - days * DAY, 6), of("a", 2, noon, 1))

    async def scene():
        scene = Scene(ledger=LedgerView(url))
        scene.now = noon
        return (await scene.look())["cost"]

    cost = anyio.run(scene)
    assert (cost["mean"], cost["known_days"]) == (mean, days)


def test_an_empty_ledger_and_one_without_spending_today(tmp_path):
    url = f"sqlite:///{tmp_path}/usage.db"
    ledger_with(url)

    async def scene():
        return await Scene(ledger=LedgerView(url)).look()

    found = anyio.run(scene)
    assert (found["cost"]["today"], found["cost"]["calls"]) == (0, 0)
    assert found["spenders"]["by"] == {"tenant": [], "user": [], "feature": [], "model": []}


def test_calls_that_cost_nothing_are_no_spenders(tmp_path):
    url = f"sqlite:///{tmp_path}/usage.db"
    now = time.time()
    ledger_with(url, replace(of("refused", 1, now, 0), event="refused", charged=None))

    async def scene():
        return await Scene(ledger=LedgerView(url)).look()

    assert anyio.run(scene)["spenders"]["by"]["tenant"] == []


def test_a_ledger_is_asked_now_and_then_only(tmp_path):
    url = f"sqlite:///{tmp_path}/usage.db"
    noon = 1_790_000_000 // DAY * DAY + DAY / 2
    seconds = [0.0]
    ledger_with(url, of("a", 1, noon, 1))
    view = LedgerView(url, clock=lambda: seconds[0])

    async def cost():
        return (await view.figures(noon))["cost"]["today"]

    assert anyio.run(cost) == 1_000_000_000
    ledger_with(url, of("a", 2, noon, 1))
    assert anyio.run(cost) == 1_000_000_000
    seconds[0] = live_costs.REFRESH
    assert anyio.run(cost) == 2_000_000_000


def test_a_ledgers_url_that_is_none_is_refused_at_once(monkeypatch):
    with pytest.raises(ConfigurationError, match="a ledger is sqlite:///FILE or postgresql"):
        LivePage(Guard(sinks=[]), ledger="usage.db")
    monkeypatch.setitem(sys.modules, "streamguard.sinks.ledger_database", None)
    with pytest.raises(ConfigurationError, match=r"needs pip install 'streamguard\[sql\]'"):
        LivePage(Guard(sinks=[]), ledger="sqlite:///usage.db")


def test_a_ledger_that_is_not_there_or_cannot_be_read_says_so(tmp_path):
    (tmp_path / "broken.db").write_text("this is no database" * 100)

    async def cost(name):
        return (await Scene(ledger=LedgerView(f"sqlite:///{tmp_path}/{name}")).look())["cost"]

    missing = anyio.run(cost, "none.db")
    assert (missing["source"], missing["ledger"]) == ("process", "there is no usage ledger yet")
    assert not (tmp_path / "none.db").exists()
    assert "cannot be read (DatabaseError)" in anyio.run(cost, "broken.db")["ledger"]


def test_no_text_of_a_prompt_or_an_answer_is_on_the_page():
    async def scene():
        scene = Scene(Limit(tokens=9_000, per="hour"))
        secret = [{"role": "user", "content": "xyzzy-prompt " * 20}]
        gate = anyio.Event()
        async with scene.guard:
            await read(scene.stream(messages=secret))
            stream = scene.stream(gate, messages=secret, max_tokens=500)
            async with stream:
                parts = [await anext(stream) for _ in range(40)]
                shown = str(await scene.look())
                gate.set()
        return shown, [part.strip() for part in parts if len(part) > 7]

    shown, words = anyio.run(scene)
    assert "xyzzy" not in shown
    assert words
    assert not [word for word in words if f" {word}" in shown]


def test_very_many_callers_are_ranked_now_and_then_only(monkeypatch):
    monkeypatch.setattr(live_spending, "_MANY", 2)

    def event(number):
        return replace(settled(number, at=scene.now), identity=Identity(f"t{number}"))

    async def calls():
        return (await scene.look())["cost"]["calls"]

    async def watch():
        seen = []
        for number in range(5):
            scene.sink.emit(event(number))
            seen.append(await calls())
        scene.now += live_spending.RANK_SECONDS
        return [*seen, await calls(), await calls()]

    scene = Scene()
    assert anyio.run(watch) == [1, 2, 2, 2, 2, 5, 5]


def test_at_midnight_the_day_begins_at_zero_without_an_event():
    async def watch():
        scene.sink.emit(settled(at=scene.now))
        before = (await scene.look())["cost"]["calls"]
        scene.now += DAY
        return before, (await scene.look())["cost"]["calls"]

    scene = Scene()
    assert anyio.run(watch) == (1, 0)

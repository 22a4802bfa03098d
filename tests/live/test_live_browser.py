"""The page in a real Chromium, in front of a real gateway with the real openai client."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import uvicorn
from support.browser import Browser, browser, needs_chromium
from support.plans import Plan
from support.texts import ENGLISH
from support.upstream import Upstream

from streamguard.gateway.app import Gateway
from streamguard.gateway.config import read_gateway
from streamguard.gateway.keys import KeyRing
from streamguard.identity import Identity
from streamguard.live import feed as live_feed
from streamguard.sinks.memory import ListSink

pytestmark = needs_chromium

PASSWORD = "correct-horse"
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '"><svg onload="window.hacked = 1">',
    "</bdi></span><style>* { display: none }</style>",
    "javascript:window.hacked=1//${window.hacked=1}",
    "\u202egnihton\u202c",
    "a" * 120,
)
CONFIG = """
store = "memory://"
keys = "sqlite:///{folder}/keys.db"
live_page = "{password}"
reserve_output = 500

[[upstreams]]
url = "{url}"
name = "the only one"

[[limits]]
name = "plan"
tokens = 50_000
per = "hour"
scope = ["tenant"]

[[limits]]
name = "one prompt"
input_tokens = 2_000
"""


class Deaf(Upstream):
    """Honours no cap: the gateway has to cut."""

    async def __call__(self, scope, receive, send):
        async def deafened():
            message = await receive()
            if message.get("body"):
                body = json.loads(message["body"])
                kept = {name: value for name, value in body.items() if "tokens" not in name}
                return {**message, "body": json.dumps(kept).encode()}
            return message

        await super().__call__(scope, deafened, send)


class Running:
    """A gateway on a port of its own that can go and come back."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        self.upstream = upstream
        self.file = folder / "gateway.toml"
        self.file.write_text(CONFIG.format(folder=folder, password=PASSWORD, url=upstream.url))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.keys = KeyRing(read_gateway(self.file).keys)
        self.start()

    def start(self) -> None:
        self.sink = ListSink()
        self.gateway = Gateway(read_gateway(self.file), sinks=[self.sink])
        config = uvicorn.Config(
            self.gateway, port=self.port, log_config=None, lifespan="on", ws="none"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()

    def stop(self) -> None:
        self.gateway._live.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def client(self, tenant: str, user: str | None = None) -> openai.OpenAI:
        key = self.keys.create(Identity(tenant, user))
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def ask(self, tenant: str, content: str = "Hello.", **more) -> str:
        """One streamed call to its end; its text."""
        messages = [{"role": "user", "content": content}]
        given = {"model": "gpt-4o", "messages": messages, "stream": True, **more}
        with self.client(tenant) as client, client.chat.completions.create(**given) as stream:
            return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)

    def charged(self, tenant: str) -> int:
        """Tokens that the gateway charged a tenant."""
        return sum(
            event.charged.total_tokens
            for event in self.sink.named("settled")
            if event.identity.tenant == tenant
        )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(autouse=True)
def _lively(monkeypatch):
    monkeypatch.setattr(live_feed, "SAMPLE_SECONDS", 0.2)


@pytest.fixture
def page(chromium) -> Browser:
    chromium.prefers(color_scheme="light", reduced_motion="no-preference")
    chromium.window(1280)
    chromium.complaints()
    return chromium


@pytest.fixture
def run(tmp_path) -> Iterator[Running]:
    with Deaf() as upstream:
        upstream.default = Plan(text=ENGLISH[:400])
        one = Running(tmp_path, upstream)
        try:
            yield one
        finally:
            one.stop()
            one.keys.close()


def look(page: Browser, run: Running) -> None:
    page.open(f"{run.url}/live/", PASSWORD)
    page.shows("#link", "Live")


def commas(number: int) -> str:
    return f"{number:,}"


def test_the_numbers_on_the_page_are_what_the_gateway_did(page, run):
    for _ in range(3):
        run.ask("acme")
    run.ask("globex", max_tokens=20)  # the upstream honours no cap: it is cut
    with pytest.raises(openai.APIStatusError) as refused:
        run.ask("initech", "many words " * 2_000)
    look(page, run)
    page.shows("#windows", "tenant globex")
    rows = page.texts("#windows-rows > li")
    for tenant in ("acme", "globex"):
        (row,) = [row for row in rows if f"tenant {tenant}" in row]
        used = run.charged(tenant)
        assert f"{commas(used)} used, 0 held" in row
        assert f"{commas(50_000 - used)} left of 50,000 tokens" in row
        assert re.search(r"next release in \d+ (min|h)", row)
    spenders = {row.split()[0]: row for row in page.texts("#spenders-rows tr")}
    assert commas(run.charged("acme")) in spenders["acme"].split()
    assert spenders["acme"].split()[-1] == "3"
    incidents = page.texts("#incidents-rows > li")
    figures = refused.value.body["streamguard"]
    (cut,) = [row for row in incidents if row.startswith("Cut")]
    (told,) = run.sink.named("cut")
    assert f"{told.counted.output_tokens} tokens produced, 20 allowed" in cut
    (no,) = [row for row in incidents if row.startswith("Refused")]
    assert f"needs {commas(figures['requested'])}, the limit is 2,000" in no
    assert "one prompt" in no
    assert "1 refused, 1 cut" in page.text("#incidents-note")
    total = run.charged("acme") + run.charged("globex")
    assert f"{commas(total)} in the hour" in page.text("#tokens-note")
    cost = sum(event.cost_nano_usd for event in run.sink.named("settled")) / 1e9
    assert float(page.text("#cost").removeprefix("$")) == pytest.approx(cost, rel=0.05)
    assert "of this process since" in page.text("#cost-note")
    assert "no ledger" in page.text("#cost-note")
    assert page.complaints() == []


def test_streams_move_while_they_run(page, run):
    run.upstream.default = Plan(text=ENGLISH[:1_500], delay=0.01)
    look(page, run)
    page.until(lambda: "No call is under way" in page.text("#streams"), "no empty page")
    texts = []
    caller = threading.Thread(target=lambda: texts.append(run.ask("acme", max_tokens=900)))
    caller.start()

    def produced():
        found = page.texts("#streams-rows .sum b")
        return int(found[0].replace(",", "")) if found else 0

    page.until(lambda: produced() > 0, "the stream was not shown")
    first = produced()
    page.until(lambda: produced() > first, "the stream did not move")
    assert page.text("#streams-rows .who").startswith("acme")
    assert page.text("#streams-rows .sum").endswith("of 900")
    assert "1 open" in page.text("#streams-note")
    width = "return document.querySelector('#streams-rows .bar .used').style.width"
    assert 0 < float(page.js(width).removesuffix("%")) <= 100
    page.until(lambda: "tokens/s" in page.text("#streams-rows .rate"), "no rate")
    caller.join()
    page.until(lambda: "No call is under way" in page.text("#streams"), "the stream stayed")
    assert texts[0]


def test_it_comes_back_by_itself_when_the_server_was_restarted(page, run):
    run.ask("before")
    look(page, run)
    page.shows("#spenders", "before")
    run.stop()
    page.shows("#link", "No connection")
    run.start()
    page.shows("#link", "Live")
    run.ask("after")
    page.shows("#spenders", "after")
    assert "before" not in page.text("#spenders")  # it is another process's day


def test_hostile_names_are_shown_as_text(page, run):
    look(page, run)
    for tenant in HOSTILE:
        run.ask(tenant, max_tokens=20)
        with contextlib.suppress(openai.APIStatusError):
            run.ask(tenant, "many words " * 2_000, model=tenant)
    page.until(lambda: len(page.texts("#spenders-rows tr")) == len(HOSTILE), "not all are shown")
    shown = page.text("main")
    for tenant in HOSTILE:
        assert tenant.replace("\u202e", "?").replace("\u202c", "?") in shown
    inside = (
        "return document.querySelectorAll('main :is(script, img, style, svg[onload], a, form)')"
    )
    assert page.js(f"{inside}.length") == 0
    assert page.js("return window.hacked") is None
    assert page.complaints() == []


def test_even_a_hole_in_the_script_could_not_run_foreign_code(page, run):
    look(page, run)
    tried = page.js("""
        const failed = [];
        const attempt = (work) => { try { work(); } catch (error) { failed.push(error.name); } };
        attempt(() => { document.querySelector('main').innerHTML = '<img src=x>'; });
        attempt(() => { const made = document.createElement('script');
            made.text = 'window.hacked = 1'; document.body.append(made); });
        attempt(() => { const made = document.createElement('img');
            made.setAttribute('onerror', 'window.hacked = 1'); made.src = 'x';
            document.body.append(made); });
        attempt(() => fetch('https://example.com/'));
        return failed;
    """)
    assert "TypeError" in tried
    assert page.js("return [window.hacked, document.querySelector('main img')]") == [None, None]
    assert any("Content Security Policy" in line for line in page.complaints())


def busy(page: Browser, run: Running) -> None:
    """A page with something in every section."""
    messages = "Hello. "
    for length in (1, 40, 90):
        run.ask("a tenant with a long name that goes on and on and on " * 2, messages * length)
    run.ask("acme", max_tokens=20)
    with contextlib.suppress(openai.APIStatusError):
        run.ask("acme", "many words " * 2_000)
    with run.client("acme", "ann") as client:
        talk = [{"role": "user", "content": "Hello."}]
        for _ in range(3):
            client.chat.completions.create(model="gpt-4o", messages=talk)
            talk += [{"role": "assistant", "content": "words " * 60}, talk[0]]
    look(page, run)
    page.shows("#talks", "→")
    page.shows("#windows", "acme")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(page, run, width):
    page.window(width, 800)
    busy(page, run)
    wide = page.js("""
        return [...document.querySelectorAll('body *:not(.skip, .unseen, .unseen *)')]
            .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
            .map((node) => node.outerHTML.slice(0, 100));
    """)
    assert wide == []
    assert page.js("return document.documentElement.scrollWidth") <= width
    small = page.js("""
        return [...document.querySelectorAll('button, fieldset label')]
            .filter((node) => node.getBoundingClientRect().height < 24).length;
    """)
    assert small == 0


CONTRAST = """
    const channel = (value) => (value /= 255) <= 0.04045
        ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(channel);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const color = getComputedStyle(node).backgroundColor;
            if (color !== 'rgba(0, 0, 0, 0)') return color;
        }
        return 'rgb(255, 255, 255)';
    };
    const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || !node.checkVisibility()) continue;
        const got = ratio(light(getComputedStyle(node).color), light(behind(node)));
        found.push([walk.currentNode.data.trim().slice(0, 30), Math.round(got * 100) / 100]);
    }
    return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_in_both_schemes(page, run, scheme):
    page.prefers(color_scheme=scheme)
    busy(page, run)
    found = page.js(CONTRAST)
    assert len(found) > 40
    assert [pair for pair in found if pair[1] < 4.5] == []
    back = page.js("return getComputedStyle(document.body).backgroundColor")
    shade = sum(map(int, re.findall(r"\d+", back))) / 3
    assert (shade > 200) if scheme == "light" else (shade < 60)


def test_it_can_be_read_and_worked_without_eyes_or_a_mouse(page, run):
    from selenium.webdriver import ActionChains, Keys

    busy(page, run)
    for landmark in ("body > header", "main", "footer"):
        assert page.js("return document.querySelectorAll(arguments[0]).length", landmark) == 1
    unnamed = page.js("""
        return [...document.querySelectorAll('main section, table, svg, fieldset')].filter((node) =>
            !(node.getAttribute('aria-label') || node.querySelector(':scope > legend') ||
              document.getElementById(node.getAttribute('aria-labelledby')))).length;
    """)
    assert unnamed == 0
    assert page.js("return document.getElementById('news').getAttribute('aria-live')") == "polite"
    assert page.js("return document.documentElement.lang") == "en"

    def press(*keys):
        ActionChains(page.driver).send_keys(*keys).perform()
        return page.js(
            "const at = document.activeElement; return at.id || at.value || at.className"
        )

    page.js("document.activeElement.blur()")
    assert press(Keys.TAB) == "skip"
    assert press(Keys.TAB) == "pause"
    assert page.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert press(Keys.TAB) == "tenant"
    assert press(Keys.ARROW_RIGHT) == "user"
    page.shows("#spenders table", "User")
    assert "ann" in page.text("#spenders-rows")
    page.js("document.activeElement.blur(); document.querySelector('.skip').focus()")
    assert press(Keys.ENTER) == "main"


def test_a_paused_page_stands_still_and_goes_on(page, run):
    run.ask("first")
    look(page, run)
    page.shows("#spenders", "first")
    page.js("document.getElementById('pause').click()")
    page.shows("#link", "Paused")
    assert page.js("return document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    run.ask("second")
    page.until(
        lambda: page.js("return JSON.stringify(latest.spenders).includes('second')"), "no news"
    )
    assert "second" not in page.text("#spenders")
    page.js("document.getElementById('pause').click()")
    page.shows("#spenders", "second")
    page.shows("#link", "Live")


def test_refusals_and_cuts_are_said_aloud_once(page, run):
    look(page, run)
    assert page.text("#news") == ""
    run.ask("acme", max_tokens=20)
    page.shows("#news", "1 stream was cut")


def test_those_who_want_no_motion_get_none(page, run):
    page.prefers(color_scheme="light", reduced_motion="reduce")
    busy(page, run)
    durations = page.js("""
        return [...document.querySelectorAll('.bar i')]
            .map((node) => getComputedStyle(node).transitionDuration);
    """)
    assert durations
    assert set(durations) == {"0s"}


def test_the_password_is_asked_for_and_nothing_is_stored(page, run):
    for password in ("", "correct-donkey"):
        page.open(f"{run.url}/live/", password)
        assert page.js("return document.querySelector('main')") is None
    page.open(f"{run.url}/live", PASSWORD)  # without the slash, as people type it
    page.shows("#link", "Live")
    assert page.js("return location.pathname") == "/live/"
    address = "const asked = new URL(source.url); return asked.pathname + asked.search"
    assert page.js(address) == "/live/events"
    stored = page.js(
        "return document.cookie + JSON.stringify({...localStorage, ...sessionStorage})"
    )
    assert stored == "{}"

"""``streamguard serve``: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
from pathlib import Path

import anyio
import httpx2
import pytest
from click.testing import CliRunner
from support.databases import postgres_schema
from support.formats import FORMATS
from support.gateways import Served, served
from support.providers import TEXT
from support.redis_server import needs_redis, redis_server
from support.servers import wait_until
from support.upstream import count
from support.wire import chat_text

from streamguard import Guard, Limit, cli
from streamguard.gateway import serving
from streamguard.gateway.config import GatewayConfig
from streamguard.gateway.keys import KeyRing
from streamguard.gateway.upstreams import Upstream
from streamguard.identity import Identity

CHAT = "/v1/chat/completions"
SECRET = "sk-upstream-secret"


def body(model="gpt-4o", **more):
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


class Reader(threading.Thread):
    """Reads one stream in the background."""

    def __init__(self, url, path, asked, **headers):
        super().__init__(daemon=True)
        self.url, self.path, self.asked, self.headers = url, path, asked, headers
        self.data = b""
        self.broken = self.status = None
        self.start()

    def run(self):
        try:
            with (
                httpx2.Client(timeout=60) as client,
                client.stream(
                    "POST", self.url + self.path, json=self.asked, headers=self.headers
                ) as reply,
            ):
                self.status = reply.status_code
                for part in reply.iter_raw():
                    self.data += part
        except httpx2.HTTPError as error:
            self.broken = error

    def wait_started(self):
        wait_until(lambda: len(self.data) > 600 or self.broken, "no stream")
        return self

    def wait_over(self):
        self.join(30)
        assert not self.is_alive()
        return self


def rows(folder, file, table):
    with sqlite3.connect(folder / file) as connection:
        found = connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in found.description]
        values = [dict(zip(names, row, strict=True)) for row in found]
    connection.close()
    return values


def held(folder):
    """What is held of the budget, and used."""

    async def ask():
        limit = Limit(tokens=100_000, per="day")
        async with Guard([limit], store=f"sqlite:///{folder}/budgets.db", sinks=[]) as guard:
            (balance,) = (await guard.preflight(body())).balances.values()
            return balance.held, balance.used

    return anyio.run(ask)


@pytest.fixture
def start(config_file, tmp_path):
    """Starts a gateway of its own process with a ledger and a budget."""
    running = []

    def start(more="", *args, seconds=20, env=None):
        path = config_file(
            f"[[limits]]\ntokens = 100_000\nper = 'day'\n{more}",
            top=f"ledger = 'sqlite:///{tmp_path}/usage.db'\nshutdown_seconds = {seconds}",
        )
        ring = KeyRing(f"sqlite:///{tmp_path}/keys.db")
        key = ring.create(Identity("acme"))
        ring.close()
        one = Served(tmp_path, "--config", str(path), *args, **(env or {}))
        running.append(one)
        return one.wait(), key

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_after_sigterm_running_streams_finish_and_nobody_new_is_let_in(start, tmp_path):
    one, key = start()
    head = {"authorization": f"Bearer {key}"}
    stream = Reader(one.url, CHAT, body("slow", stream=True), **head).wait_started()
    with httpx2.Client(base_url=one.url, headers=head) as client:
        assert client.get("/v1/models").is_success  # keeps its connection
        one.terminate()

        def refused():
            try:
                return client.get("/v1/models").status_code == 503
            except httpx2.TransportError:
                return True

        wait_until(refused, "still let in")
    stream.wait_over()
    assert stream.broken is None
    assert chat_text(stream.data) == TEXT
    assert stream.data.endswith(b"data: [DONE]\n\n")
    assert one.ended() in (0, -signal.SIGTERM)
    (row,) = rows(tmp_path, "usage.db", "streamguard_usage")
    assert (row["outcome"], row["charged_output"]) == ("completed", count(TEXT))
    assert held(tmp_path) == (0, row["charged_input"] + row["charged_output"])


def test_ctrl_c_is_a_clean_end(start):
    one, _key = start()
    one.process.send_signal(signal.SIGINT)
    assert one.ended() == 0
    assert "interrupted" not in one.told()


NAMES = ("openai_chat", "anthropic", "gemini", "openai_responses", "ollama")


def test_what_does_not_end_in_time_is_ended_in_its_own_form(start, tmp_path, providers):
    one, key = start(seconds=0)
    head = {"x-api-key": key}
    streams = {}
    for name in NAMES:
        form = FORMATS[name]
        asked = {**form.body, "model": "silent"} if "model" in form.body else form.body
        path = form.path.replace("gemini-2.5-flash", "silent")
        streams[name] = Reader(one.url, path, asked, **head).wait_started()
    whole = Reader(one.url, CHAT, body("wait"), **head)
    wait_until(lambda: len(providers.seen) == len(NAMES) + 1, "not asked")
    one.terminate()
    for name, stream in streams.items():
        form = FORMATS[name]
        assert stream.wait_over().broken is None
        assert TEXT.startswith(form.read(stream.data))
        assert form.finish(stream.data) == form.cut
    assert whole.wait_over().status == 503
    assert json.loads(whole.data)["error"]["code"] == "shutting_down"
    assert one.ended() in (0, -signal.SIGTERM)
    told = rows(tmp_path, "usage.db", "streamguard_usage")
    assert [row["outcome"] for row in told] == ["timed_out"] * 6
    used = sum((row["charged_input"] or 0) + (row["charged_output"] or 0) for row in told)
    assert held(tmp_path) == (0, used)
    assert "calls_ended_early" in one.told()


def test_the_log_as_json_lines(start):
    one, key = start("[[limits]]\noutput_tokens = 20\n", "--json")
    head = {"authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=one.url, headers=head) as client:
        assert client.post(CHAT, json=body(stream=True)).is_success
    one.terminate()
    one.ended()
    lines = [json.loads(line) for line in one.told().splitlines()]
    events = [line["event"] for line in lines]
    assert {"listening", "preflight", "started", "cut", "settled"} <= set(events)
    assert {line["level"] for line in lines} >= {"info", "warning"}
    assert all({"event", "timestamp", "level"} <= set(line) for line in lines)
    assert key not in one.told()
    assert SECRET not in one.told()


WORKERS = 2


def children_of(process):
    """The processes that this one started, from what ``ps`` would read: it may not be there."""
    if not Path("/proc").is_dir():
        listed = ["pgrep", "-P", str(process)]
        return [int(pid) for pid in subprocess.check_output(listed, text=True).split()]
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    parents = {int(stat.split()[0]): int(stat.rpartition(")")[2].split()[1]) for stat in stats}
    return [child for child, parent in parents.items() if parent == process]


@needs_redis
def test_workers_share_a_socket_budgets_and_keys(tmp_path, upstream_url, providers):
    """Three processes over Redis and PostgreSQL; one is killed and replaced."""
    with redis_server() as redis, postgres_schema() as database:
        config = tmp_path / "gateway.toml"
        config.write_text(
            f"""
            store = "env:STORE"
            keys = "env:DATABASE"
            ledger = "env:DATABASE"
            ledger_spool = "{tmp_path}/spool"
            shutdown_seconds = 1
            [[upstreams]]
            url = "{upstream_url}"
            [[limits]]
            requests = 10
            per = "day"
            scope = ["tenant"]
            """
        )
        ring = KeyRing(database)
        head = {"authorization": f"Bearer {ring.create(Identity('acme'))}"}
        ring.close()
        env = {"STORE": redis.url, "DATABASE": database}
        with served(tmp_path, "--config", str(config), "--workers", str(WORKERS), **env) as one:
            wait_until(lambda: one.told().count("Application startup complete") == WORKERS, "3")

            def ask():  # a connection each, so that all workers get some
                return httpx2.post(f"{one.url}{CHAT}", json=body(), headers=head).status_code

            assert sorted(ask() for _ in range(14)) == [200] * 10 + [429] * 4
            assert len(providers.seen) == 10
            children = children_of(one.process.pid)
            assert len(children) == WORKERS
            os.kill(children[0], signal.SIGKILL)
            wait_until(lambda: "worker_died" in one.told(), "not noticed")
            wait_until(
                lambda: one.told().count("Application startup complete") == WORKERS + 1, "again"
            )
            assert ask() == 429
            one.terminate()
            assert one.ended() == 0
        import psycopg

        with psycopg.connect(database) as connection:
            outcomes = connection.execute("SELECT outcome, charged_output FROM streamguard_usage")
            settled = [outcome for outcome, charged in outcomes if charged]
        assert settled == ["completed"] * 10


def test_workers_that_cannot_start_end_it(tmp_path, upstream_url):
    config = tmp_path / "gateway.toml"
    dead = "redis://127.0.0.1:1/0"
    config.write_text(f'store = "{dead}"\n[[upstreams]]\nurl = "{upstream_url}"\n')
    one = Served(tmp_path, "--config", str(config), "--workers", "2")
    assert one.ended() == 3
    assert "startup failed" in one.told()


def invoke(*args):
    return CliRunner().invoke(cli.main, ["serve", *args], prog_name="streamguard")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        ((), 2, "say where to forward to"),
        (("--upstream", "http://h", "--config", "x.toml"), 2, "--upstream goes without --config"),
        (("--upstream", "h"), 2, "--upstream: must be http(s)://HOST[:PORT][/PATH]"),
        (("--upstream", "http://h", "--store", "foo"), 2, "--store: no store for a URL without"),
        (("--upstream", "http://h", "--keys", "foo"), 2, "--keys: must be sqlite:///FILE or post"),
        (("--upstream", "http://h", "--keys", "sqlite:///no/k.db"), 1, "check the file and its"),
        (("--config", "none.toml"), 1, "cannot read none.toml"),
        (("--upstream", "http://h", "--port", "70000"), 2, "70000"),
        (("--upstream", "http://h", "--workers", "2", "--store", "memory://"), 1, "one process's"),
        (("--upstream", "http://h", "--host", "192.0.2.1"), 1, "cannot listen on 192.0.2.1"),
    ],
)
def test_bad_usage_is_one_line(folder, args, code, told):
    port = () if "--port" in args else ("--port", "0")
    result = invoke(*args, *port)
    assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
    assert told in result.stderr


def test_what_clients_set_is_told():
    ups = [Upstream(url="http://h", family=family) for family in ("openai", "anthropic", "openai")]
    config = GatewayConfig(tuple(ups), live_page="x", tell={"prometheus": True})
    assert serving.addresses(config, "0.0.0.0", 80) == {
        "url": "http://0.0.0.0:80",
        "openai_base_url": "http://localhost:80/v1",
        "anthropic_base_url": "http://localhost:80",
        "live": "http://localhost:80/live",
        "metrics": "http://localhost:80/metrics",
    }
    assert serving.addresses(GatewayConfig((ups[1],)), "::1", 80) == {
        "url": "http://[::1]:80", "anthropic_base_url": "http://[::1]:80",
    }  # fmt: skip


def test_a_blank_key_in_the_environment_is_none(folder, upstream_url):
    with served(folder, "--upstream", upstream_url, OPENAI_API_KEY=" ") as one:
        assert f"openai_base_url={one.url}/v1" in one.told()


def test_a_port_that_is_taken(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = invoke("--upstream", "http://h", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "Address already in use" in result.stderr


def test_a_key_is_not_lent_to_everybody(folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    result = invoke("--upstream", "http://h", "--host", "0.0.0.0")
    assert result.exit_code == 1
    assert "would lend the gateway's key for h to everybody" in result.stderr
    assert "sk-mine" not in result.stderr


def test_without_the_extra(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "streamguard.gateway.app", None)
    result = invoke("--upstream", "http://h")
    assert (result.exit_code, "streamguard[gateway]" in result.stderr) == (1, True)


def test_a_listener_for_both_kinds_of_addresses():
    for host in ("127.0.0.1", "::1"):
        with serving.listen(host, 0) as listener:
            assert listener.getsockname()[0] == host


def test_the_embedded_default(folder, upstream_url):
    """One command, no file: SQLite in the working directory; keys once some were made."""
    with served(folder, "--upstream", f"{upstream_url}/v1") as one:
        reply = httpx2.post(f"{one.url}{CHAT}", json=body(), headers={"authorization": "Bearer k"})
        assert reply.is_success
    assert {path.name for path in folder.glob("*.db")} == {
        "streamguard-budgets.db", "streamguard-usage.db",
    }  # fmt: skip
    usage = CliRunner().invoke(
        cli.main, ["usage", "--db", "sqlite:///streamguard-usage.db", "--json"]
    )
    assert json.loads(usage.stdout)["totals"]["calls"] == 1
    made = CliRunner().invoke(cli.main, ["keys", "create", "--tenant", "acme"])
    key = made.stdout.strip()
    with served(folder, "--upstream", upstream_url) as one:
        for used, status in (("k", 401), (key, 200)):
            head = {"authorization": f"Bearer {used}"}
            assert httpx2.post(f"{one.url}{CHAT}", json=body(), headers=head).status_code == status

"""Virtual keys: made, listed, revoked, looked up; and the command line for them."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner
from sqlalchemy.exc import IntegrityError
from support.databases import Proxy, postgres_schema
from support.servers import wait_until

import streamguard.gateway.keys as keys_module
from streamguard import cli
from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.gateway.keys import KNOWN_SECONDS, KeyRing, hashed
from streamguard.identity import Identity

ACME = Identity("acme", "ann", "chat")
CHAT = "/v1/chat/completions"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/keys.db"
    else:
        with postgres_schema() as found:
            yield found


@pytest.fixture
def ring(url):
    ring = KeyRing(url, Clock())
    yield ring
    ring.close()


@pytest.mark.anyio
async def test_a_key_is_known_until_it_is_revoked(ring, url):
    key = ring.create(ACME)
    assert await ring.identity(key) == ACME
    assert await ring.identity("sg-nobody") is None
    assert await ring.reachable()
    other = KeyRing(url)  # another process
    (record,) = other.list()
    assert (record.identity, record.revoked) == (ACME, None)
    assert (record.hint[:7], record.hint[-4:]) == (key[:7], key[-4:])
    assert other.revoke(record.hint) == 1
    assert other.revoke(record.hint) == 0
    assert other.list()[0].revoked == pytest.approx(time.time(), abs=60)
    assert await other.identity(key) is None
    other.close()
    assert await ring.identity(key) == ACME  # believed for some seconds
    ring._clock.now = KNOWN_SECONDS
    assert await ring.identity(key) is None
    assert KNOWN_SECONDS <= 5


def test_only_the_hash_of_a_key_is_stored(tmp_path):
    ring = KeyRing(f"sqlite:///{tmp_path}/keys.db")
    key = ring.create(ACME)
    ring.close()
    stored = Path(tmp_path, "keys.db").read_bytes()
    assert key.encode() not in stored
    assert hashed(key).encode() in stored
    assert key.startswith("sg-")
    assert len(key) > 40


@pytest.mark.anyio
async def test_what_is_remembered_is_bounded(ring, monkeypatch):
    monkeypatch.setattr(keys_module, "_CACHED", 3)
    for number in range(5):
        assert await ring.identity(f"sg-{number}") is None
    assert len(ring._known) == 2


@pytest.mark.anyio
async def test_a_database_that_is_away(tmp_path, monkeypatch):
    ring = KeyRing(f"sqlite:///{tmp_path}/keys.db")
    key = ring.create(ACME)
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        connection.execute("ALTER TABLE streamguard_keys RENAME TO gone")
    connection.close()
    for call in (lambda: ring.create(ACME), ring.list, lambda: ring.revoke("x")):
        with pytest.raises(StoreUnavailableError, match=r"key database .*OperationalError"):
            call()
    with pytest.raises(StoreUnavailableError):
        await ring.identity(key)
    assert not await ring.reachable()
    monkeypatch.setattr(keys_module, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(ring, "_find", lambda _digest: time.sleep(0.2))
    with pytest.raises(StoreUnavailableError, match="TimeoutError"):
        await ring.identity(key)
    await anyio.sleep(0.25)
    ring.close()


@pytest.mark.anyio
async def test_postgresql_goes_and_comes_back():
    with postgres_schema() as url, Proxy("127.0.0.1", 5432) as proxy:
        ring = KeyRing(url.replace(":5432", f":{proxy.port}"), Clock())
        key = ring.create(ACME)
        assert await ring.identity(key) == ACME
        proxy.down()
        ring._clock.now = 100
        with pytest.raises(StoreUnavailableError):
            await ring.identity(key)
        proxy.up()
        assert await ring.identity(key) == ACME
        ring.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "keys= must be sqlite:///FILE"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:?timeout=5", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:////no/such/folder/keys.db", "OperationalError"),
        ("mystery://host/db", "keys= must be sqlite:///FILE"),
        ("no url", "keys= must be sqlite:///FILE"),
        ("postgresql://h:port/x", r"cannot be opened \(ValueError\); check the server and the URL"),
    ],
)
def test_a_url_that_is_none(url, told):
    with pytest.raises(ConfigurationError, match=told):
        KeyRing(url)


def test_two_workers_that_make_the_table_at_once(monkeypatch, tmp_path):
    make = keys_module._KEYS.metadata.create_all
    tried = []

    def create_all(engine):
        tried.append(make(engine))
        if len(tried) == 1:
            raise IntegrityError("CREATE TABLE", {}, Exception("already there"))

    monkeypatch.setattr(keys_module._KEYS.metadata, "create_all", create_all)
    KeyRing(f"sqlite:///{tmp_path}/keys.db").close()
    assert len(tried) == 2


def test_a_password_is_not_told():
    with pytest.raises(ConfigurationError) as error:
        KeyRing("postgresql://me:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        (CHAT, lambda body: body["error"]["code"]),
        ("/v1/messages", lambda body: body["error"]["type"]),
        ("/v1beta/models/g:generateContent", lambda body: body["error"]["status"]),
        ("/api/chat", lambda body: body["error"].partition(" (")[0]),
    ],
)
def test_a_key_database_that_is_away_is_a_503_of_the_family(run, path, read, tmp_path):
    running = run()
    with running.client() as client:
        (tmp_path / "keys.db").rename(tmp_path / "elsewhere.db")
        running.gateway._ring._engine.dispose()
        reply = client.post(path, json={})
        assert reply.status_code == 503
        assert read(reply.json()) in {
            "budget_store_unavailable", "api_error", "UNAVAILABLE",
            "the key database is out of reach",
        }  # fmt: skip
        assert "x-should-retry" not in reply.headers
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_revocation_reaches_a_running_gateway(run, tmp_path, monkeypatch):
    monkeypatch.setattr(keys_module, "KNOWN_SECONDS", 0.2)
    running = run()
    with running.client() as client:
        assert client.get("/v1/models").is_success
        ring = KeyRing(f"sqlite:///{tmp_path}/keys.db")
        assert ring.revoke(ring.list()[0].hint) == 1
        ring.close()
        wait_until(lambda: client.get("/v1/models").status_code == 401, "still let in")


def command(*args, **options):
    return CliRunner().invoke(cli.main, ["keys", *args], prog_name="streamguard", **options)


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = command("create", "--tenant", "acme", "--user", "ann").stdout.strip()
    made = json.loads(command("create", "--tenant", "zeta", "--json").stdout)
    assert made["tenant"] == "zeta"
    lines = command("list").stdout.splitlines()
    assert [line.split()[1:2] + line.split()[3:] for line in lines] == [
        ["active", "acme/ann"], ["active", "zeta"],
    ]  # fmt: skip
    hint = lines[0].split()[0]
    assert command("revoke", hint).stdout == f"revoked {hint}\n"
    again = command("revoke", hint)
    assert (again.exit_code, again.stderr) == (
        1, f"Error: no active key is shown as {hint}; 'streamguard keys list' shows them\n",
    )  # fmt: skip
    rows = json.loads(command("list", "--json").stdout)
    assert [row["revoked"] for row in rows] == [True, False]
    assert rows[0]["user"] == "ann"
    assert (
        command("revoke", rows[1]["key"].replace("…", "..."), "--json").stdout == '{"revoked": 1}\n'
    )
    assert command("list").stdout.count("revoked") == 2
    assert key not in command("list").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["streamguard-keys.db"]


def test_a_key_needs_a_tenant_and_an_empty_list_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command("create", "--tenant", " ")
    assert (result.exit_code, "--tenant is empty" in result.stderr) == (2, True)
    result = command("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "there are no keys yet" in result.stderr


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("list", "--keys", "foo"), 2, "--keys: must be sqlite:///FILE or postgresql://USER@HOST"),
        (("list", "--keys", "mysql://me:pw@h/keys"), 2, "--keys: must be sqlite:///FILE"),
        (("list", "--keys", "sqlite:///"), 2, "--keys: in memory would be lost"),
        (("list", "--keys", "sqlite:///no/such/folder.db"), 1, "check the file and its folder"),
        (("create", "--tenant", "a" * 201), 2, "--tenant has 201 characters; at most 200"),
        (("create", "--tenant", "a", "--user", "b" * 300), 2, "--user has 300 characters"),
    ],
)
def test_wrong_use_is_one_line(args, code, told):
    result = command(*args)
    assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
    assert told in result.stderr
    assert "pw" not in result.stderr


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"needs psycopg; pip .*streamguard\[postgres\]"):
        KeyRing("postgresql://127.0.0.1:1/x")


def test_the_command_line_without_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "streamguard.gateway.keys", None)
    result = command("list")
    assert result.exit_code == 1
    assert "pip install 'streamguard[gateway]'" in result.stderr


def test_the_command_line_tells_of_a_database_that_is_away():
    result = command("list", "--keys", "postgresql://me:hunter2@127.0.0.1:1/db")
    assert result.exit_code == 1
    assert "cannot be opened" in result.stderr
    assert "hunter2" not in result.stderr

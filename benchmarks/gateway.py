"""What stands between a client and its provider costs: nothing, an app, the middleware, gateways.

One upstream and one client, both raw asyncio, ask in turn: the upstream itself, a relay of bytes
(the least that a second process in the way can cost), a Starlette app that passes bytes on, a
FastAPI app on the openai client, both again under the middleware (mw), ``streamguard serve``, and
LiteLLM's proxy where ``--litellm`` (or ``STREAMGUARD_BENCH_LITELLM``) names its executable. Each
server is one process. The targets take turns, round after round, so that a busy machine is busy
for all of them; ratios are medians over rounds. ``--delay`` paces the upstream's chunks (ms); 0
sends as fast as it can.

    python benchmarks/gateway.py [--quick] [--json] [--litellm PATH/bin/litellm]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
PATH = "/v1/chat/completions"
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
WORDS = "The keeper wrote his letters on Sundays when the boat did not come about fog".split()  # noqa: SIM905
PROMPT = " ".join(WORDS * 12)
CHUNKS = 64
PROMPT_TOKENS = 200
PACE = 0.002
"""Seconds between chunks where first tokens are timed: whoever is slow must not profit from it."""


# -- the upstream


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event({**HEAD, "choices": [choice]})


def event(body: Any) -> bytes:
    data = b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
    return framed(data)


def framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


START = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CONTENT = [chunk({"content": f" {WORDS[at % len(WORDS)]}"}) for at in range(CHUNKS)]
FIRST = chunk({"role": "assistant", "content": ""})
EACH = 64
LONG = [chunk({"content": " the" * EACH})] * CHUNKS
"""What a call of the race gets: a long answer, 64 tokens a chunk."""
DONE = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Streams a fixed answer, a chunk an iteration of the loop, and adds up what it bills."""

    billed = 0
    calls = 0
    delay = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        size = 0
        if b"content-length:" in lower:
            size = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(rest) < size:
            return
        self.buffer = rest[size:]
        if head.startswith(b"GET"):
            body = json.dumps({"calls": Upstream.calls, "billed": Upstream.billed}).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
            return
        self.answer(json.loads(rest[:size]))

    def answer(self, request: dict[str, Any]) -> None:
        cap = request.get("max_completion_tokens") or request.get("max_tokens") or 10**6
        content, each = (LONG, EACH) if request.get("user") == "long" else (CONTENT, 1)
        output = min(cap, CHUNKS * each)
        finish = "stop" if cap >= CHUNKS * each else "length"
        pieces = [FIRST, *content[: -(-output // each)], chunk({}, finish)]
        Upstream.calls += 1
        Upstream.billed += output + PROMPT_TOKENS
        if (request.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": output,
                     "total_tokens": PROMPT_TOKENS + output}  # fmt: skip
            pieces.append(event({**HEAD, "choices": [], "usage": usage}))
        self.transport.write(START)
        delay = PACE if request.get("user") == "paced" else self.delay
        self.step(iter([*pieces, DONE]), delay)

    def step(self, pieces: Iterator[bytes], delay: float) -> None:
        piece = next(pieces, None)
        if piece is None or self.transport.is_closing():
            return
        self.transport.write(piece)
        loop = asyncio.get_running_loop()
        if delay:
            loop.call_later(delay, self.step, pieces, delay)
        else:
            loop.call_soon(self.step, pieces, delay)


class Relay(asyncio.Protocol):
    """Passes bytes on between its two sides, unread: a connection for a connection."""

    def __init__(self, port: int = 0, other: Relay | None = None) -> None:
        self.port = port
        self.other = other
        self.early: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.other is None:
            self.opening = asyncio.get_running_loop().create_task(self.reach())

    async def reach(self) -> None:
        loop = asyncio.get_running_loop()
        side = functools.partial(Relay, other=self)
        _, self.other = await loop.create_connection(side, "127.0.0.1", self.port)
        for data in self.early:
            self.other.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


# -- the client


class Client(asyncio.Protocol):
    """One connection; one request at a time. Keeps the answer's bytes, and when they came."""

    def __init__(self) -> None:
        self.done: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self.received = bytearray()
        self.first = 0.0
        self.began = time.perf_counter()
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.first and b'"content":" ' in self.received:
            self.first = time.perf_counter() - self.began
        if self.received.endswith(b"\r\n0\r\n\r\n") or self._whole():
            self._finish()

    def _whole(self) -> bool:
        head, found, _ = bytes(self.received[:2000]).lower().partition(b"\r\n\r\n")
        if not found or b"content-length:" not in head:
            return False
        return len(self.received) >= len(head) + 4 + int(
            head.split(b"content-length:")[1].split(b"\r\n")[0]
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._finish()

    def _finish(self) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(bytes(self.received))


def request_bytes(key: str, **more: Any) -> bytes:
    body = {"model": "gpt-4o", "stream": True, "max_tokens": 1000,
            "messages": [{"role": "user", "content": PROMPT}], **more}  # fmt: skip
    body = {name: value for name, value in body.items() if value is not None}
    data = json.dumps(body).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def load(
    port: int, key: str, concurrency: int, seconds: float, *, paced: bool = False
) -> dict[str, Any]:
    """Ask over and over on this many connections; streams a second and times to first token."""
    request = request_bytes(key, user="paced" if paced else "hurried")
    end = time.perf_counter() + seconds
    firsts: list[float] = []
    failed = 0

    async def work() -> None:
        nonlocal failed
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        while time.perf_counter() < end:
            answer = await client.ask(request)
            if b"[DONE]" in answer[-40:]:
                firsts.append(client.first)
            else:
                failed += 1
                client.transport.close()
                _, client = await loop.create_connection(Client, "127.0.0.1", port)
        client.transport.close()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    took = time.perf_counter() - began
    firsts.sort()
    return {
        "streams": len(firsts),
        "failed": failed,
        "per_second": len(firsts) / took,
        "p50_ms": firsts[len(firsts) // 2] * 1e3 if firsts else None,
        "p99_ms": firsts[min(len(firsts) - 1, len(firsts) * 99 // 100)] * 1e3 if firsts else None,
    }


async def race(port: int, key: str, requests: int, cap: int | None) -> dict[str, int]:
    """All requests at once; how many were let in."""
    loop = asyncio.get_running_loop()
    request = request_bytes(key, user="long", max_tokens=cap)
    clients = [
        (await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(requests)
    ]
    answers = await asyncio.gather(*(client.ask(request) for client in clients))
    for client in clients:
        client.transport.close()
    return {"asked": requests, "admitted": sum(b"[DONE]" in answer[-40:] for answer in answers)}


# -- the servers in between


def bytes_app(upstream: str) -> Any:
    """The leanest chat endpoint there is: Starlette, bytes passed on by httpx, nothing read."""
    import httpx2
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=300)
    client = httpx2.AsyncClient(timeout=60, limits=limits)

    async def chat(request: Any) -> Any:
        sending = client.build_request(
            "POST", upstream + PATH, content=await request.body(),
            headers={"content-type": "application/json"},
        )  # fmt: skip
        answer = await client.send(sending, stream=True)
        kind = answer.headers["content-type"]
        return StreamingResponse(passed(answer), answer.status_code, media_type=kind)

    async def passed(answer: Any) -> Any:
        try:
            async for data in answer.aiter_raw():
                yield data
        finally:
            await answer.aclose()

    return Starlette(routes=[Route(PATH, chat, methods=["POST"])])


def sdk_app(upstream: str) -> Any:
    """A chat endpoint as most people write it: FastAPI and the openai client."""
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse
    from openai import AsyncOpenAI

    app = FastAPI()
    client = AsyncOpenAI(base_url=f"{upstream}/v1", api_key="k")

    async def chat(request: Request) -> StreamingResponse:
        body = await request.json()
        return StreamingResponse(events(body), media_type="text/event-stream")

    async def events(body: dict[str, Any]) -> Any:
        async for part in await client.chat.completions.create(**body):
            yield f"data: {part.model_dump_json(exclude_unset=True)}\n\n"
        yield "data: [DONE]\n\n"

    chat.__annotations__ = {"request": Request}
    app.post(PATH)(chat)
    return app


APPS = {"app": bytes_app, "sdk app": sdk_app}


def guarded(app: Any) -> Any:
    from streamguard import Guard, Identity, Limit, StreamGuardMiddleware

    guard = Guard(limits=[Limit(tokens=10**12, per="day", scope=("tenant",))], sinks=[])
    return StreamGuardMiddleware(app, guard=guard, identify=lambda _scope: Identity("bench"))


TOML = """
store = "memory://"
keys = "sqlite:///{folder}/keys.db"

[[upstreams]]
url = "{url}"
key_env = "BENCH_KEY"

[[limits]]
tokens = {tokens}
per = "{per}"
scope = ["tenant"]
"""

LITELLM = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_base: {url}/v1
      api_key: sk-upstream
general_settings:
  custom_auth: bench_auth.who
litellm_settings:
  telemetry: false
  num_retries: 0
"""

LITELLM_AUTH = """
from litellm.proxy._types import UserAPIKeyAuth


async def who(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, tpm_limit={tokens})
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One process that listens; what it used of the processor and of memory."""

    def __init__(self, name: str, command: list[str], port: int, *, cwd: str, **env: str) -> None:
        self.name = name
        self.port = port
        self.log = Path(cwd, f"{name}.log")
        self.process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
            stdout=self.log.open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def wait(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.close()
        raise SystemExit(f"{self.name} did not start: {self.log.read_text()[-2000:]}")

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def role(name: str, port: int, *more: str) -> list[str]:
    return [sys.executable, str(HERE), "--role", name, "--port", str(port), *more]


def gateway(folder: str, url: str, tokens: int, per: str, name: str = "gateway") -> Server:
    port = free_port()
    config = Path(folder, f"{name}.toml")
    config.write_text(TOML.format(url=url, folder=folder, tokens=tokens, per=per))
    command = [sys.executable, "-m", "streamguard", "serve", "--config", str(config)]
    return Server(name, [*command, "--port", str(port), "--json"], port, cwd=folder, BENCH_KEY="k")


def litellm(folder: str, executable: str, url: str, tokens: int, name: str = "litellm") -> Server:
    port = free_port()
    home = Path(folder, name)
    home.mkdir()
    (home / "config.yaml").write_text(LITELLM.format(url=url))
    (home / "bench_auth.py").write_text(LITELLM_AUTH.format(tokens=tokens))
    command = [executable, "--config", str(home / "config.yaml"), "--port", str(port)]
    return Server(
        name, [*command, "--host", "127.0.0.1", "--num_workers", "1"], port, cwd=str(home),
        LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR", LITELLM_MODE="PRODUCTION",
        NO_DOCS="True", LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",
    )  # fmt: skip


def virtual_key(folder: str) -> str:
    from streamguard import Identity
    from streamguard.gateway.keys import KeyRing

    return KeyRing(f"sqlite:///{folder}/keys.db").create(Identity("bench"))


# -- what is measured


def measure(
    targets: list[Server], key: str, concurrency: int, seconds: float, *, paced: bool = False
) -> dict[str, Any]:
    found = {}
    for target in targets:
        before = target.cpu()
        row = asyncio.run(load(target.port, key, concurrency, seconds, paced=paced))
        row["cpu_ms"] = (target.cpu() - before) * 1e3 / max(1, row["streams"])
        found[target.name] = row
    return found


def middle(rows: list[dict[str, Any]], target: str, figure: str) -> float:
    return statistics.median(row[target][figure] or 0.0 for row in rows)


def summary(rounds: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Medians over rounds; what is added over asking the upstream itself, and ratios, by round."""
    result: dict[str, Any] = {}
    for name in names:
        added = {
            point: statistics.median(
                (row[name][point] or 0) - (row["direct"][point] or 0) for row in rounds
            )
            for point in ("p50_ms", "p99_ms")
        }
        result[name] = {
            "streams_per_second": middle(rounds, name, "per_second"),
            "first_token_p50_ms": middle(rounds, name, "p50_ms"),
            "added_p50_ms": added["p50_ms"],
            "added_p99_ms": added["p99_ms"],
            "cpu_ms_per_stream": middle(rounds, name, "cpu_ms"),
            "failed": sum(row[name]["failed"] for row in rounds),
        }
    return result


def ratio(rounds: list[dict[str, Any]], one: str, other: str) -> float:
    pairs = [(row[one]["per_second"], row[other]["per_second"]) for row in rounds]
    return statistics.median(a / b for a, b in pairs if b)


def overshoot(
    folder: str, url: str, port: int, executable: str | None, key: str, cap: int | None
) -> dict[str, Any]:
    """All at once on a budget for ten of them: what the upstream billed beyond it."""
    each = PROMPT_TOKENS + EACH * CHUNKS
    budget, asked, found = 10 * each, 64, {}
    servers = [gateway(folder, url, budget, "minute", f"gateway-race-{cap}")]
    if executable:
        servers.append(litellm(folder, executable, url, budget, f"litellm-race-{cap}"))
    for server in servers:
        with contextlib.closing(server):
            server.wait()
            before = books(port)
            row = asyncio.run(race(server.port, key, asked, cap))
            billed = books(port) - before
            name = server.name.partition("-")[0]
            found[name] = {
                **row, "budget": budget, "billed": billed, "overshoot": max(0, billed - budget),
            }  # fmt: skip
    return found


def books(port: int) -> int:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/books")
    billed = json.loads(connection.getresponse().read())["billed"]
    connection.close()
    return int(billed)


def run(given: argparse.Namespace) -> dict[str, Any]:
    seconds, rounds = (0.7, 1) if given.quick else (given.seconds, given.rounds)
    executable = given.litellm or os.environ.get("STREAMGUARD_BENCH_LITELLM")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        key = virtual_key(folder)
        port = free_port()
        url = f"http://127.0.0.1:{port}"

        def started(server: Server) -> Server:
            stack.callback(server.close)
            server.wait()
            return server

        delay = str(given.delay)
        upstream = started(
            Server("direct", role("upstream", port, "--delay", delay), port, cwd=folder)
        )
        targets = [upstream]
        for name in ("relay", "app", "app + mw", "sdk app", "sdk app + mw"):
            at = free_port()
            targets.append(started(Server(name, role(name, at, "--url", url), at, cwd=folder)))
        targets.append(started(gateway(folder, url, 10**12, "day")))
        if executable:
            targets.append(started(litellm(folder, executable, url, 10**12)))
        names = [target.name for target in targets]
        measure(targets, key, 4, 0.5)  # warm up: imports, connections, the allocator
        result: dict[str, Any] = {"chunks": CHUNKS, "rounds": rounds, "concurrency": {}}
        rows = [measure(targets, key, 1, seconds * 2, paced=True) for _ in range(rounds)]
        result["first_token"] = summary(rows, names)
        for concurrency in (1, 32, 256):
            rows = [measure(targets, key, concurrency, seconds) for _ in range(rounds)]
            found = {"targets": summary(rows, names)}
            found["middleware_of_app"] = ratio(rows, "app + mw", "app")
            found["middleware_of_sdk_app"] = ratio(rows, "sdk app + mw", "sdk app")
            if executable:
                found["gateway_of_litellm"] = ratio(rows, "gateway", "litellm")
            result["concurrency"][str(concurrency)] = found
        result["memory_mb"] = {target.name: round(target.memory_mb(), 1) for target in targets}
        result["overshoot"] = {
            name: overshoot(folder, url, port, executable, key, cap)
            for name, cap in (("with max_tokens", EACH * CHUNKS), ("without max_tokens", None))
        }
        return result


def table(rows: dict[str, Any]) -> None:
    print("target         streams/s  first p50  added p50  added p99  cpu ms/stream  failed")
    for name, row in rows.items():
        print(
            f"{name:<14}{row['streams_per_second']:>10.1f}{row['first_token_p50_ms']:>11.2f}"
            f"{row['added_p50_ms']:>11.2f}{row['added_p99_ms']:>11.2f}"
            f"{row['cpu_ms_per_stream']:>15.2f}{row['failed']:>8}"
        )


def show(result: dict[str, Any]) -> None:
    print(f"{result['chunks']} chunks a stream, {result['rounds']} rounds; first token in ms")
    print(f"\none stream at a time, {PACE * 1e3:g} ms between its chunks")
    table(result["first_token"])
    for concurrency, found in result["concurrency"].items():
        print(f"\nconcurrency {concurrency}, chunks as fast as they go")
        table(found["targets"])
        print(
            f"with the middleware: {found['middleware_of_sdk_app']:.2f} of the SDK app's "
            f"streams/s, {found['middleware_of_app']:.2f} of the byte-passing app's"
        )
        if "gateway_of_litellm" in found:
            print(f"gateway / LiteLLM: {found['gateway_of_litellm']:.1f} times the streams/s")
    print("\npeak memory, MB:", json.dumps(result["memory_mb"]))
    for kind, rows in result["overshoot"].items():
        print(f"\n64 requests at once on a budget for 10, {kind}")
        for name, row in rows.items():
            print(
                f"{name:<10} budget {row['budget']:,}, admitted {row['admitted']}, billed "
                f"{row['billed']:,}, over by {row['overshoot']:,}"
            )
    if "litellm" not in result["memory_mb"]:
        print("LiteLLM was left out: --litellm names no executable")


def serve(name: str, port: int, url: str, delay: float) -> None:
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    if name == "upstream":
        Upstream.delay = delay / 1e3
        asyncio.run(listen(port, Upstream))
        return
    if name == "relay":
        asyncio.run(listen(port, functools.partial(Relay, int(url.rpartition(":")[2]))))
        return
    import uvicorn

    app = APPS[name.removesuffix(" + mw")](url)
    app = guarded(app) if name.endswith("mw") else app
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


async def listen(port: int, protocol: Callable[[], asyncio.Protocol]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--litellm", help="LiteLLM's executable, in a venv of its own")
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--delay", type=float, default=0.0, help="ms between chunks")
    options.add_argument("--role", help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--url", default="", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.role:
        with contextlib.suppress(KeyboardInterrupt):
            serve(given.role, given.port, given.url, given.delay)
        return
    result = run(given)
    print(json.dumps(result)) if given.json else show(result)


if __name__ == "__main__":
    main()

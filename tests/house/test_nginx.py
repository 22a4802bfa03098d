"""The nginx configuration of the guide: its figures are the gateway's, and nginx streams by it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from support.gateways import free_port
from support.repo import ROOT, blocks
from support.servers import serve, wait_until

from streamguard.gateway.config import GatewayConfig
from streamguard.gateway.gate import MAX_HEADERS
from streamguard.gateway.proxy import MAX_BODY
from streamguard.gateway.serving import KEEP_ALIVE_SECONDS
from streamguard.gateway.upstreams import Upstream

PAGE = ROOT / "docs" / "how-to" / "behind-nginx.md"
(SHOWN,) = (block.code for block in blocks(PAGE) if block.language == "nginx")


def directive(name: str) -> str:
    found = re.search(rf"^ *{name} +(.*?);", SHOWN, re.MULTILINE)
    assert found
    return found[1]


def test_its_figures_are_the_gateways():
    config = GatewayConfig((Upstream(url="http://h"),))
    assert directive("server") == f"{config.host}:{config.port}"
    assert directive("client_max_body_size") == f"{MAX_BODY // 2**20}m"
    count, size = directive("large_client_header_buffers").split()
    assert int(count) * int(size.removesuffix("k")) * 1024 == MAX_HEADERS
    assert f"the gateway's {KEEP_ALIVE_SECONDS} s keep-alive" in SHOWN


def configuration(folder: Path, port: int, upstream: str) -> Path:
    """The guide's block in an http block, on a free port, with a certificate of our own."""
    cert = trustme.CA().issue_cert("localhost")
    cert.private_key_pem.write_to_path(folder / "key.pem")
    cert.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    text = SHOWN.replace(directive("server"), upstream).replace("443 ssl", f"{port} ssl")
    for shown, ours in (
        ("/etc/ssl/llm.pem", "cert.pem"), ("/etc/ssl/llm.key", "key.pem"),
        ("/var/log/nginx/llm.log", "llm.log"),
    ):  # fmt: skip
        assert shown in text
        text = text.replace(shown, str(folder / ours))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    path = folder / "nginx.conf"
    path.write_text(
        f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\n{temporary}{text}}}\n"
    )
    return path


@pytest.fixture
def nginx(tmp_path):
    """Starts nginx in front of an upstream; gives its URL."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    started = []

    def start(upstream: str) -> str:
        port = free_port()
        conf = configuration(tmp_path, port, upstream.removeprefix("http://"))
        words = ["nginx", "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(conf)]
        tested = subprocess.run([*words, "-t"], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        started.append(subprocess.Popen([*words, "-g", "daemon off;"]))
        wait_until((tmp_path / "pid").exists, "nginx does not start")
        return f"https://localhost:{port}"

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def test_each_chunk_goes_out_as_it_comes(nginx, tmp_path):
    seen = asyncio.Event()
    loops = []

    async def chunks():
        loops.append(asyncio.get_running_loop())
        yield "data: one\n\n"
        await seen.wait()  # the client has the first one: nothing was held back
        yield "data: two\n\n"

    async def stream(request):
        return StreamingResponse(chunks(), media_type="text/event-stream")

    with serve(Starlette(routes=[Route("/v1/x", stream)])) as upstream:
        url = nginx(upstream)
        with httpx.Client(verify=False) as client:
            with client.stream("GET", f"{url}/v1/x?key=secret", timeout=20) as response:
                lines = response.iter_lines()
                assert next(lines) == "data: one"
                loops[0].call_soon_threadsafe(seen.set)
                assert [line for line in lines if line] == ["data: two"]
            assert client.get(f"{url}/readyz").status_code == 404
            assert client.post(f"{url}/v1/x", content=b"x" * (MAX_BODY + 1)).status_code == 413
    wait_until(lambda: "/readyz" in (tmp_path / "llm.log").read_text(), "nginx logged nothing")
    assert "secret" not in (tmp_path / "llm.log").read_text()

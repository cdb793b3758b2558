"""Is it ready? Small questions to a process that may not answer yet.

A probe is an async callable that returns None when the answer is yes, else the reason why not, in words a
person can read. It never raises for what a starting process does (refuse, reset, answer 503).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

Probe = Callable[[], Awaitable[str | None]]

_ANSWER_LIMIT = 64 * 1024


def http_ready(port: int, path: str = "/ready", *, timeout: float = 2.0) -> Probe:
    """A probe that wants status 200 from `GET path` on 127.0.0.1:`port` within `timeout` seconds."""

    async def ask() -> str | None:
        try:
            async with asyncio.timeout(timeout):
                status, body = await _get(port, path)
        except TimeoutError:
            return f"no answer from http://127.0.0.1:{port}{path} within {timeout:g} s"
        except OSError as error:
            return f"http://127.0.0.1:{port}{path}: {error.strerror or error}"
        except ValueError as error:
            return f"http://127.0.0.1:{port}{path}: {error}"
        if status == 200:
            return None
        return f"http://127.0.0.1:{port}{path} answered {status}: {body.strip()[:300]}"

    return ask


def has_spoken(log: Path) -> Probe:
    """A probe that wants a line in `log` that was not there when this was called.

    For programs that have nothing to ask but log what they do as soon as they run.
    """
    before = log.stat().st_size if log.exists() else 0

    def spoken() -> bool:
        return log.exists() and log.stat().st_size > before

    async def look() -> str | None:
        return None if spoken() else f"it has not written anything to {log} yet"

    return look


async def _get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read(_ANSWER_LIMIT)
        while len(answer) < _ANSWER_LIMIT and (more := await reader.read(_ANSWER_LIMIT)):
            answer += more
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ValueError(f"not an HTTP answer: {answer[:60]!r}")
    return int(words[1]), body.decode(errors="replace")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            # without this a second binder would still succeed where the first did not listen yet
            listener.listen(1)
        except OSError:
            return False
    return True

"""aiohttp's client under uvicorn (uvloop, httptools), plain ASGI with nothing between: as fast as that pair
gets. Sticky by a hash of the cookie, streaming both ways, connections to the upstream kept alive.
"""

import os
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
from yarl import URL

_DROPPED = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"x-forwarded-for"}
_USER = re.compile(rb"(?:^|; )strangler_user=([^;]*)")
_SKIPPED = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")  # what aiohttp would add by itself

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Forwarder:
    """The ASGI application."""

    def __init__(self) -> None:
        self._ports = (os.environ["PEER_A"], os.environ["PEER_B"])
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._session is not None
        headers = [(name, value) for name, value in scope["headers"] if name not in _DROPPED]
        cookies = next((value for name, value in headers if name == b"cookie"), b"")
        found = _USER.search(cookies)
        port = self._ports[zlib.crc32(found[1] if found else b"") % 100 >= 50]
        target = scope["raw_path"].decode() + (
            "?" + scope["query_string"].decode() if scope["query_string"] else ""
        )
        outgoing = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        outgoing.append(("x-forwarded-for", scope["client"][0]))
        body = self._body(receive) if scope["method"] in {"POST", "PUT", "PATCH"} else None
        async with self._session.request(
            scope["method"],
            URL(f"http://127.0.0.1:{port}{target}", encoded=True),
            headers=outgoing,
            data=body,
            allow_redirects=False,
            skip_auto_headers=_SKIPPED,
        ) as response:
            passed = [pair for pair in response.raw_headers if pair[0].lower() not in _DROPPED]
            await send({"type": "http.response.start", "status": response.status, "headers": passed})
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    @staticmethod
    async def _body(receive: Receive) -> AsyncIterator[bytes]:
        while True:
            message = await receive()
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=512),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                )
                await send({"type": "lifespan.startup.complete"})
            else:
                assert self._session is not None
                await self._session.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


application = Forwarder()

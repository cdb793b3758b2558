"""Requests that must leave no trace: those marked `X-Strangler-Shadow`, which a proxy sends to compare answers.

    marked request ─► ShadowMiddleware ─► endpoint ─► Pools.current() ─► the read-only pool
                             │                                              │ SQLSTATE 25006
                             └── X-Strangler-Side-Effect: 25006 ◄── noted ◄─┘

The read-only pool's connections begin every transaction read-only, so PostgreSQL itself refuses to write
(SQLSTATE 25006), whatever the code tries. An attempt is told to the proxy even when the service swallowed the
error: the answer may look right, but the service would have written. Give the pool a role of its own that was
granted SELECT alone, and not even code that begins its transactions READ WRITE can.

Only the database is guarded. Mail, queues and other services' data are the service's own to keep still:
`in_shadow()` tells.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI
from psycopg import AsyncCursor, errors
from psycopg.rows import TupleRow
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.postgres import Pool, make_pool

MARKER = "X-Strangler-Shadow"
SIDE_EFFECT = "X-Strangler-Side-Effect"
READ_ONLY = "25006"  # read_only_sql_transaction


@dataclass(slots=True)
class _Marked:
    """A request in shadow; `wrote` once it tried to."""

    wrote: bool = False


_request: ContextVar[_Marked | None] = ContextVar("shadow", default=None)


def in_shadow() -> bool:
    """Is the request being served one that must leave no trace?"""
    return _request.get() is not None


class WatchedCursor(AsyncCursor[TupleRow]):
    """Notes that a statement was refused because it would write."""

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As AsyncCursor.execute."""
        try:
            return await super().execute(*args, **kwargs)
        except errors.ReadOnlySqlTransaction:
            _note()
            raise

    async def executemany(self, *args: Any, **kwargs: Any) -> None:
        """As AsyncCursor.executemany."""
        try:
            await super().executemany(*args, **kwargs)
        except errors.ReadOnlySqlTransaction:
            _note()
            raise


def _note() -> None:
    marked = _request.get()
    if marked is not None:
        marked.wrote = True
    structlog.get_logger().error("a request in shadow tried to write", sqlstate=READ_ONLY)


@dataclass(frozen=True, slots=True)
class Pools:
    """The service's two pools, to be opened and closed like any other."""

    ordinary: Pool
    shadow: Pool

    def current(self) -> Pool:
        """The pool for the request being served."""
        return self.shadow if in_shadow() else self.ordinary


def make_shadow_pool(dsn: str, *, name: str, statement_timeout: float = 5.0) -> Pool:
    """A small read-only pool for `dsn`, not opened yet; `name` is the application_name."""
    return make_pool(
        dsn,
        name=name,
        min_size=0,
        max_size=4,
        statement_timeout=statement_timeout,
        read_only=True,
        cursor_factory=WatchedCursor,
    )


class ShadowMiddleware:
    """Marks requests, and answers of those that tried to write. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or Headers(scope=scope).get(MARKER) is None:
            await self.app(scope, receive, send)
            return
        marked = _Marked()

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start" and marked.wrote:
                MutableHeaders(raw=message.setdefault("headers", []))[SIDE_EFFECT] = READ_ONLY
            await send(message)

        token = _request.set(marked)
        try:
            await self.app(scope, receive, telling)
        finally:
            _request.reset(token)


def keep_still(app: FastAPI) -> None:
    """Let `app` know requests in shadow. Its store must ask `Pools.current()` for a pool."""
    app.add_middleware(ShadowMiddleware)

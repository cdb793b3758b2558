"""How far the change stream into this service's database has come, told with every answer.

    poller ── SELECT from strangler_cdc.position, every 25 ms while requests come ──► AppliedPosition.lsn
    request ─► AppliedMiddleware notes lsn ─► endpoint reads ─► answer with X-Strangler-Applied: lsn

The header's promise is a lower bound: every source transaction committed before that log position was
visible to this answer's queries, because the position was read before they began. It may have been more.
`GET /position` reads the table at once and tells more, for those who wait for a position: also the lag, an
upper bound for how long ago a change may have been committed that is not here yet, as far as the stream's
process tells it (it looks at its source's log every fraction of a second).

No header is sent where there is no stream, or where it cannot be read: unknown is not fresh. The role of the
service needs SELECT on that table, and for the lag on `strangler_cdc.status`, which preparing a migration grants.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
import structlog
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from psycopg_pool import PoolTimeout
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.postgres import Connection, Pool, read

APPLIED = "X-Strangler-Applied"

_EVERY = 0.025  # seconds between looks while requests come
_WITHOUT_STREAM = 1.0  # and when there was nothing to see
_USED = 1.0  # seconds after the last request during which it is still looked
# Streams of one source are one log: the one that is furthest behind is what holds for all their tables. A name with a
# slash is one partition of a stream, whose position is not one of the log.
_QUERY = """
SELECT min(lsn)::text, max(commit_time), extract(epoch FROM clock_timestamp() - max(applied_at)) * 1000
FROM strangler_cdc.position WHERE stream !~ '/'
"""
# A process that has fallen silent is behind by that much more. One stream without a word: nobody knows.
_LAG = """
SELECT CASE WHEN count(*) = count((s.state->>'lag_seconds')::float8) THEN
    max((s.state->>'lag_seconds')::float8 + greatest(0, extract(epoch FROM clock_timestamp() - s.heartbeat))) * 1000 END
FROM strangler_cdc.position p LEFT JOIN strangler_cdc.status s USING (stream) WHERE p.stream !~ '/'
"""


@dataclass(frozen=True, slots=True)
class Applied:
    """What the table says. `lsn` as PostgreSQL writes it (`0/16B3748`); `commit_time` of the last transaction
    applied, None before the first; `quiet_ms` since the position last moved; `lag_ms` None when not known."""

    lsn: str
    commit_time: datetime | None
    quiet_ms: float
    lag_ms: float | None = None


class AppliedPosition:
    """Follows the table while somebody asks. `lsn` is None as long as nothing is known."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._wanted = asyncio.Event()
        self._asked_at = 0.0
        self._over = False
        self.lsn: str | None = None

    def ask(self) -> str | None:
        """The position known now; keeps it being followed."""
        self._asked_at = asyncio.get_running_loop().time()
        self._wanted.set()
        return self.lsn

    async def look(self) -> Applied | None:
        """Read the table; None where there is no stream. Raises what psycopg and the pool raise."""

        async def select(connection: Connection) -> Applied | None:
            try:
                row = await (await connection.execute(_QUERY)).fetchone()
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                return None
            return Applied(row[0], row[1], float(row[2])) if row is not None and row[0] is not None else None

        return await read(self._pool, select)

    async def look_closely(self) -> Applied | None:
        """As `look`, with the lag."""
        # The lag first: what is applied in between only makes the position a better one.
        lag_ms = await read(self._pool, _select_lag)
        applied = await self.look()
        return replace(applied, lag_ms=lag_ms) if applied is not None else None

    async def follow(self) -> None:
        """Look again and again while requests come. Ends by cancellation."""
        loop = asyncio.get_running_loop()
        known = True
        while not self._over:
            if loop.time() - self._asked_at > _USED:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                applied = await self.look()
            except (psycopg.Error, PoolTimeout) as error:
                applied = None
                if known:
                    structlog.get_logger().warning("applied position unknown", reason=str(error).strip())
                known = False
            else:
                known = True
            self.lsn = applied.lsn if applied is not None else None
            await asyncio.sleep(_EVERY if applied is not None else _WITHOUT_STREAM)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follow it for the life of the service."""
        task = asyncio.create_task(self.follow())
        try:
            yield
        finally:
            self._over = True  # a cancelled query may end as a database error instead
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _select_lag(connection: Connection) -> float | None:
    try:
        row = await (await connection.execute(_LAG)).fetchone()
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidSchemaName,
        psycopg.errors.InsufficientPrivilege,  # prepared by an earlier version, which did not grant it
    ):
        return None
    return float(row[0]) if row is not None and row[0] is not None else None


class AppliedMiddleware:
    """Adds the header to every HTTP answer. Plain ASGI."""

    def __init__(self, app: ASGIApp, *, position: AppliedPosition) -> None:
        self.app = app
        self.position = position

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        lsn = self.position.ask() if scope["type"] == "http" else None
        if lsn is None:
            await self.app(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message.setdefault("headers", []))[APPLIED] = lsn
            await send(message)

        await self.app(scope, receive, telling)


def tell_applied(app: FastAPI, position: AppliedPosition) -> None:
    """Add the header to every answer of `app`, and `GET /position`."""
    app.add_middleware(AppliedMiddleware, position=position)

    @app.get("/position", include_in_schema=False)
    async def show_position() -> Response:
        applied = await position.look_closely()
        if applied is None:
            return JSONResponse({"applied": None}, headers={"Cache-Control": "no-store"})
        body = {
            "applied": applied.lsn,
            "commit_time": applied.commit_time.isoformat() if applied.commit_time is not None else None,
            "quiet_ms": round(applied.quiet_ms, 3),
            "lag_ms": round(applied.lag_ms, 3) if applied.lag_ms is not None else None,
        }
        return JSONResponse(body, headers={"Cache-Control": "no-store", APPLIED: applied.lsn})

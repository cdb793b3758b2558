"""The pool of PostgreSQL connections a service reads and writes through.

`make_pool` gives a pool that starts empty and connects in the background, so a service starts, and says on
`/ready` what is wrong, while its database is still away. Each connection is autocommit, has a statement
timeout and speaks UTC. `read` runs what only reads, and runs it again when the connection turns out to be
dead, so a restarted database costs no request an error.

The pool's own `check=` is not used: it costs a round trip each time, and after a restart it waits a second,
then two, between the dead connections it meets.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

Connection = psycopg.AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]
Result = TypeVar("Result")


def make_pool(
    dsn: str,
    *,
    name: str,
    min_size: int = 2,
    max_size: int = 10,
    statement_timeout: float = 5.0,
    acquire_timeout: float = 3.0,
    read_only: bool = False,
    cursor_factory: type[psycopg.AsyncCursor[TupleRow]] = psycopg.AsyncCursor,
) -> Pool:
    """A pool for `dsn`, not opened yet. Timeouts in seconds; `name` is the application_name; `read_only`: every
    transaction begins read-only.

    `acquire_timeout` is how long a request waits for a free connection before psycopg_pool.PoolTimeout.
    """
    given = conninfo_to_dict(dsn)
    options = f"-c statement_timeout={round(statement_timeout * 1000)} -c timezone=UTC"
    if read_only:
        options += " -c default_transaction_read_only=on"
    conninfo = make_conninfo(
        dsn,
        application_name=name,
        connect_timeout=given.get("connect_timeout", 3),
        options=f"{given.get('options') or ''} {options}".strip(),
    )
    return AsyncConnectionPool(
        conninfo,
        connection_class=Connection,
        kwargs={"autocommit": True, "cursor_factory": cursor_factory},
        min_size=min_size,
        max_size=max_size,
        timeout=acquire_timeout,
        name=name,
        open=False,
    )


@asynccontextmanager
async def opened(pool: Pool) -> AsyncIterator[Pool]:
    """Open `pool` without waiting for the database; close it, and its connections, at the end."""
    await pool.open(wait=False)
    try:
        yield pool
    finally:
        await pool.close()


async def read(pool: Pool, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Run `work`, which must change nothing, on a connection of `pool`; returns what it returns.

    When the connection is lost on the way, every connection of the pool is tried, dead ones are replaced, and
    `work` runs once more. Raises what `work` or psycopg raised, psycopg_pool.PoolTimeout when there is no
    connection.
    """
    async with pool.connection() as connection:
        try:
            return await work(connection)
        except psycopg.OperationalError:
            if not connection.closed:  # the statement failed (a timeout, a full disc), not the connection
                raise
    await pool.check()
    async with pool.connection() as connection:
        return await work(connection)


async def check_database(pool: Pool) -> None:
    """A readiness check: the database answers a query. Raises what psycopg or the pool raised."""

    async def ask(connection: Connection) -> None:
        await connection.execute("SELECT 1")

    await read(pool, ask)

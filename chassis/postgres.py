"""The pool of PostgreSQL connections a service reads and writes through.

`make_pool` gives a pool that starts empty and connects in the background, so a service starts, and says on
`/ready` what is wrong, while its database is still away. Each connection is autocommit, has a statement
timeout, speaks UTC, and is tried before it is handed out, so a restart of the database costs no request an
error.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

Connection = psycopg.AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]


def make_pool(
    dsn: str,
    *,
    name: str,
    min_size: int = 2,
    max_size: int = 10,
    statement_timeout: float = 5.0,
    acquire_timeout: float = 3.0,
) -> Pool:
    """A pool for `dsn`, not opened yet. Timeouts in seconds; `name` is the application_name.

    `acquire_timeout` is how long a request waits for a free connection before psycopg_pool.PoolTimeout.
    """
    given = conninfo_to_dict(dsn)
    options = f"-c statement_timeout={round(statement_timeout * 1000)} -c timezone=UTC"
    conninfo = make_conninfo(
        dsn,
        application_name=name,
        connect_timeout=given.get("connect_timeout", 3),
        options=f"{given.get('options') or ''} {options}".strip(),
    )
    return AsyncConnectionPool(
        conninfo,
        connection_class=Connection,
        kwargs={"autocommit": True},
        min_size=min_size,
        max_size=max_size,
        timeout=acquire_timeout,
        check=AsyncConnectionPool.check_connection,
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


async def check_database(pool: Pool) -> None:
    """A readiness check: the database answers a query. Raises what psycopg or the pool raised."""
    async with pool.connection() as connection:
        await connection.execute("SELECT 1")

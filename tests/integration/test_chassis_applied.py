"""What a service tells of the change stream into its database, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psycopg
from fastapi import FastAPI
from psycopg import sql

from cdc import schema
from chassis import postgres
from chassis.applied import AppliedPosition, tell_applied
from tests.proxy_lab import until_true

ADVANCE = "UPDATE strangler_cdc.position SET lsn = %s::pg_lsn, applied_at = clock_timestamp()"


@asynccontextmanager
async def service(dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    pool = postgres.make_pool(dsn, name="test")
    app = FastAPI()

    @app.get("/read")
    async def read_position() -> dict[str, str]:
        """What a query of this very request sees."""

        async def select(connection: postgres.Connection) -> str:
            row = await (await connection.execute("SELECT lsn::text FROM strangler_cdc.position")).fetchone()
            return str(row[0]) if row is not None else ""

        return {"seen": await postgres.read(pool, select)}

    @app.get("/")
    async def answer() -> dict[str, str]:
        return {}

    position = AppliedPosition(pool)
    tell_applied(app, position)
    transport = httpx.ASGITransport(app)
    async with (
        postgres.opened(pool),
        position.followed(),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        yield client


def fill(connection: psycopg.Connection[tuple[object, ...]], lsn: str) -> None:
    connection.execute(
        "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn) VALUES ('s', %s::pg_lsn, '0/1')",
        [lsn],
    )


def number_of(lsn: str) -> int:
    return int(lsn.partition("/")[2], 16)


async def told(client: httpx.AsyncClient) -> str | None:
    return (await client.get("/")).headers.get("x-strangler-applied")


def test_every_answer_tells_a_position_its_queries_have_seen(database: str) -> None:
    async def main() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            schema.create(connection)
            fill(connection, "0/10")
            async with service(database) as client:
                await until_true(lambda: _is(client, "0/10"))
                for number in range(0x20, 0x60):
                    connection.execute(ADVANCE, [f"0/{number:X}"])
                    answer = await client.get("/read")
                    header, seen = answer.headers["x-strangler-applied"], answer.json()["seen"]
                    assert number_of(header) <= number_of(seen)
                await until_true(lambda: _is(client, "0/5F"))
                body = (await client.get("/position")).json()
                assert body["applied"] == "0/5F"
                assert body["quiet_ms"] >= 0

    asyncio.run(main())


async def _is(client: httpx.AsyncClient, lsn: str) -> bool:
    return await told(client) == lsn


def test_several_streams_are_as_far_as_the_last_of_them(database: str) -> None:
    async def main() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            schema.create(connection)
            fill(connection, "0/99")
            connection.execute(
                "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn) VALUES ('t', '0/9A', '0/1')"
            )
            async with service(database) as client:
                assert (await client.get("/position")).json()["applied"] == "0/99"

    asyncio.run(main())


def test_without_a_stream_nothing_is_told(database: str) -> None:
    async def main() -> None:
        async with service(database) as client:
            assert (await client.get("/position")).json() == {"applied": None}
            assert await told(client) is None

    asyncio.run(main())


def test_a_role_that_owns_nothing_of_the_stream_may_read_the_position_and_no_more(database: str) -> None:
    async def main() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            schema.create(connection)
            fill(connection, "0/10")
            name = connection.info.dbname
            role = sql.Identifier(f"reader_{name}")
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'reader'").format(role))
            try:
                dsn = psycopg.conninfo.make_conninfo(database, user=f"reader_{name}", password="reader")
                async with service(dsn) as client:
                    assert (await client.get("/position")).json()["applied"] == "0/10"
                with psycopg.connect(dsn, autocommit=True) as reader:
                    for statement in (ADVANCE.replace("%s", "'0/1'"), "SELECT * FROM strangler_cdc.control"):
                        try:
                            reader.execute(statement)  # type: ignore[call-overload]  # psycopg wants literals
                        except psycopg.errors.InsufficientPrivilege:
                            continue
                        raise AssertionError(statement)
            finally:
                connection.execute(sql.SQL("DROP ROLE {}").format(role))

    asyncio.run(main())

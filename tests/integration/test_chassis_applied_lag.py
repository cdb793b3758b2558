"""The lag a service tells beside its position: an upper bound, from what the stream's process says of itself."""

import asyncio
import json

import psycopg

from cdc import schema
from tests.integration.test_chassis_applied import fill, service

STATUS = (
    "INSERT INTO strangler_cdc.status (stream, heartbeat, state)"
    " VALUES ('s', clock_timestamp() - make_interval(secs => %s), %s)"
    " ON CONFLICT (stream) DO UPDATE SET heartbeat = EXCLUDED.heartbeat, state = EXCLUDED.state"
)


def test_the_lag_grows_while_the_process_is_silent_and_is_unknown_without_its_word(database: str) -> None:
    async def main() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            schema.create(connection)
            fill(connection, "0/10")
            async with service(database) as client:

                async def lag() -> float | None:
                    told: float | None = (await client.get("/position")).json()["lag_ms"]
                    return told

                assert await lag() is None
                connection.execute(STATUS, [0, json.dumps({"lag_seconds": 1.5})])
                told = await lag()
                assert told is not None
                assert 1500 <= told < 10_000
                connection.execute(STATUS, [60, json.dumps({"lag_seconds": 1.5})])
                told = await lag()
                assert told is not None
                assert 61_500 <= told < 70_000
                connection.execute(STATUS, [0, json.dumps({"lag_seconds": None})])
                assert await lag() is None
                # a second stream into this database of which nothing is heard: nobody knows
                connection.execute(STATUS, [0, json.dumps({"lag_seconds": 0.0})])
                connection.execute(
                    "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn) VALUES ('t', '0/20', '0/1')"
                )
                assert await lag() is None

    asyncio.run(main())

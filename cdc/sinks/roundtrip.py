"""Prepared statements with their values, sent together and answered together: one round trip for a small batch.

    parse (once), bind, execute, … , sync     ─►  the target works
                                                ◄─  what became of each

After a statement that fails the target runs none of those behind it. Nobody looks at a count in between: a statement
that must concern so many rows fails by itself when it does not (`cdc.statements.exactly`). psycopg's own pipeline is
the same on the wire and more work here. Source: PostgreSQL 16 manual, "Extended Query" and "Pipelining"; libpq,
"Pipeline Mode".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq

from cdc.sessions import failure
from cdc.sinks.talk import Talk
from cdc.statements import exactly

_MOST_PREPARED = 500  # then all are made anew; a mapping has a few for each table


@dataclass(frozen=True, slots=True)
class Bound:
    """`sql` with $1, $2, … in it, and PostgreSQL's own text for each; None is NULL. `rows`: it has to concern so many,
    None: any number.
    """

    sql: str
    values: Sequence[bytes | None] = ()
    rows: int | None = None


class RoundTrips:
    """Small batches through `connection`, which is nobody else's meanwhile."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._talk = Talk(connection)
        self._names: dict[str, bytes] = {}
        self._made = 0

    def run(self, statements: Sequence[Bound]) -> None:
        """Run `statements` in order. Raises psycopg.Error: that of the first one that failed."""
        pgconn = self._talk.pgconn
        pgconn.enter_pipeline_mode()
        new = self._send(statements)
        pgconn.pipeline_sync()
        self._talk.flush()
        failed = self._finish(new)
        pgconn.exit_pipeline_mode()
        if failed is not None:
            raise failed

    def _send(self, statements: Sequence[Bound]) -> list[str | None]:
        """What is on its way: of a statement that is prepared its text, None for one that is run."""
        pgconn, names = self._talk.pgconn, self._names
        sent: list[str | None] = []
        if len(names) >= _MOST_PREPARED:
            for name in names.values():
                pgconn.send_query_params(b"DEALLOCATE " + name, None)
                sent.append(None)
            names.clear()
        for statement in statements:
            sql = statement.sql if statement.rows is None else exactly(statement.sql, statement.rows)
            if sql not in names:
                self._made += 1
                names[sql] = b"strangler_%d" % self._made
                pgconn.send_prepare(names[sql], sql.encode())
                sent.append(sql)
            pgconn.send_query_prepared(names[sql], statement.values)
            sent.append(None)
        return sent

    def _finish(self, sent: Sequence[str | None]) -> psycopg.Error | None:
        """Take the answers; the first error."""
        failed: psycopg.Error | None = None
        answer = self._talk.answer
        for prepared in sent:
            while (result := answer()) is not None:
                if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED):
                    if failed is None:
                        failed = failure(result)
                    if prepared is not None:
                        del self._names[prepared]  # the server never made it
        synced = answer()
        assert synced is not None
        assert synced.status == pq.ExecStatus.PIPELINE_SYNC
        return failed

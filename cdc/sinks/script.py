"""Several statements and the rows they copy as one message, whose answer is fetched later.

    send()     BEGIN; COPY … FROM STDIN; INSERT …; COMMIT     ─►  the target works
               the rows, as each COPY asks for them           ─►
    …          we do something else
    finish()                                                  ◄─  what became of it

A statement by itself costs a round trip, in which either the target waits for us or we for it. After a statement
that fails the target runs none of those behind it. Source: PostgreSQL 16 manual, "Multiple Statements in a Simple
Query" and "COPY Operations" of the message flow; libpq, "Asynchronous Command Processing".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq

from cdc.sessions import failure
from cdc.sinks.talk import Talk

_BLOCK = 262_144  # bytes handed to libpq at once; it copies what the socket does not take


@dataclass(frozen=True, slots=True)
class Statement:
    """`rows`: what a COPY FROM STDIN reads; None for any other statement."""

    sql: str
    rows: bytes | None = None


class Script:
    """`statements` on their way through `connection`, which is nobody else's until `finish` has returned."""

    def __init__(self, connection: psycopg.Connection[Any], statements: Sequence[Statement]) -> None:
        self._talk = Talk(connection)
        self._statements = statements
        self._failed: psycopg.Error | None = None

    def send(self) -> None:
        """Return when the target has everything, though not yet worked on it. Raises psycopg.OperationalError when
        the connection is lost; an error of a statement comes with `finish`.
        """
        self._talk.pgconn.send_query(";\n".join(each.sql for each in self._statements).encode())
        self._talk.flush()
        for statement in self._statements:
            if statement.rows is not None and not self._feed(statement.rows):
                return

    def finish(self) -> None:
        """Wait until it is done. Raises psycopg.Error: that of the first statement that failed."""
        while self._answer() is not None:
            pass
        if self._failed is not None:
            raise self._failed

    def _feed(self, rows: bytes) -> bool:
        while (answer := self._answer()) is not None:
            if answer.status == pq.ExecStatus.COPY_IN:
                pgconn, view = self._talk.pgconn, memoryview(rows)
                for start in range(0, len(rows), _BLOCK):
                    pgconn.put_copy_data(view[start : start + _BLOCK])
                    self._talk.flush()
                pgconn.put_copy_end()
                self._talk.flush()
                return True
        return False

    def _answer(self) -> pq.abc.PGresult | None:
        answer = self._talk.answer()
        if answer is not None and answer.status == pq.ExecStatus.FATAL_ERROR and self._failed is None:
            self._failed = failure(answer)
        return answer

"""libpq's asynchronous calls, for who waits in a thread. Source: libpq, "Asynchronous Command Processing"."""

import select
from typing import Any

import psycopg
from psycopg import pq


class Talk:
    """What `connection` has to send and to answer. Raises psycopg.OperationalError when it is lost."""

    __slots__ = ("_poll", "pgconn")

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.pgconn = connection.pgconn
        self._poll = select.poll()

    def flush(self) -> None:
        """Return when all is with the kernel."""
        while self.pgconn.flush():
            # a server that has much to tell stops reading until it has told it
            if self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
                self.pgconn.consume_input()

    def answer(self) -> pq.abc.PGresult | None:
        """The next result, None after the last one of a command."""
        while self.pgconn.is_busy():
            self._wait(select.POLLIN)
            self.pgconn.consume_input()
        return self.pgconn.get_result()

    def _wait(self, events: int) -> int:
        # by itself libpq would wait within C, and keep all other threads from running
        self._poll.register(self.pgconn.socket, events)
        ((_, happened),) = self._poll.poll()
        return happened

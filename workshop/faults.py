"""Real faults, each with its cure.

Nothing is simulated: a right is taken away from the service's role, or its process is stopped or killed. Each
fault is a context: whatever ends the block (an error, Ctrl-C) heals it.

| fault | what is done | what the service does | cure |
|---|---|---|---|
| `RevokedRead` | `REVOKE SELECT` on a table from its role | every query of that table fails: 500 | `GRANT` |
| `StoppedProcess` | SIGSTOP | accepts connections, never answers | SIGCONT |
| `KilledProcess` | SIGKILL | connections are refused | the supervisor starts it again |
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import psycopg
from psycopg import sql


class Fault(Protocol):
    """Something that can be broken and healed. Both are safe to repeat."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def inject(self) -> None:
        """Break it."""
        ...

    def heal(self) -> None:
        """Undo it; does nothing when it is whole."""
        ...


@dataclass(frozen=True, slots=True)
class RevokedRead:
    """`role` may no longer read `tables` of the database of `admin_dsn`, although it owns them."""

    admin_dsn: str
    role: str
    tables: Sequence[str]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"role {self.role} may not read {', '.join(self.tables)} any more"

    def inject(self) -> None:
        """Take the right away."""
        self._each(sql.SQL("REVOKE SELECT ON {table} FROM {role}"))

    def heal(self) -> None:
        """Give it back."""
        self._each(sql.SQL("GRANT SELECT ON {table} TO {role}"))

    def _each(self, statement: sql.SQL) -> None:
        with psycopg.connect(self.admin_dsn, connect_timeout=5) as connection:
            for table in self.tables:
                name = sql.Identifier(*table.split("."))
                connection.execute(statement.format(table=name, role=sql.Identifier(self.role)))


@dataclass(frozen=True, slots=True)
class StoppedProcess:
    """The process does not run any more but keeps its sockets: the kernel accepts, nobody answers.

    `pid` is asked each time, because a supervisor may have started the process again.
    """

    process: str
    pid: Callable[[], int]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"SIGSTOP {self.process}"

    def inject(self) -> None:
        """Stop it."""
        os.kill(self.pid(), signal.SIGSTOP)

    def heal(self) -> None:
        """Let it run; nothing to do when it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid(), signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class KilledProcess:
    """The process is gone at once, without a word to anybody."""

    process: str
    pid: Callable[[], int]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"SIGKILL {self.process}"

    def inject(self) -> None:
        """Kill it."""
        os.kill(self.pid(), signal.SIGKILL)

    def heal(self) -> None:
        """The supervisor heals it: it starts the process again."""


@contextmanager
def injected(fault: Fault) -> Iterator[None]:
    """Break it for the length of the block."""
    try:
        fault.inject()
        yield
    finally:
        fault.heal()

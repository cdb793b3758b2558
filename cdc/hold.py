"""Hold a running stream for a moment, so that both sides can be looked at as of one log position.

    verifier                                applier
    ask() ─────────── request, lease ─────► stops applying, notes where (held_at)
    takes a snapshot of the source at C
    go_to(C) ───────────────────────────►   applies exactly what committed before C, notes `reached`
    opens a snapshot of the target
    release() ──────────────────────────►   goes on

The talk is one row of `strangler_cdc.control`. Every request has a lease: when a verifier dies, the stream
goes on by itself, and the verifier that comes back finds its request gone.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event as StopEvent
from typing import Any, Protocol

import psycopg

from cdc.changes import Lsn

_POLL = 0.003  # seconds, while somebody waits
_LOOK_EVERY = 0.02  # seconds, while nobody has asked


class HoldLostError(Exception):
    """The request is gone: its lease ran out, or another verifier replaced it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How far the applier may go: `upto` None means not one step."""

    upto: Lsn | None


class Gate(Protocol):
    """Asked by the pipeline before each step."""

    def limit(self) -> Limit | None:
        """The limit that holds now, None when there is none."""

    def arrived(self, position: Lsn) -> None:
        """The applier stands at `position` and the limit lets it go no further."""


class OpenGate:
    """Never holds anything."""

    def limit(self) -> Limit | None:
        """None."""
        return None

    def arrived(self, position: Lsn) -> None:
        """Not called."""


class ControlGate:
    """The applier's side. `connection` is the applier's own (psycopg.RawCursor)."""

    def __init__(self, connection: psycopg.Connection[Any], stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._looked = 0.0
        self._held = False

    def limit(self) -> Limit | None:
        """The request in force. Looks at most every 20 ms while nothing is held."""
        now = time.monotonic()
        if not self._held and now - self._looked < _LOOK_EVERY:
            return None
        if self._held:
            time.sleep(_POLL)  # the verifier is at work; the lease bounds this
        self._looked = now
        row = self._connection.execute(
            "SELECT upto::text FROM strangler_cdc.control WHERE stream = $1 AND lease_until > "
            "clock_timestamp()",
            [self._stream],
        ).fetchone()
        self._held = row is not None
        if row is None:
            return None
        return Limit(None if row[0] is None else Lsn.parse(row[0]))

    def arrived(self, position: Lsn) -> None:
        """Tell the verifier that we stand at `position`."""
        self._connection.execute(
            "UPDATE strangler_cdc.control SET held_at = $2::text::pg_lsn,"
            " reached = upto IS NOT NULL AND upto <= $2::text::pg_lsn"
            " WHERE stream = $1 AND (held_at IS NULL OR held_at < $2::text::pg_lsn OR upto <= "
            "$2::text::pg_lsn)"
            " AND NOT reached",
            [self._stream, str(position)],
        )


class Hold:
    """The verifier's side of one request. `connection` is autocommit, to the target. `partitions` are the names of a
    stream's partitions, each of which has an applier of its own (`cdc.sharded`); all of them are held.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        stream: str,
        *,
        partitions: Sequence[str] = (),
        lease: float,
        stop: StopEvent | None = None,
    ) -> None:
        """`lease`: seconds after which the stream goes on whatever happens to us. `stop` ends every wait
        (HoldLostError).
        """
        self._connection = connection
        self._stream = stream
        self._held = list(partitions) or [stream]
        self._lease = lease
        self._stop = stop
        self._request = uuid.uuid4()

    def ask(self, *, timeout: float) -> bool:
        """Ask the applier to hold; False when it does not answer within `timeout` seconds."""
        self._connection.execute(
            "DELETE FROM strangler_cdc.control WHERE stream = ANY(%s) AND lease_until <= clock_timestamp()",
            [self._held],
        )
        made = self._connection.execute(
            "INSERT INTO strangler_cdc.control (stream, request, lease_until)"
            " SELECT held, %s, clock_timestamp() + make_interval(secs => %s) FROM unnest(%s::text[]) held"
            " ON CONFLICT (stream) DO NOTHING",
            [self._request, self._lease, self._held],
        ).rowcount
        if made != len(self._held):
            self.release()
            raise HoldLostError(f"another verification of stream {self._stream} holds it; wait until it ends")
        if not self._wait("held_at IS NOT NULL", timeout, renew=True):
            return False
        self._renew()  # what follows may take as long as the lease allows
        return True

    def go_to(self, position: Lsn, *, timeout: float) -> bool:
        """Let the applier go exactly to `position`; False when it does not arrive within `timeout`
        seconds.
        """
        self._connection.execute(
            "UPDATE strangler_cdc.control SET upto = %s::pg_lsn,"
            " lease_until = clock_timestamp() + make_interval(secs => %s) WHERE stream = ANY(%s) AND request = %s",
            [str(position), self._lease, self._held, self._request],
        )
        return self._wait("reached", timeout, renew=True)

    def still_held(self) -> bool:
        """Whether the applier still stands where it was told to."""
        row = self._connection.execute(
            "SELECT count(*) FILTER (WHERE reached) FROM strangler_cdc.control"
            " WHERE stream = ANY(%s) AND request = %s AND lease_until > clock_timestamp()",
            [self._held, self._request],
        ).fetchone()
        return row is not None and row[0] == len(self._held)

    def release(self) -> None:
        """Let the stream go on."""
        self._connection.execute(
            "DELETE FROM strangler_cdc.control WHERE stream = ANY(%s) AND request = %s",
            [self._held, self._request],
        )

    def _wait(self, condition: str, timeout: float, *, renew: bool = False) -> bool:
        question = (
            f"SELECT bool_and({condition}), bool_and(lease_until > clock_timestamp()) AND count(*) = %s"  # noqa: S608  (ours)
            " FROM strangler_cdc.control"
            " WHERE stream = ANY(%s) AND request = %s"
        )
        renewed = time.monotonic()
        deadline = renewed + timeout
        while True:
            if self._stop is not None and self._stop.is_set():
                raise HoldLostError("stopped")
            row = self._connection.execute(
                question.encode(), [len(self._held), self._held, self._request]
            ).fetchone()
            if row is None or not row[1]:
                raise HoldLostError(
                    f"the hold of stream {self._stream} ran out before it was used; try again"
                )
            if row[0]:
                return True
            if time.monotonic() > deadline:
                return False
            if renew and time.monotonic() > renewed + self._lease / 2:
                # an applier that has far to go is not standing still
                self._renew()
                renewed = time.monotonic()
            time.sleep(_POLL)

    def _renew(self) -> None:
        self._connection.execute(
            "UPDATE strangler_cdc.control SET lease_until = clock_timestamp() + make_interval(secs => %s)"
            " WHERE stream = ANY(%s) AND request = %s",
            [self._lease, self._held, self._request],
        )

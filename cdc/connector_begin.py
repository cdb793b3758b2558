"""The moment in which a new connector takes the slot that the snapshot was made with.

    slot made ─► snapshot ─► position stored ─► connector registered ─► it takes the slot ─► its first offset

Between the third step and the fifth nobody holds the slot, and a connector that has no offset yet makes a slot that is
gone anew, where the log is then: what happened between would be missing without a word. (One that has an offset looks
whether the slot still has it, and refuses.) So nothing is read from Kafka before the slot is seen to be read from where
the snapshot ended.
"""

import time
from threading import Event as StopEvent

from cdc.changes import Lsn
from cdc.connect import Connect
from cdc.seams import BEGIN_ANEW, AwayError, StreamError
from cdc.sessions import connect
from cdc.sources.slot import slot_state

_WITHIN = 20.0  # seconds; then the session begins anew, which restarts a connector that failed
_EVERY = 0.1  # seconds


def await_taken(url: str, *, name: str, source_dsn: str, position: Lsn, stop: StopEvent) -> None:
    """Return when connector `name` of the Connect at `url` has an offset, or reads its slot from `position` or before;
    or when `stop` is set.

    Raises StreamError when the slot begins further on, AwayError when it is gone or is not read for a while,
    psycopg.OperationalError.
    """
    with Connect(url) as door:
        if door.has_offset(name):
            return
        with connect(source_dsn, name=f"strangler_cdc look {name}") as source:
            deadline = time.monotonic() + _WITHIN
            while not stop.is_set():
                slot = slot_state(source, name)
                if slot is None:
                    raise AwayError(f"slot {name} is gone before its connector has read from it")
                if slot.confirmed is not None and slot.confirmed > position:
                    if door.has_offset(name):
                        return  # meanwhile it has read, stored and confirmed
                    raise StreamError(
                        f"slot {name} was made anew on the source before its connector read from it: it begins at "
                        f"{slot.confirmed}, what happened since {position} is not in it; {BEGIN_ANEW}"
                    )
                if slot.active_pid is not None:
                    return
                if time.monotonic() > deadline:
                    status = door.status(name)
                    said = "does not exist" if status is None else status.fault or "runs, or is about to"
                    raise AwayError(
                        f"connector {name} has not begun to read its slot within {_WITHIN:g} s; it {said}"
                    )
                stop.wait(_EVERY)

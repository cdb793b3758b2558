"""How a stream begins, from what both sides hold: the table in `cdc.pipeline`. Pure."""

from enum import StrEnum

from cdc.changes import Lsn
from cdc.seams import BEGIN_ANEW, StreamError
from cdc.sources.slot import SlotState


class Start(StrEnum):
    """How a stream begins."""

    SNAPSHOT = "snapshot"
    SNAPSHOT_AGAIN = "snapshot_again"
    STREAM = "stream"


def decide_start(
    *, slot: str, database: str, position: Lsn | None, state: SlotState | None, kept_elsewhere: bool = False
) -> Start:
    """How to begin, from what both sides hold. `database`: the source's name on its server. `kept_elsewhere`: what has
    been read from the slot is kept (in Kafka) until it is stored.

    Raises StreamError when going on would lose changes, or drop a slot that is not ours.
    """
    if state is not None and state.plugin != "pgoutput":
        raise StreamError(
            f"slot {slot} on the source belongs to something else (plugin {state.plugin or 'none'!r}); "
            f"choose another slot name"
        )
    if state is not None and state.database != database:
        # slots have one name space for the whole server
        raise StreamError(
            f"slot {slot} on the source's server belongs to database {state.database}, not to {database}; "
            "choose another slot name"
        )
    if position is None:
        return Start.SNAPSHOT if state is None else Start.SNAPSHOT_AGAIN
    if state is None:
        raise StreamError(
            f"the target is filled up to {position}, but slot {slot} does not exist on the source: the "
            "changes since "
            f"then can no longer be read; {BEGIN_ANEW}"
        )
    if state.lost:
        raise StreamError(
            f"slot {slot} has lost the log it needs (max_slot_wal_keep_size was exceeded): changes after "
            f"{position} "
            f"can no longer be read; {BEGIN_ANEW}"
        )
    if state.confirmed is not None and state.confirmed > position and not kept_elsewhere:
        raise StreamError(
            f"slot {slot} was read up to {state.confirmed}, but the target holds only what happened up to "
            f"{position}: "
            f"was the target restored from a backup? {BEGIN_ANEW}"
        )
    return Start.STREAM

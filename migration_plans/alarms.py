"""What people must hear of although no gate and no rollback asks: is it so now? Pure.

An alarm is raised when its cause appears and cleared when it is gone; which ones are raised is part of the ledger's
record, so a new controller neither repeats nor forgets one. What is not known changes nothing.

* `parked`: the target refused changes, their keys wait (`stream.on_refused: park`).
* `slot`: the source keeps much log for the stream. Raised at `gates.max_retained`, when half of the server's
  `max_slot_wal_keep_size` is used up, or when as much is kept as the disk has left (where that is known), whichever
  is least: there must be time to act. Cleared at 80 % of that.
"""

from collections.abc import Mapping
from enum import StrEnum

from migration_plans.gates import GatePolicy, SlotSignal, StreamSignal
from migration_plans.quantities import format_bytes

RAISED = "alarm_raised"
CLEARED = "alarm_cleared"
"""The ledger's events for an alarm, with its name and text as `alarm` and `reason`."""

_SHARE = 0.5  # of what ends the slot or the disk
_CLEARED_BELOW = 0.8  # of the limit, so that an alarm does not flutter


class AlarmName(StrEnum):
    """The alarms there are."""

    PARKED = "parked"
    SLOT = "slot"


def alarms(
    raised: frozenset[AlarmName], stream: StreamSignal | None, slot: SlotSignal | None, policy: GatePolicy
) -> Mapping[AlarmName, str]:
    """The alarms that hold now, each with what is wrong and what to do. `raised` are those that did."""
    found: dict[AlarmName, str] = {}
    judged = {
        AlarmName.PARKED: _parked(stream),
        AlarmName.SLOT: _slot(AlarmName.SLOT in raised, slot, policy),
    }
    for name, text in judged.items():
        if text:
            found[name] = text
        elif text is None and name in raised:
            found[name] = "not known at the moment"
    return found


def _parked(stream: StreamSignal | None) -> str | None:
    if stream is None or stream.parked is None:
        return None
    if not stream.parked:
        return ""
    keys = "1 key" if stream.parked == 1 else f"{stream.parked} keys"
    return (
        f"the target refused changes: {keys} parked, all others go on; `strangler cdc parked PLAN` says why, then "
        "`strangler cdc retry PLAN KEY` or `skip`"
    )


def _slot(raised: bool, slot: SlotSignal | None, policy: GatePolicy) -> str | None:
    if slot is None:
        return None
    if not slot.exists:
        return ""  # before the snapshot, or after a teardown: nothing is kept
    if slot.status == "lost":
        return (
            f"slot {slot.name} has lost the log that the stream needs (max_slot_wal_keep_size was exceeded): "
            "`strangler reset PLAN`, then begin anew, the snapshot copies everything again"
        )
    limits = [(policy.max_retained, "gates.max_retained")]
    if slot.keep_at_most is not None:
        limits.append((round(slot.keep_at_most * _SHARE), f"{_SHARE:.0%} of max_slot_wal_keep_size"))
    if slot.disk_free is not None:
        room = slot.disk_free + slot.retained
        limits.append((round(room * _SHARE), f"{_SHARE:.0%} of what the source's disk has room for"))
    limit, named = min(limits)
    if slot.retained < (limit * _CLEARED_BELOW if raised else limit) and slot.status != "unreserved":
        return ""
    left = "" if slot.safe is None else f", {format_bytes(max(0, slot.safe))} until it loses its log"
    cause = (
        "its reader is connected but behind: is the target slow, or a transaction long?"
        if slot.active
        else "nobody reads it: start `strangler cdc run PLAN`"
    )
    return (
        f"the source keeps {format_bytes(slot.retained)} of log for slot {slot.name}, alarm at {format_bytes(limit)} "
        f"({named}){left}; {cause}; if the migration is given up, `strangler reset PLAN` drops the slot before the "
        "source's disk fills"
    )

"""Whether the source of now holds the log that the target was filled from. Pure.

A position is a place in one log. Another cluster has other changes at the same place, and so has the same cluster
after a failover or a restore: its log forks, and each branch is a *timeline*. So beside the position the target keeps
where it is from (`Origin`), and before a stream goes on `judge` compares:

    another system identifier, another database     another log: refuse
    the same timeline, log ends before the position an older copy of the source runs: refuse
                                                    (a standby may still replay: wait)
    a new timeline that forked at or after it       the new log contains the position: go on
    a new timeline that forked before it            what the target holds of the abandoned end never happened: refuse
    a timeline that is no descendant                refuse

What a copy of the data directory that was started *without* recovery has written since cannot be told from the
original once it has passed the position: it keeps its identifier and its timeline.

Where Kafka is between, it came through a topic, and so does what follows. A topic that was deleted and made anew, by a
broker that lost its data or by somebody's hand, bears the same name and begins at offset 0 like a fresh one: only its
id (KIP-516) tells that what was in the old one and not yet applied is gone.

Timelines and the format of their history files: PostgreSQL manual, "Continuous Archiving", and
src/backend/access/transam/timeline.c.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from cdc.changes import Lsn
from cdc.seams import BEGIN_ANEW, AwayError, StreamError


@dataclass(frozen=True, slots=True)
class Origin:
    """Where positions are from: the cluster's system identifier, the timeline, the database's OID."""

    system: str
    timeline: int
    database: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A source as it is. `end`: of its log on disk; `replays`: it is a standby, whose log still arrives."""

    origin: Origin
    end: Lsn
    replays: bool = False


@dataclass(frozen=True, slots=True)
class Fork:
    """`timeline` is contained in a later one up to `end`."""

    timeline: int
    end: Lsn


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of Kafka's. Its `id` is new whenever a topic of that name is made."""

    name: str
    id: UUID


def judge_topic(stored: Topic | None, found: Topic | None, *, stream: str, position: Lsn) -> None:
    """Return when what follows `position` comes through `found`. `stored` is what the position came through, None when
    nothing has come through a topic yet; `found` is None when there is none. Raises StreamError when it does not.
    """
    if stored is None or stored == found:
        return
    if found is None:
        what = f"came through topic {stored.name}, which was deleted"
    elif found.name == stored.name:
        what = (
            f"came through topic {stored.name} with the id {stored.id}; the one of now, {found.id}, was made since: "
            "the old one was deleted, or the broker lost its data"
        )
    else:
        what = f"came through topic {stored.name}, and the plan names {found.name}: name the old one, or"
        raise StreamError(f"stream {stream}: what the target holds up to {position} {what} {BEGIN_ANEW}")
    raise StreamError(
        f"stream {stream}: what the target holds up to {position} {what}. What the connector had written into it and "
        f"the target lacks is lost; {BEGIN_ANEW}"
    )


def parse_history(content: str) -> tuple[Fork, ...]:
    """The forks that a timeline's history file tells of, oldest first. Raises ValueError naming the line."""
    forks = []
    for number, line in enumerate(content.splitlines(), start=1):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        words = said.split()
        try:
            forks.append(Fork(int(words[0]), Lsn.parse(words[1])))
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"line {number} of the timeline's history is not understood: {said!r}"
            ) from error
    return tuple(forks)


def judge(stored: Origin | None, seen: Seen, *, stream: str, position: Lsn, history: Sequence[Fork]) -> None:
    """Return when `seen` contains what was applied up to `position`. `stored` is where that came from, None when an
    earlier version did not note it; `history` is of the source's timeline, empty for the first.

    Raises StreamError when it does not, AwayError when it will be known later.
    """
    now = seen.origin
    if stored is not None and now.system != stored.system:
        raise _refuse(
            stream,
            position,
            f"came from the cluster with system identifier {stored.system}, the source is another one ({now.system})",
            "correct the source's address, or",
        )
    if stored is not None and now.database != stored.database:
        raise _refuse(
            stream,
            position,
            f"came from the database with OID {stored.database}, the source's has {now.database}",
            "correct the source's address, or",
        )
    if stored is not None and now.timeline != stored.timeline:
        _judge_fork(stored, now, stream, position, history)
    if seen.end < position:
        if seen.replays:
            raise AwayError(
                f"the source is a standby that has come to {seen.end}; it is asked again at {position}"
            )
        raise _refuse(
            stream,
            position,
            f"is not in the source's log, which ends at {seen.end}: an older copy of the source runs, such as a backup",
        )


def _judge_fork(stored: Origin, now: Origin, stream: str, position: Lsn, history: Sequence[Fork]) -> None:
    fork = next((fork for fork in history if fork.timeline == stored.timeline), None)
    if fork is None:
        raise _refuse(
            stream,
            position,
            f"is of timeline {stored.timeline}, of which the source's timeline {now.timeline} is no descendant",
        )
    if position > fork.end:
        raise _refuse(
            stream,
            position,
            f"lies behind {fork.end}, where the source left timeline {stored.timeline} for timeline {now.timeline}: a "
            "standby that lacked changes took over, or a backup was restored, and what the target holds since then "
            "never happened there",
        )


def _refuse(stream: str, position: Lsn, why: str, first: str = "") -> StreamError:
    todo = f"{first} {BEGIN_ANEW}" if first else BEGIN_ANEW
    return StreamError(f"stream {stream}: what the target holds up to {position} {why}; {todo}")

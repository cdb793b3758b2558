"""What the two servers must be and have left: log level, slots, senders, version, standbys, clocks."""

from collections.abc import Iterator

from cdc.changes import literal
from cdc.doctor.check import AskedBy, Check, Facts, Subject
from cdc.findings import Finding, Place, Rule, Severity, Side

_SOURCE = Place(Side.SOURCE)
_OLDEST = 160000  # origin filter of pgoutput

WAL_LEVEL = Rule(
    "wal-level",
    Severity.ERROR,
    "the source server does not write the log that decoding needs",
    "without wal_level = logical no slot can be made",
    "ALTER SYSTEM SET wal_level = 'logical', then restart the server",
)


def judge_wal_level(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """wal_level must be logical."""
    for row in facts.source:
        if row["wal_level"] != "logical":
            yield WAL_LEVEL.found(
                f"the source server runs with wal_level={row['wal_level']}",
                place=_SOURCE,
                repair="ALTER SYSTEM SET wal_level = 'logical'",
                remedy="run ALTER SYSTEM SET wal_level = 'logical' there and restart it",
            )


_ROOM = """
SELECT current_setting('max_replication_slots')::int AS slots,
       current_setting('max_replication_slots')::int
           - (SELECT count(*) FROM pg_replication_slots WHERE slot_name <> %(slot)s)::int AS slots_free,
       current_setting('max_wal_senders')::int AS senders,
       -- unlike pg_stat_activity this view shows a row for each sender to everybody
       current_setting('max_wal_senders')::int - (
           SELECT count(*) FROM pg_stat_replication WHERE application_name <> 'strangler_cdc read ' || %(slot)s)::int
           AS senders_free
"""
SLOTS_EXHAUSTED = Rule(
    "slots-exhausted",
    Severity.ERROR,
    "the source has no free replication slot",
    "the snapshot begins by making the stream's slot",
    "drop slots nobody uses, or raise max_replication_slots and restart the server",
)
SLOTS_SCARCE = Rule(
    "slots-scarce",
    Severity.WARNING,
    "the source has one free replication slot only",
    "verification beside the stream needs a second one for a moment",
    "drop slots nobody uses, or raise max_replication_slots and restart the server",
)
SENDERS_EXHAUSTED = Rule(
    "senders-exhausted",
    Severity.ERROR,
    "the source has no free WAL sender",
    "the log is read through one",
    "raise max_wal_senders and restart the server",
)
SENDERS_SCARCE = Rule(
    "senders-scarce",
    Severity.WARNING,
    "the source has one free WAL sender only",
    "verification beside the stream needs a second one for a moment",
    "raise max_wal_senders and restart the server",
)


def judge_slots_exhausted(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """At least one slot must be free (our own counts as free)."""
    return _too_few(facts, SLOTS_EXHAUSTED, what="slots", setting="max_replication_slots", free=range(1))


def judge_slots_scarce(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """One free slot is one too few."""
    return _too_few(facts, SLOTS_SCARCE, what="slots", setting="max_replication_slots", free=range(1, 2))


def judge_senders_exhausted(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """At least one WAL sender must be free."""
    return _too_few(facts, SENDERS_EXHAUSTED, what="senders", setting="max_wal_senders", free=range(1))


def judge_senders_scarce(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """One free WAL sender is one too few."""
    return _too_few(facts, SENDERS_SCARCE, what="senders", setting="max_wal_senders", free=range(1, 2))


def _too_few(facts: Facts, rule: Rule, *, what: str, setting: str, free: range) -> Iterator[Finding]:
    names = {"slots": "replication slots", "senders": "WAL senders"}
    for row in facts.source:
        left = max(row[f"{what}_free"], 0)
        if left in free:
            repair = f"ALTER SYSTEM SET {setting} = {row[what] + 4}"
            yield rule.found(
                f"the source has {left} of its {row[what]} {names[what]} left",
                place=_SOURCE,
                repair=repair,
                remedy=f"free some, or run {repair} and restart the server",
            )


VERSION = Rule(
    "server-version",
    Severity.ERROR,
    "a server is older than PostgreSQL 16",
    "older servers cannot tell changes of our own from others', which the way back depends on",
    "upgrade the server",
)


def judge_version(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Both servers must be PostgreSQL 16 or newer."""
    for side, row in facts.both():
        if row["version"] < _OLDEST:
            message = f"the {side} server is PostgreSQL {row['version'] // 10_000}, 16 or newer is needed"
            yield VERSION.found(message, place=Place(side))


SOURCE_STANDBY = Rule(
    "source-standby",
    Severity.ERROR,
    "the source is a standby server",
    "a publication cannot be made there, nor a snapshot exported from a new slot",
    "let the plan's address of the source name the primary",
)
TARGET_STANDBY = Rule(
    "target-standby",
    Severity.ERROR,
    "the target is a standby server",
    "nothing can be written there",
    "let the plan's address of the target name the primary",
)


def judge_source_standby(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """The source must not be in recovery."""
    if any(row["standby"] for row in facts.source):
        yield SOURCE_STANDBY.found("the source server is a standby", place=_SOURCE)


def judge_target_standby(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """The target must not be in recovery."""
    if any(row["standby"] for row in facts.target):
        yield TARGET_STANDBY.found("the target server is a standby", place=Place(Side.TARGET))


LONG_WRITER = Rule(
    "long-write-transaction",
    Severity.WARNING,
    "a write transaction has been open on the source for long",
    "making a slot waits for every write transaction of the whole server that is running",
    "SELECT pg_terminate_backend(…), when its owner agrees",
)


def judge_long_writer(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """Each write transaction of the source's server that is older than `Subject.long_transaction`."""
    for row in facts.source:
        if row["seconds"] is None:
            yield LONG_WRITER.unknown(
                f"process {row['pid']} has a write transaction open; for how long could not be seen",
                place=_SOURCE,
                remedy=f"GRANT pg_read_all_stats TO {row['connected']}",
            )
        if row["seconds"] is None or row["seconds"] < subject.long_transaction:
            continue
        repair = f"SELECT pg_terminate_backend({row['pid']})"
        yield LONG_WRITER.found(
            f"process {row['pid']} ({row['usename']} in {row['datname']}) has had a write transaction open "
            f"for {row['seconds']:.0f} s; the snapshot waits for it",
            place=Place(Side.SOURCE, database=row["datname"]),
            repair=repair,
            remedy=f"let it end before the snapshot, or run {repair}",
        )


PREPARED = Rule(
    "prepared-transaction",
    Severity.ERROR,
    "a prepared transaction (two-phase commit) is pending on the source",
    "making a slot waits for it for ever: no session will end it",
    "COMMIT PREPARED or ROLLBACK PREPARED, in its database",
)


def judge_prepared(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Each pending prepared transaction of the source's server."""
    for row in facts.source:
        gid = literal(row["gid"]).strip()
        yield PREPARED.found(
            f"prepared transaction {row['gid']!r} of {row['owner']} in database {row['datname']} has been "
            f"pending for {row['seconds']:.0f} s",
            place=Place(Side.SOURCE, database=row["datname"]),
            repair=f"ROLLBACK PREPARED {gid}",
            remedy=f"as its coordinator decided, run COMMIT PREPARED {gid} or ROLLBACK PREPARED {gid} there",
        )


SYNCHRONOUS = Rule(
    "target-synchronous-standby",
    Severity.WARNING,
    "the target's commits wait for a synchronous standby",
    "each batch of the stream waits for it, and stands still while it is away",
    "ALTER SYSTEM SET synchronous_standby_names = '', then SELECT pg_reload_conf(); or accept it",
)


def judge_synchronous(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """synchronous_standby_names of the target should be empty."""
    for row in facts.target:
        if row["standbys"]:
            repair = "ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()"
            yield SYNCHRONOUS.found(
                f"the target's synchronous_standby_names is {row['standbys']!r}",
                place=Place(Side.TARGET),
                repair=repair,
                remedy=f"see that the standby is near and well, or run {repair}",
            )


CLOCKS = Rule(
    "clock-skew",
    Severity.WARNING,
    "the clocks of the two servers differ",
    "lag in seconds is the age of a commit by the source's clock: gates would read a wrong lag",
    "let both servers follow the same time service (NTP)",
)


def judge_clocks(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """The servers' clocks, asked one right after the other, may differ by `Subject.clock_skew` seconds."""
    for source, target in zip(facts.source, facts.target, strict=False):
        apart = abs(source["now"] - target["now"])
        if apart > subject.clock_skew:
            message = f"the clocks of source and target are {apart:.1f} s apart"
            yield CLOCKS.found(message, place=_SOURCE)


_STANDBY = "SELECT pg_is_in_recovery() AS standby"
_VERSION = "SELECT current_setting('server_version_num')::int AS version"
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now"
# Everybody sees the lock of a transaction that has an id, only some its session.
_WRITERS = """
SELECT l.pid, coalesce(a.usename::text, '?') AS usename, coalesce(a.datname::text, '?') AS datname,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds, current_user::text AS connected
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
  AND coalesce(a.application_name, '') NOT LIKE 'strangler_cdc %%'
ORDER BY l.pid
"""
_PREPARED = """
SELECT gid, owner, database AS datname, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds
FROM pg_prepared_xacts ORDER BY prepared
"""

SERVER_CHECKS: tuple[Check, ...] = (
    Check(WAL_LEVEL, judge_wal_level, source="SELECT current_setting('wal_level') AS wal_level"),
    Check(SLOTS_EXHAUSTED, judge_slots_exhausted, source=_ROOM),
    Check(SLOTS_SCARCE, judge_slots_scarce, source=_ROOM),
    Check(SENDERS_EXHAUSTED, judge_senders_exhausted, source=_ROOM),
    Check(SENDERS_SCARCE, judge_senders_scarce, source=_ROOM),
    Check(VERSION, judge_version, source=_VERSION, target=_VERSION),
    Check(SOURCE_STANDBY, judge_source_standby, source=_STANDBY),
    Check(TARGET_STANDBY, judge_target_standby, target=_STANDBY),
    Check(LONG_WRITER, judge_long_writer, source=_WRITERS, asked_by=AskedBy.OWNER),
    Check(PREPARED, judge_prepared, source=_PREPARED),
    Check(
        SYNCHRONOUS,
        judge_synchronous,
        target="SELECT current_setting('synchronous_standby_names') AS standbys",
    ),
    Check(CLOCKS, judge_clocks, source=_CLOCK, target=_CLOCK),
)

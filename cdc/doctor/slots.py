"""The stream's slot, the log it keeps, and the publication it reads through."""

# ruff: noqa: S608  (a repair that is shown; its values are literals)

from collections.abc import Iterator

from cdc.changes import TableName, literal, quote
from cdc.doctor.check import Check, Facts, Subject
from cdc.findings import Finding, Place, Rule, Severity, Side

_SOURCE = Place(Side.SOURCE)
_SMALL = 1 << 30  # bytes

_SLOT = """
SELECT coalesce(plugin, '') AS plugin, coalesce(database, '') AS datname, active,
       coalesce(wal_status, '') AS wal_status, database = current_database() AS here
FROM pg_replication_slots WHERE slot_name = %(slot)s
"""
_STORED = "SELECT stream FROM strangler_cdc.position WHERE stream = %(slot)s"

SLOT_FOREIGN = Rule(
    "slot-foreign",
    Severity.ERROR,
    "a slot of the stream's name belongs to another database or another reader",
    "slots have one name space for the whole server; reading it would take changes away from its owner",
    "choose another slot name in the plan, or SELECT pg_drop_replication_slot(…)",
)
SLOT_LOST = Rule(
    "slot-lost",
    Severity.ERROR,
    "the stream's slot has lost the log it needs",
    "changes since then can no longer be read",
    "SELECT pg_drop_replication_slot(…), and begin again with a snapshot (strangler reset)",
)
SLOT_UNUSED = Rule(
    "slot-unused",
    Severity.WARNING,
    "the stream's slot exists, but the target holds no position",
    "nobody reads it: the source keeps its log for ever; the next snapshot drops it",
    "SELECT pg_drop_replication_slot(…)",
)
SLOT_GONE = Rule(
    "slot-gone",
    Severity.ERROR,
    "the target holds a position of the stream, but its slot does not exist",
    "the changes in between can no longer be read",
    "begin again with a snapshot: strangler reset",
)


def judge_slot_foreign(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """A slot of our name must be of this database and of plugin pgoutput."""
    for row in facts.source:
        if row["plugin"] != "pgoutput" or not row["here"]:
            what = f"plugin {row['plugin']}" if row["plugin"] else "physical replication"
            where = f" in database {row['datname']}" if row["datname"] else ""
            yield SLOT_FOREIGN.found(
                f"slot {subject.slot} is there already, made for {what}{where}",
                place=_SOURCE,
                repair=_drop(subject),
                remedy="choose another slot name in the plan; drop this one only if nobody reads it",
            )


def judge_slot_lost(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """Our slot must still have its log."""
    for row in facts.source:
        if row["wal_status"] == "lost":
            yield SLOT_LOST.found(
                f"slot {subject.slot} has lost the log it needs (max_slot_wal_keep_size was exceeded)",
                place=_SOURCE,
                repair=_drop(subject),
                remedy="reset the migration; the snapshot then copies everything anew",
            )


def judge_slot_unused(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """Our slot without a position in the target, and nobody reading it (a snapshot that runs would)."""
    for row in facts.source:
        ours = row["plugin"] == "pgoutput" and row["here"] and row["wal_status"] != "lost"
        if ours and not row["active"] and not facts.target:
            message = f"slot {subject.slot} exists, but the target holds no position of it"
            yield SLOT_UNUSED.found(message, place=_SOURCE, repair=_drop(subject))


def judge_slot_gone(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """A position in the target without its slot."""
    if facts.target and not facts.source:
        yield SLOT_GONE.found(
            f"the target holds a position of stream {subject.slot}, but the source has no such slot",
            place=Place(Side.TARGET, schema="strangler_cdc", table="position", column="stream"),
            repair=f"DELETE FROM strangler_cdc.position WHERE stream = {literal(subject.slot).strip()}",
            remedy="reset the migration: it forgets the position and empties the target's tables",
        )


def _drop(subject: Subject) -> str:
    return f"SELECT pg_drop_replication_slot({literal(subject.slot).strip()})"


KEEP_UNBOUNDED = Rule(
    "wal-keep-unbounded",
    Severity.WARNING,
    "a slot that is not read may fill the source's disk (max_slot_wal_keep_size = -1)",
    "a stream that stands still for long then stops the monolith's database",
    "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB' (less than the disk has free), SELECT pg_reload_conf()",
)
KEEP_SMALL = Rule(
    "wal-keep-small",
    Severity.WARNING,
    "the source keeps less than 1 GB of log for a slot (max_slot_wal_keep_size)",
    "the slot is lost when snapshot or an outage lasts longer than that much log",
    "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB' (less than the disk has free), SELECT pg_reload_conf()",
)


def judge_keep_unbounded(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """max_slot_wal_keep_size should be set."""
    for row in facts.source:
        if row["bytes"] < 0:
            yield _keep(KEEP_UNBOUNDED, "the source keeps its log for a slot without bound")


def judge_keep_small(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """max_slot_wal_keep_size should be 1 GB at least."""
    for row in facts.source:
        if 0 <= row["bytes"] < _SMALL:
            yield _keep(KEEP_SMALL, f"the source keeps {row['bytes'] >> 20} MB of log for a slot, no more")


def _keep(rule: Rule, message: str) -> Finding:
    repair = "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf()"
    return rule.found(
        message, place=_SOURCE, repair=repair, remedy=f"run {repair}, with a size that the disk can bear"
    )


PUBLICATION_ALL = Rule(
    "publication-all-tables",
    Severity.ERROR,
    "a publication of the plan's name is FOR ALL TABLES or for whole schemas",
    "it is not ours: it publishes tables that do not move, and tables without identity with them",
    "choose another name in the plan, or DROP PUBLICATION …",
)
PUBLICATION_GAPS = Rule(
    "publication-leaves-out",
    Severity.ERROR,
    "the publication leaves out operations, rows (WHERE) or columns",
    "such changes would be missing in the target without a word",
    "ALTER PUBLICATION … SET (publish = …), SET TABLE …",
)
PUBLICATION_TABLES = Rule(
    "publication-tables",
    Severity.ERROR,
    "the publication does not carry exactly the mapped tables",
    "changes of a table that is left out are lost; a table too many is decoded for nothing",
    "ALTER PUBLICATION … SET TABLE …",
)
PUBLICATION_ROOT = Rule(
    "publication-via-root",
    Severity.ERROR,
    "the publication names partitions by their root (publish_via_partition_root)",
    "changes of a mapped partition come under the name of its parent, which is not mapped",
    "ALTER PUBLICATION … SET (publish_via_partition_root = false)",
)


def judge_publication_all(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """The publication of our name must be one of listed tables."""
    for row in facts.source:
        if row["all_tables"] or row["schemas"]:
            what = "all tables" if row["all_tables"] else f"schema {', '.join(row['schemas'])}"
            yield PUBLICATION_ALL.found(
                f"publication {subject.publication} is for {what}",
                place=_SOURCE,
                repair=f"DROP PUBLICATION {quote(subject.publication)}",
                remedy="choose another name in the plan; drop this one only if nobody reads through it",
            )


def judge_publication_gaps(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """All operations, rows and columns must be published."""
    for row in facts.source:
        gaps = [*row["missing"], *(f"rows or columns of {name}" for name in row["filtered"])]
        if gaps:
            name = quote(subject.publication)
            operations = "insert, update, delete, truncate"
            yield PUBLICATION_GAPS.found(
                f"publication {subject.publication} leaves out {', '.join(gaps)}",
                place=_SOURCE,
                repair=f"ALTER PUBLICATION {name} SET (publish = '{operations}'); {_set_tables(subject)}",
            )


def judge_publication_tables(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """Exactly the mapped tables must be listed."""
    for row in facts.source:
        if row["all_tables"] or row["schemas"]:
            continue
        listed = {TableName(schema, name) for schema, name in row["listed"]}
        wanted = set(subject.tables(Side.SOURCE))
        gaps = [f"lacks {name}" for name in sorted(map(str, wanted - listed))]
        gaps += [f"has {name}" for name in sorted(map(str, listed - wanted))]
        if gaps:
            yield PUBLICATION_TABLES.found(
                f"publication {subject.publication} {', '.join(gaps)}",
                place=_SOURCE,
                repair=_set_tables(subject),
            )


def judge_publication_root(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """publish_via_partition_root must be off."""
    for row in facts.source:
        if row["via_root"]:
            yield PUBLICATION_ROOT.found(
                f"publication {subject.publication} publishes via the partition root",
                place=_SOURCE,
                repair=f"ALTER PUBLICATION {quote(subject.publication)} SET (publish_via_partition_root = false)",
            )


def _set_tables(subject: Subject) -> str:
    tables = ", ".join(name.sql for name in subject.tables(Side.SOURCE))
    return f"ALTER PUBLICATION {quote(subject.publication)} SET TABLE {tables}"


_PUBLICATION = """
SELECT p.puballtables AS all_tables, p.pubviaroot AS via_root,
       ARRAY(SELECT n.nspname::text FROM pg_publication_namespace pn JOIN pg_namespace n ON n.oid = pn.pnnspid
             WHERE pn.pnpubid = p.oid) AS schemas,
       array_remove(ARRAY[CASE WHEN NOT pubinsert THEN 'insert' END, CASE WHEN NOT pubupdate THEN 'update' END,
                          CASE WHEN NOT pubdelete THEN 'delete' END,
                          CASE WHEN NOT pubtruncate THEN 'truncate' END], NULL) AS missing,
       ARRAY(SELECT r.prrelid::regclass::text FROM pg_publication_rel r
             WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)) AS filtered,
       ARRAY(SELECT ARRAY[n.nspname::text, c.relname::text] FROM pg_publication_rel r
             JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE r.prpubid = p.oid) AS listed
FROM pg_publication p WHERE p.pubname = %(publication)s
"""
_KEEP = """
SELECT CASE WHEN setting::bigint < 0 THEN -1 ELSE setting::bigint * 1024 * 1024 END AS bytes
FROM pg_settings WHERE name = 'max_slot_wal_keep_size'
"""

SLOT_CHECKS: tuple[Check, ...] = (
    Check(SLOT_FOREIGN, judge_slot_foreign, source=_SLOT),
    Check(SLOT_LOST, judge_slot_lost, source=_SLOT),
    Check(SLOT_UNUSED, judge_slot_unused, source=_SLOT, target=_STORED, none_when_absent=True),
    Check(SLOT_GONE, judge_slot_gone, source=_SLOT, target=_STORED, none_when_absent=True),
    Check(KEEP_UNBOUNDED, judge_keep_unbounded, source=_KEEP),
    Check(KEEP_SMALL, judge_keep_small, source=_KEEP),
    Check(PUBLICATION_ALL, judge_publication_all, source=_PUBLICATION),
    Check(PUBLICATION_GAPS, judge_publication_gaps, source=_PUBLICATION, mended_by_prepare=True),
    Check(PUBLICATION_TABLES, judge_publication_tables, source=_PUBLICATION, mended_by_prepare=True),
    # `prepare` does not touch this one: it was never set by it
    Check(PUBLICATION_ROOT, judge_publication_root, source=_PUBLICATION),
)

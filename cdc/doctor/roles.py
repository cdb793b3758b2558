"""What the stream's role and the owners of the tables may do, and what is set for the role.

Grants are judged once the publication is there: before that `prepare` has not given them yet, and what
counts is whether the owners may.
"""

# ruff: noqa: S608  (built from constants of this package)

from collections.abc import Iterator

from cdc.changes import quote
from cdc.doctor.check import MAPPED, AskedBy, Check, Facts, Row, Subject, place_of, sql_name
from cdc.findings import Finding, Place, Rule, Severity, Side

_CONNECTIONS = 6  # stream: log, source, target, two for its status; one for a snapshot or a verification

ROLE_MISSING = Rule(
    "role-missing",
    Severity.ERROR,
    "the role that the plan names for the stream does not exist",
    "prepare grants to it",
    "CREATE ROLE … LOGIN (and a password)",
)
ROLE_OTHER = Rule(
    "role-other",
    Severity.WARNING,
    "the stream connects as another role than the plan names",
    "prepare grants to the role of the plan: the one that connects may lack the rights",
    "correct stream.role in the plan, or the address",
)
MAY_REPLICATE = Rule(
    "role-replication",
    Severity.ERROR,
    "the stream's role may not replicate from the source",
    "the log can be read by roles with REPLICATION only",
    "ALTER ROLE … REPLICATION",
)
READ_ONLY = Rule(
    "role-read-only",
    Severity.ERROR,
    "default_transaction_read_only is set for the stream's role or for the target's database",
    "the applier could not write",
    "ALTER ROLE … RESET default_transaction_read_only, or ALTER DATABASE …",
)
TIMEOUTS = Rule(
    "role-timeouts",
    Severity.WARNING,
    "a timeout that the stream's sessions do not override is set for its role or database",
    "long copies, idle sessions or waits for a lock are cut off (lock_timeout, idle_session_timeout, "
    "transaction_timeout, wal_sender_timeout)",
    "ALTER ROLE … RESET …, or ALTER DATABASE … RESET …",
)
CONNECTION_LIMIT = Rule(
    "role-connection-limit",
    Severity.ERROR,
    "the connection limit of the stream's role or of a database is too low",
    f"stream and verification use up to {_CONNECTIONS} sessions a database",
    "ALTER ROLE … CONNECTION LIMIT …, or ALTER DATABASE …",
)


def judge_role_missing(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """The plan's role must exist on both servers."""
    for side, row in facts.both():
        if not row["there"]:
            yield ROLE_MISSING.found(
                f"the {side} has no role {subject.role}",
                place=Place(side),
                repair=f"CREATE ROLE {quote(subject.role)} LOGIN{' REPLICATION' * (side is Side.SOURCE)}",
            )


def judge_role_other(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """The stream should connect as the plan's role."""
    for side, row in facts.both():
        if row["connected"] != subject.role:
            yield ROLE_OTHER.found(
                f"the stream connects to the {side} as {row['connected']}, the plan names {subject.role}",
                place=Place(side),
                path=("stream", "role"),
            )


def judge_replication(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """REPLICATION, or a superuser."""
    for row in facts.source:
        if not row["may_replicate"]:
            yield MAY_REPLICATE.found(
                f"role {row['connected']} may not replicate from the source",
                place=Place(Side.SOURCE),
                repair=f"ALTER ROLE {quote(row['connected'])} REPLICATION",
            )


def judge_read_only(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Nothing may make the applier's transactions read-only by default."""
    for row in facts.target:
        if row["name"] == "default_transaction_read_only" and row["value"] in ("on", "true", "yes", "1"):
            yield _setting(READ_ONLY, Side.TARGET, row)


def judge_timeouts(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Timeouts that `sessions.SETTINGS` does not override should not be set. 0 is none."""
    names = ("lock_timeout", "idle_session_timeout", "transaction_timeout", "wal_sender_timeout")
    for side, row in facts.both():
        if row["name"] in names and row["value"] not in ("0", "0s", "0ms"):
            yield _setting(TIMEOUTS, side, row)


def _setting(rule: Rule, side: Side, row: Row) -> Finding:
    whose = [f"ROLE {quote(row['role'])}"] if row["role"] else []
    if row["datname"]:
        whose += [f"IN DATABASE {quote(row['datname'])}"] if whose else [f"DATABASE {quote(row['datname'])}"]
    what = " ".join(whose) or "ROLE ALL"
    return rule.found(
        f"{row['name']} = {row['value']} is set for {what.lower()} in the {side}",
        place=Place(side),
        repair=f"ALTER {what} RESET {row['name']}",
    )


def judge_connection_limit(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Role and database must allow as many sessions as the stream needs; -1 is no limit."""
    for side, row in facts.both():
        for limit, what in (
            (row["role_limit"], f"ROLE {quote(row['connected'])}"),
            (row["database_limit"], f"DATABASE {quote(row['datname'])}"),
        ):
            if 0 <= limit < _CONNECTIONS:
                yield CONNECTION_LIMIT.found(
                    f"{what.lower()} of the {side} allows {limit} connections",
                    place=Place(side),
                    repair=f"ALTER {what} CONNECTION LIMIT {_CONNECTIONS * 4}",
                )


SOURCE_OWNER = Rule(
    "source-owner",
    Severity.ERROR,
    "the role that prepares the source does not own a mapped table",
    "only its owner can publish a table",
    "ALTER TABLE … OWNER TO …",
)
SOURCE_CREATE = Rule(
    "source-create",
    Severity.ERROR,
    "the role that prepares the source may not create in its database",
    "a publication needs it",
    "GRANT CREATE ON DATABASE … TO …",
)
TARGET_OWNER = Rule(
    "target-owner",
    Severity.ERROR,
    "the role that prepares the target does not own a mapped table",
    "only its owner can grant the stream the right to write it",
    "ALTER TABLE … OWNER TO …",
)
TARGET_SCHEMA = Rule(
    "target-create",
    Severity.ERROR,
    "the role that prepares the target may not create schema strangler_cdc, and it is not there",
    "the stream keeps its position in it",
    "GRANT CREATE ON DATABASE … TO …",
)


def judge_source_owner(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """The owner's session must own every source table."""
    return _owners(SOURCE_OWNER, Side.SOURCE, facts)


def judge_target_owner(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """The owner's session must own every target table."""
    return _owners(TARGET_OWNER, Side.TARGET, facts)


def _owners(rule: Rule, side: Side, facts: Facts) -> Iterator[Finding]:
    for row in facts.of(side):
        if not row["ours"]:
            yield rule.found(
                f"{side} table {row['table']} belongs to {row['owner']}, not to {row['connected']}",
                place=place_of(side, row),
                repair=f"ALTER TABLE {sql_name(row)} OWNER TO {quote(row['connected'])}",
            )


def judge_source_create(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """CREATE on the source's database, unless the publication is there."""
    return _create(SOURCE_CREATE, Side.SOURCE, facts)


def judge_target_create(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """CREATE on the target's database, unless the schema is there."""
    return _create(TARGET_SCHEMA, Side.TARGET, facts)


def _create(rule: Rule, side: Side, facts: Facts) -> Iterator[Finding]:
    for row in facts.of(side):
        if not row["may"]:
            yield rule.found(
                f"role {row['connected']} may not create in the {side}'s database {row['datname']}",
                place=Place(side),
                repair=f"GRANT CREATE ON DATABASE {quote(row['datname'])} TO {quote(row['connected'])}",
            )


SOURCE_SELECT = Rule(
    "source-select",
    Severity.ERROR,
    "the stream's role may not read a mapped source table",
    "snapshot and verification read it",
    "GRANT USAGE ON SCHEMA …, GRANT SELECT ON …; prepare does it",
)
TARGET_WRITE = Rule(
    "target-write",
    Severity.ERROR,
    "the stream's role may not read or write a mapped target table",
    "the applier needs SELECT, INSERT, UPDATE and DELETE",
    "GRANT USAGE ON SCHEMA …, GRANT SELECT, INSERT, UPDATE, DELETE ON …; prepare does it",
)
TARGET_TEMPORARY = Rule(
    "target-temporary",
    Severity.ERROR,
    "the stream's role may not make temporary tables in the target",
    "a batch is staged in one",
    "GRANT TEMPORARY ON DATABASE … TO …; prepare does it when it may",
)


def judge_source_select(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """SELECT on the source tables, once the publication is there."""
    return _grants(SOURCE_SELECT, Side.SOURCE, "SELECT", facts)


def judge_target_write(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """The applier's rights on the target tables, once the stream's schema is there."""
    return _grants(TARGET_WRITE, Side.TARGET, "SELECT, INSERT, UPDATE, DELETE", facts)


def _grants(rule: Rule, side: Side, rights: str, facts: Facts) -> Iterator[Finding]:
    for row in facts.of(side):
        if row["prepared"] and not row["may"]:
            role = quote(row["connected"])
            yield rule.found(
                f"role {row['connected']} lacks {rights} on {side} table {row['table']}, or USAGE of its schema",
                place=place_of(side, row),
                repair=f"GRANT USAGE ON SCHEMA {quote(row['schema'])} TO {role}; "
                f"GRANT {rights} ON {sql_name(row)} TO {role}",
            )


def judge_temporary(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """TEMPORARY on the target's database, once the stream's schema is there."""
    for row in facts.target:
        if row["prepared"] and not row["may"]:
            yield TARGET_TEMPORARY.found(
                f"role {row['connected']} may not make temporary tables in database {row['datname']}",
                place=Place(Side.TARGET),
                repair=f"GRANT TEMPORARY ON DATABASE {quote(row['datname'])} TO {quote(row['connected'])}",
            )


SUPERUSER = Rule(
    "application-superuser",
    Severity.WARNING,
    "the owner of a mapped source table is a superuser",
    "when the application connects as its owner, no revoked right and no trigger holds its writes up when "
    "writes are cut over: it can pass every fence",
    "ALTER ROLE … NOSUPERUSER",
)


def judge_superuser(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Owners of source tables that can log in should not be superusers."""
    for row in facts.source:
        yield SUPERUSER.found(
            f"role {row['role']} owns source table(s) {row['names']} and is a superuser",
            place=Place(Side.SOURCE),
            repair=f"ALTER ROLE {quote(row['role'])} NOSUPERUSER",
            remedy="let the application connect as a role that is not a superuser and not the owner",
        )


_ROLE = """
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s) AS there, current_user::text AS connected,
       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may_replicate,
       CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END AS role_limit,
       CASE WHEN r.rolsuper THEN -1 ELSE d.datconnlimit END AS database_limit, d.datname::text
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
"""
_SETTINGS = """
SELECT split_part(each, '=', 1) AS name, substr(each, strpos(each, '=') + 1) AS value,
       (SELECT rolname::text FROM pg_roles WHERE oid = s.setrole) AS role,
       (SELECT datname::text FROM pg_database WHERE oid = s.setdatabase) AS datname
FROM pg_db_role_setting s, unnest(s.setconfig) AS each
WHERE setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
  AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
_OWNERS = f"""
WITH {MAPPED}
SELECT schema, "table", pg_get_userbyid(relowner)::text AS owner, current_user::text AS connected,
       pg_has_role(current_user, relowner, 'USAGE') AS ours
FROM mapped ORDER BY place
"""
_CREATE_SOURCE = """
SELECT current_user::text AS connected, current_database()::text AS datname,
       EXISTS (SELECT FROM pg_publication WHERE pubname = %(publication)s)
           OR has_database_privilege(current_database(), 'CREATE') AS may
"""
_CREATE_TARGET = """
SELECT current_user::text AS connected, current_database()::text AS datname,
       to_regnamespace('strangler_cdc') IS NOT NULL
           OR has_database_privilege(current_database(), 'CREATE') AS may
"""
_MAY_READ = f"""
WITH {MAPPED}
SELECT schema, "table", current_user::text AS connected,
       EXISTS (SELECT FROM pg_publication WHERE pubname = %(publication)s) AS prepared,
       has_schema_privilege(relnamespace, 'USAGE') AND has_table_privilege(relation, 'SELECT') AS may
FROM mapped ORDER BY place
"""
_MAY_WRITE = f"""
WITH {MAPPED}
SELECT schema, "table", current_user::text AS connected,
       to_regclass('strangler_cdc.position') IS NOT NULL AS prepared,
       has_schema_privilege(relnamespace, 'USAGE') AND has_table_privilege(relation, 'SELECT')
           AND has_table_privilege(relation, 'INSERT') AND has_table_privilege(relation, 'UPDATE')
           AND has_table_privilege(relation, 'DELETE') AS may
FROM mapped ORDER BY place
"""
_MAY_STAGE = """
SELECT current_user::text AS connected, current_database()::text AS datname,
       to_regclass('strangler_cdc.position') IS NOT NULL AS prepared,
       has_database_privilege(current_database(), 'TEMPORARY') AS may
"""
_SUPERUSERS = f"""
WITH {MAPPED}
SELECT r.rolname::text AS role, string_agg("table", ', ' ORDER BY place) AS names
FROM mapped JOIN pg_roles r ON r.oid = relowner WHERE r.rolsuper AND r.rolcanlogin GROUP BY 1 ORDER BY 1
"""

ROLE_CHECKS: tuple[Check, ...] = (
    Check(ROLE_MISSING, judge_role_missing, source=_ROLE, target=_ROLE),
    Check(ROLE_OTHER, judge_role_other, source=_ROLE, target=_ROLE),
    Check(MAY_REPLICATE, judge_replication, source=_ROLE),
    Check(READ_ONLY, judge_read_only, target=_SETTINGS),
    Check(TIMEOUTS, judge_timeouts, source=_SETTINGS, target=_SETTINGS),
    Check(CONNECTION_LIMIT, judge_connection_limit, source=_ROLE, target=_ROLE),
    Check(SOURCE_OWNER, judge_source_owner, source=_OWNERS, asked_by=AskedBy.OWNER_ALONE),
    Check(SOURCE_CREATE, judge_source_create, source=_CREATE_SOURCE, asked_by=AskedBy.OWNER_ALONE),
    Check(TARGET_OWNER, judge_target_owner, target=_OWNERS, asked_by=AskedBy.OWNER_ALONE),
    Check(TARGET_SCHEMA, judge_target_create, target=_CREATE_TARGET, asked_by=AskedBy.OWNER_ALONE),
    Check(SOURCE_SELECT, judge_source_select, source=_MAY_READ, mended_by_prepare=True),
    Check(TARGET_WRITE, judge_target_write, target=_MAY_WRITE, mended_by_prepare=True),
    Check(TARGET_TEMPORARY, judge_temporary, target=_MAY_STAGE, mended_by_prepare=True),
    Check(SUPERUSER, judge_superuser, source=_SUPERUSERS),
)

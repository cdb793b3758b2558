"""What the mapped tables are: logged or not, hidden rows, rules, large objects, foreign keys, text order."""

# ruff: noqa: S608  (built from constants of this package)

from collections.abc import Iterator

from cdc.changes import quote
from cdc.doctor.check import MAPPED, Check, Facts, Row, Subject, place_of, sql_name
from cdc.findings import Finding, Place, Rule, Severity, Side

SOURCE_UNLOGGED = Rule(
    "source-unlogged",
    Severity.ERROR,
    "a mapped source table is unlogged",
    "its changes are not in the log",
    "ALTER TABLE … SET LOGGED (rewrites the table under an exclusive lock)",
)
TARGET_UNLOGGED = Rule(
    "target-unlogged",
    Severity.ERROR,
    "a mapped target table is unlogged",
    "a crash empties it, while the stored position says that all is there",
    "ALTER TABLE … SET LOGGED",
)


def judge_source_unlogged(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """No source table may be unlogged."""
    return _unlogged(SOURCE_UNLOGGED, Side.SOURCE, facts, subject)


def judge_target_unlogged(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """No target table may be unlogged."""
    return _unlogged(TARGET_UNLOGGED, Side.TARGET, facts, subject)


def _unlogged(rule: Rule, side: Side, facts: Facts, subject: Subject) -> Iterator[Finding]:
    for row in facts.of(side):
        if row["persistence"] == "u":
            yield rule.found(
                f"{side} table {row['table']} is unlogged",
                place=place_of(side, row),
                path=subject.table_at(side, row).path,
                repair=f"ALTER TABLE {sql_name(row)} SET LOGGED",
            )


SOURCE_HIDES = Rule(
    "source-row-security",
    Severity.ERROR,
    "row level security hides rows of a source table from the stream's role",
    "the snapshot would copy only the rows that a policy shows, without a word",
    "ALTER ROLE … BYPASSRLS",
)
TARGET_HIDES = Rule(
    "target-row-security",
    Severity.ERROR,
    "row level security of a target table applies to the stream's role",
    "rows would be refused, or not be found again",
    "ALTER ROLE … BYPASSRLS",
)


def judge_source_hides(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """No policy may apply to the stream's role in the source."""
    return _hides(SOURCE_HIDES, Side.SOURCE, facts, subject)


def judge_target_hides(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """No policy may apply to the stream's role in the target."""
    return _hides(TARGET_HIDES, Side.TARGET, facts, subject)


def _hides(rule: Rule, side: Side, facts: Facts, subject: Subject) -> Iterator[Finding]:
    for row in facts.of(side):
        if row["hides"]:
            yield rule.found(
                f"row level security of {side} table {row['table']} applies to role {row['connected']}",
                place=place_of(side, row),
                path=subject.table_at(side, row).path,
                repair=f"ALTER ROLE {quote(row['connected'])} BYPASSRLS",
            )


TARGET_RULES = Rule(
    "target-rules",
    Severity.ERROR,
    "a mapped target table has rewrite rules",
    "INSERT … ON CONFLICT is refused on such a table, and COPY ignores its rules",
    "ALTER TABLE … DISABLE RULE …",
)


def judge_rules(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """No target table may have rules that are switched on."""
    for row in facts.target:
        yield TARGET_RULES.found(
            f"target table {row['table']} has rule {row['rule']}",
            place=place_of(Side.TARGET, row),
            path=(*subject.table_at(Side.TARGET, row).path, "target"),
            repair=f"ALTER TABLE {sql_name(row)} DISABLE RULE {quote(row['rule'])}",
        )


LARGE_OBJECTS = Rule(
    "large-object",
    Severity.WARNING,
    "a source column has type oid, which may name a large object",
    "large objects are not in the log and are not copied: the target would hold a number that means nothing",
    "ALTER TABLE … ALTER … TYPE bytea USING lo_get(…), or another store for files",
)


def judge_large_objects(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """Mapped source columns should not be of type oid (or a domain over it)."""
    for row in facts.source:
        table = subject.table_at(Side.SOURCE, row)
        if row["column"] not in dict(table.ignored):
            column = quote(row["column"])
            repair = f"ALTER TABLE {sql_name(row)} ALTER {column} TYPE bytea USING lo_get({column})"
            yield LARGE_OBJECTS.found(
                f"source column {row['table']}.{row['column']} has type {row['type']}",
                place=place_of(Side.SOURCE, row),
                path=(*table.path, "columns"),
                repair=repair,
                remedy="keep the content in a bytea column or another store before the table moves; "
                f"{repair} when every number names a large object",
            )


IDENTITY_ALWAYS = Rule(
    "target-identity-always",
    Severity.ERROR,
    "the mapping writes a column that is GENERATED ALWAYS AS IDENTITY and not the key",
    "an UPDATE may set such a column to DEFAULT only",
    "ALTER TABLE … ALTER … SET GENERATED BY DEFAULT",
)


def judge_identity_always(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """The key is only inserted, with OVERRIDING SYSTEM VALUE; other mapped columns are updated too."""
    for row in facts.target:
        table = subject.table_at(Side.TARGET, row)
        key = {part.target for part in table.key}
        mapped = {column.name for column in table.columns}
        if row["column"] in mapped - key:
            yield IDENTITY_ALWAYS.found(
                f"target column {row['table']}.{row['column']} is GENERATED ALWAYS AS IDENTITY",
                place=place_of(Side.TARGET, row),
                path=table.column(row["column"]).path,
                repair=f"ALTER TABLE {sql_name(row)} ALTER {quote(row['column'])} SET GENERATED BY DEFAULT",
            )


FK_IN = Rule(
    "source-referenced-from-outside",
    Severity.WARNING,
    "a table that does not move references one that does",
    "once the service writes, the monolith's copy lags: its inserts may fail for rows it does not have yet",
    "ALTER TABLE … DROP CONSTRAINT …, at the latest when writes are cut over",
)
FK_OUT = Rule(
    "source-references-outside",
    Severity.WARNING,
    "a table that moves references one that does not",
    "nothing keeps that promise between two databases: a parent that is deleted leaves children in the target",
    "ALTER TABLE … DROP CONSTRAINT …, or move the other table too",
)
TARGET_FK_OUT = Rule(
    "target-references-outside",
    Severity.WARNING,
    "a mapped target table references one that the stream does not fill",
    "a row that names a missing parent is refused, or kept although the key is broken",
    "ALTER TABLE … DROP CONSTRAINT …, or fill the other table first",
)
TARGET_FK_ORDER = Rule(
    "target-foreign-key-order",
    Severity.ERROR,
    "a foreign key between target tables can be neither deferred nor switched off",
    "rows of one batch come in the order of the mapping: a child could come before its parent",
    "ALTER TABLE … ALTER CONSTRAINT … DEFERRABLE, or GRANT SET ON PARAMETER session_replication_role",
)


UNIQUE_UNCHECKED = Rule(
    "target-deferrable-unchecked",
    Severity.WARNING,
    "a target table has a deferrable UNIQUE or EXCLUDE, and the stream's role may set session_replication_role",
    "PostgreSQL checks such a constraint by a trigger, and with that setting it fires none: rows that break it come in",
    "make it immediate, or REVOKE SET ON PARAMETER session_replication_role from the stream's role",
)


def judge_unique_unchecked(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Deferrable constraints that the stream's writes would pass by."""
    for row in facts.target:
        if row["replica"]:
            name, table = quote(row["name"]), sql_name(row)
            yield UNIQUE_UNCHECKED.found(
                f"constraint {row['name']} of target table {row['table']} is deferrable: the stream's writes are not "
                "checked against it",
                place=place_of(Side.TARGET, row),
                repair=f"ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {row['immediate']}",
                remedy="see that the source keeps the same constraint, or make this one immediate",
            )


def judge_fk_in(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Foreign keys of other tables to mapped source tables."""
    for row in facts.source:
        if row["parent_place"] is not None and row["child_place"] is None:
            yield _foreign_key(FK_IN, Side.SOURCE, row)


def judge_fk_out(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Foreign keys of mapped source tables to other tables."""
    for row in facts.source:
        if row["child_place"] is not None and row["parent_place"] is None:
            yield _foreign_key(FK_OUT, Side.SOURCE, row)


def judge_target_fk_out(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Foreign keys of mapped target tables to tables that the stream does not fill."""
    for row in facts.target:
        if row["child_place"] is not None and row["parent_place"] is None:
            yield _foreign_key(TARGET_FK_OUT, Side.TARGET, row)


def judge_target_fk_order(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Without replica role: a key to the table itself, or to one that the mapping lists later."""
    for row in facts.target:
        child, parent = row["child_place"], row["parent_place"]
        if None in (child, parent) or parent < child or row["deferrable"] or row["replica"]:
            continue
        yield TARGET_FK_ORDER.found(
            f"foreign key {row['name']} of target table {row['table']} to {row['parent']} is not deferrable",
            place=place_of(Side.TARGET, row),
            repair=f"ALTER TABLE {sql_name(row)} ALTER CONSTRAINT {quote(row['name'])} DEFERRABLE",
        )


def _foreign_key(rule: Rule, side: Side, row: Row) -> Finding:
    repair = f"ALTER TABLE {sql_name(row)} DROP CONSTRAINT {quote(row['name'])}"
    return rule.found(
        f"foreign key {row['name']} of {side} table {row['table']} references {row['parent']}",
        place=place_of(side, row),
        repair=repair,
        remedy=f"see that both sides bear it, or run {repair}",
    )


ENCODING = Rule(
    "encoding-differs",
    Severity.WARNING,
    "the databases have different encodings",
    "a character that the target's encoding lacks stops the stream",
    "create the target's database with the encoding of the source",
)
COLLATION = Rule(
    "collation-differs",
    Severity.WARNING,
    "the databases sort text differently",
    "lists come in another order, and shadow comparisons of such answers differ",
    "create the target's database with the collation of the source, or ORDER BY … COLLATE",
)
KEY_COLLATION = Rule(
    "key-collation",
    Severity.ERROR,
    "a key column of the target calls different texts equal (a nondeterministic collation)",
    "two rows of the source, say a and A, would become one in the target",
    'ALTER TABLE … ALTER … TYPE … COLLATE "C"',
)


def judge_encoding(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Both databases should have one encoding."""
    for source, target in zip(facts.source, facts.target, strict=False):
        if source["encoding"] != target["encoding"]:
            yield ENCODING.found(
                f"the source is encoded in {source['encoding']}, the target in {target['encoding']}",
                place=Place(Side.TARGET),
            )


def judge_collation(facts: Facts, _subject: Subject) -> Iterator[Finding]:
    """Both databases should sort text in one order."""
    for source, target in zip(facts.source, facts.target, strict=False):
        if source["collation"] != target["collation"]:
            yield COLLATION.found(
                f"the source sorts text by {source['collation']}, the target by {target['collation']}",
                place=Place(Side.TARGET),
            )


def judge_key_collation(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """Key columns of the target must be equal only when they are the same."""
    for row in facts.target:
        table = subject.table_at(Side.TARGET, row)
        if row["column"] in {part.target for part in table.key}:
            yield KEY_COLLATION.found(
                f"key column {row['table']}.{row['column']} has collation {row['collation']}",
                place=place_of(Side.TARGET, row),
                path=(*table.path, "key"),
                repair=f"ALTER TABLE {sql_name(row)} ALTER {quote(row['column'])} "
                f'TYPE {row["type"]} COLLATE "C"',
            )


UNIQUE_MORE = Rule(
    "target-unique-more",
    Severity.WARNING,
    "the target forbids duplicates that the source allows (unique or exclusion constraint, unique index)",
    "the first pair of such rows stops the stream",
    "a unique index of the same columns in the source, or DROP … in the target",
)


def judge_unique_more(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """Each unique index of the target must follow from one of the source, column by copied column."""
    by_table: dict[tuple[str, str], list[set[str]]] = {}
    for row in facts.source:
        if row["plain"]:
            by_table.setdefault((row["schema"], row["table"]), []).append(set(row["columns"]))
    for row in facts.target:
        table = subject.table_at(Side.TARGET, row)
        key = {part.target for part in table.key}
        columns = set(row["columns"])
        if row["plain"] and key <= columns:
            continue
        copied = {column.name: column.copied for column in table.columns}
        origin = {copied.get(name) for name in columns}
        uniques = by_table.get((table.source.schema, table.source.name), [])
        # unique in the source on some of the same columns: unique here; a partial index forbids even less
        if not row["special"] and any(unique <= origin for unique in uniques):
            continue
        constraint = f"ALTER TABLE {sql_name(row)} DROP CONSTRAINT {quote(row['name'])}"
        index = f"DROP INDEX {quote(row['schema'])}.{quote(row['name'])}"
        yield UNIQUE_MORE.found(
            f"{row['name']} of target table {row['table']} forbids duplicates that the source allows: "
            f"{row['definition']}",
            place=place_of(Side.TARGET, row),
            path=(*table.path, "target"),
            repair=constraint if row["constraint"] else index,
            remedy="make the same promise in the source, or take it back in the target",
        )


_PERSISTENCE = f"""
WITH {MAPPED} SELECT schema, "table", relpersistence::text AS persistence FROM mapped ORDER BY place
"""
_HIDES = f"""
WITH {MAPPED}
SELECT schema, "table", current_user::text AS connected, row_security_active(relation) AS hides
FROM mapped ORDER BY place
"""
_RULES = f"""
WITH {MAPPED}
SELECT schema, "table", rulename::text AS rule
FROM mapped JOIN pg_rewrite ON ev_class = relation
WHERE relkind <> 'v' AND ev_enabled <> 'D' ORDER BY place, 3
"""
_OIDS = f"""
WITH {MAPPED}
SELECT schema, "table", attname::text AS column, format_type(atttypid, NULL) AS type
FROM mapped JOIN pg_attribute a ON attrelid = relation JOIN pg_type t ON t.oid = atttypid
WHERE attnum > 0 AND NOT attisdropped AND 'oid'::regtype IN (t.oid, t.typbasetype) ORDER BY place, attnum
"""
_ALWAYS = f"""
WITH {MAPPED}
SELECT schema, "table", attname::text AS column FROM mapped JOIN pg_attribute ON attrelid = relation
WHERE attnum > 0 AND NOT attisdropped AND attidentity = 'a' ORDER BY place, attnum
"""
_FOREIGN_KEYS = f"""
WITH {MAPPED}
SELECT child.place AS child_place, parent.place AS parent_place, k.conname::text AS name,
       n.nspname::text AS schema, c.relname::text AS "table", k.confrelid::regclass::text AS parent,
       k.condeferrable AS deferrable, has_parameter_privilege('session_replication_role', 'SET') AS replica
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN mapped child ON child.relation = k.conrelid
LEFT JOIN mapped parent ON parent.relation = k.confrelid
WHERE k.contype = 'f' AND k.conparentid = 0 AND (child.relation IS NOT NULL OR parent.relation IS NOT NULL)
ORDER BY 4, 5, 3
"""
# replica: may the role that asks, the stream's, switch triggers off?
_DEFERRABLE_UNIQUES = f"""
WITH {MAPPED}
SELECT schema, "table", conname::text AS name,
       regexp_replace(pg_get_constraintdef(k.oid), ' DEFERRABLE( INITIALLY DEFERRED)?$', '') AS immediate,
       has_parameter_privilege('session_replication_role', 'SET') AS replica
FROM mapped JOIN pg_constraint k ON k.conrelid = relation AND k.contype IN ('p', 'u', 'x') AND k.condeferrable
ORDER BY place, 3
"""
_DATABASE = """
SELECT current_setting('server_encoding') AS encoding, datlocprovider::text || ':' || coalesce(
    to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', datcollate) AS collation
FROM pg_database d WHERE datname = current_database()
"""
_VAGUE = f"""
WITH {MAPPED}
SELECT schema, "table", attname::text AS column, collname::text AS collation,
       format_type(atttypid, atttypmod) AS type
FROM mapped JOIN pg_attribute ON attrelid = relation JOIN pg_collation k ON k.oid = attcollation
WHERE attnum > 0 AND NOT attisdropped AND NOT collisdeterministic ORDER BY place, attnum
"""
_UNIQUES = f"""
WITH {MAPPED}
SELECT schema, "table", i.indexrelid::regclass::text AS shown, x.relname::text AS name,
       pg_get_indexdef(i.indexrelid) AS definition,
       k.oid IS NOT NULL AS "constraint",
       i.indpred IS NULL AND i.indexprs IS NULL AND NOT i.indisexclusion AS plain,
       i.indexprs IS NOT NULL OR i.indisexclusion AS special,
       ARRAY(SELECT attname::text FROM pg_attribute
             WHERE attrelid = relation AND attnum = ANY (i.indkey[:i.indnkeyatts - 1])) AS columns
FROM mapped JOIN pg_index i ON i.indrelid = relation JOIN pg_class x ON x.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indisunique OR i.indisexclusion ORDER BY place, 4
"""

TABLE_SHAPE_CHECKS: tuple[Check, ...] = (
    Check(SOURCE_UNLOGGED, judge_source_unlogged, source=_PERSISTENCE),
    Check(TARGET_UNLOGGED, judge_target_unlogged, target=_PERSISTENCE),
    Check(SOURCE_HIDES, judge_source_hides, source=_HIDES),
    Check(TARGET_HIDES, judge_target_hides, target=_HIDES),
    Check(TARGET_RULES, judge_rules, target=_RULES),
    Check(LARGE_OBJECTS, judge_large_objects, source=_OIDS),
    Check(IDENTITY_ALWAYS, judge_identity_always, target=_ALWAYS),
    Check(FK_IN, judge_fk_in, source=_FOREIGN_KEYS),
    Check(FK_OUT, judge_fk_out, source=_FOREIGN_KEYS),
    Check(TARGET_FK_OUT, judge_target_fk_out, target=_FOREIGN_KEYS),
    Check(TARGET_FK_ORDER, judge_target_fk_order, target=_FOREIGN_KEYS),
    Check(UNIQUE_UNCHECKED, judge_unique_unchecked, target=_DEFERRABLE_UNIQUES),
    Check(ENCODING, judge_encoding, source=_DATABASE, target=_DATABASE),
    Check(COLLATION, judge_collation, source=_DATABASE, target=_DATABASE),
    Check(KEY_COLLATION, judge_key_collation, target=_VAGUE),
    Check(UNIQUE_MORE, judge_unique_more, source=_UNIQUES, target=_UNIQUES),
)

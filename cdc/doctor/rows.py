"""What is in the tables: a target that is not empty, sequences behind their keys, rows that the target will
refuse, values that applications stumble over.

Rows of the source are sent through the mapping's expressions and held against the limits of the target's
columns; the first `Subject.sample` rows of each table, in no order, so that it stays quick. Rows that come
later may still break a limit: then the stream stops there and says so.
"""

# ruff: noqa: S608  (names are quoted, expressions are the plan author's own SQL)

from collections.abc import Callable, Iterator

from cdc.changes import quote
from cdc.doctor.check import MAPPED, AskedBy, Row, Rows, Subject, TableCheck
from cdc.findings import Finding, Place, Rule, Severity, Side
from cdc.mapping import TableMapping

NOT_EMPTY = Rule(
    "target-not-empty",
    Severity.ERROR,
    "a target table has rows although the stream has not begun",
    "the snapshot refuses to write into a table that is not empty",
    "TRUNCATE …, when nobody needs these rows",
)


def _ask_not_empty(table: TableMapping, facts: Rows, _subject: Subject) -> str:
    return "" if facts else f"SELECT EXISTS (SELECT FROM {table.target.sql}) AS rows"


def judge_not_empty(table: TableMapping, _facts: Rows, rows: Rows, _subject: Subject) -> Iterator[Finding]:
    """Without a position of the stream, every target table must be empty."""
    if any(row["rows"] for row in rows):
        yield NOT_EMPTY.found(
            f"target table {table.target} has rows",
            place=Place.of(Side.TARGET, table.target),
            path=(*table.path, "target"),
            repair=f"TRUNCATE {table.target.sql} CASCADE",
            remedy="empty it when nobody needs these rows (TRUNCATE also empties tables that reference it)",
        )


SEQUENCE_BEHIND = Rule(
    "target-sequence-behind",
    Severity.WARNING,
    "a sequence of the target stands behind the keys in its table",
    "the service's own inserts would collide with rows that the stream wrote",
    "SELECT setval(…), before writes are cut over",
)


def _ask_sequences(table: TableMapping, facts: Rows, _subject: Subject) -> str:
    parts = [
        f"SELECT {place} AS place, max({quote(row['column'])})::numeric AS highest FROM {table.target.sql}"
        for place, row in _of_table(facts, table)
    ]
    return " UNION ALL ".join(parts)


def judge_sequences(table: TableMapping, facts: Rows, rows: Rows, _subject: Subject) -> Iterator[Finding]:
    """The last value of a sequence must not be below the highest value of its column."""
    highest = {row["place"]: row["highest"] for row in rows}
    for place, row in _of_table(facts, table):
        top = highest.get(place)
        if top is not None and row["rising"] and (row["last"] or 0) < top:
            yield SEQUENCE_BEHIND.found(
                f"sequence {row['sequence']} stands at {row['last'] or 0}, {row['column']} goes up to {top}",
                place=Place.of(Side.TARGET, table.target, row["column"]),
                path=(*table.path, "key"),
                repair=f"SELECT setval({row['quoted']}, {top})",
            )


def _of_table(facts: Rows, table: TableMapping) -> list[tuple[int, Row]]:
    name = table.target
    return [
        (place, row)
        for place, row in enumerate(facts)
        if (row["schema"], row["table"]) == (name.schema, name.name)
    ]


ROWS_NULL = Rule(
    "rows-null",
    Severity.ERROR,
    "rows of the source give NULL where the target column is NOT NULL",
    "the snapshot fails at the first of them",
    "ALTER TABLE … ALTER … DROP NOT NULL, or map coalesce(…), or repair the rows",
)
ROWS_LONG = Rule(
    "rows-too-long",
    Severity.ERROR,
    "rows of the source give text that is longer than the target column takes",
    "the snapshot fails at the first of them",
    "ALTER TABLE … ALTER … TYPE text, or repair the rows",
)
ROWS_RANGE = Rule(
    "rows-out-of-range",
    Severity.ERROR,
    "rows of the source give a number beyond the range of the target column",
    "the snapshot fails at the first of them",
    "ALTER TABLE … ALTER … TYPE a wider type, or repair the rows",
)
ROWS_CHECK = Rule(
    "rows-break-check",
    Severity.ERROR,
    "rows of the source break a CHECK constraint of the target",
    "the snapshot fails at the first of them",
    "ALTER TABLE … DROP CONSTRAINT …, or repair the rows",
)
ROWS_INFINITE = Rule(
    "rows-infinite",
    Severity.WARNING,
    "rows of the source hold infinity, NaN or a date before the year 1",
    "PostgreSQL carries them, but many languages cannot read them: Python's datetime has no infinity",
    "UPDATE … to NULL or to a value that applications can read",
)
_RANGES = {"smallint": 15, "integer": 31, "bigint": 63}


def _null(limit: Row, value: str) -> str:
    return f"{value} IS NULL" if limit["not_null"] else ""


def _long(limit: Row, value: str) -> str:
    # trailing blanks beyond the length are cut off, not refused
    return f"char_length(rtrim({value}::text, ' ')) > {limit['length']}" if limit["length"] else ""


def _range(limit: Row, value: str) -> str:
    number = f"({value})::numeric"
    if limit["type"] in _RANGES:
        bound = 1 << _RANGES[limit["type"]]
        return f"round({number}) NOT BETWEEN {-bound} AND {bound - 1}"
    if limit["precision"]:
        digits = limit["precision"] - limit["scale"]
        return f"abs(round({number}, {limit['scale']})) >= 10 ^ {digits} AND {number} <> 'NaN'"
    return ""


def _asks_limits(condition: Callable[[Row, str], str]) -> Callable[[TableMapping, Rows, Subject], str]:
    """The question how many of the first rows break `condition` of each mapped column."""

    def question(table: TableMapping, facts: Rows, subject: Subject) -> str:
        counts = []
        for place, limit in _of_table(facts, table):
            mapped = next((each for each in table.columns if each.name == limit["column"]), None)
            broken = condition(limit, f"({mapped.sql})") if mapped is not None else ""
            if broken:
                counts.append(
                    f"SELECT {place} AS place, count(*) AS rows FROM sample AS {_alias(table)} WHERE {broken}"
                )
        return _sampled(table, subject, counts)

    return question


def _ask_checks(table: TableMapping, facts: Rows, subject: Subject) -> str:
    counts = []
    for place, limit in _of_table(facts, table):
        cast = {each["name"]: each["type"] for each in limit["columns"]}
        if not set(cast) <= {column.name for column in table.columns}:
            continue  # also about a column that the target fills by itself
        values = ", ".join(
            f"({column.sql})::{cast[column.name]} AS {quote(column.name)}"
            for column in table.columns
            if column.name in cast
        )
        inner = f"SELECT {values} FROM sample AS {_alias(table)}"
        counts.append(
            f"SELECT {place} AS place, count(*) AS rows FROM ({inner}) AS {quote(table.target.name)} "
            f"WHERE NOT ({limit['expression']})"
        )
    return _sampled(table, subject, counts)


def _ask_infinite(table: TableMapping, facts: Rows, subject: Subject) -> str:
    counts = []
    for place, row in enumerate(facts):
        if (row["schema"], row["table"]) != (table.source.schema, table.source.name):
            continue
        value = quote(row["column"])
        odd = f"{value}::text IN ('infinity', '-infinity', 'Infinity', '-Infinity', 'NaN')"
        if row["dated"]:
            odd = f"NOT isfinite({value}) OR (isfinite({value}) AND extract(year FROM {value}) < 1)"
        counts.append(f"SELECT {place} AS place, count(*) AS rows FROM sample WHERE {odd}")
    return _sampled(table, subject, counts)


def _sampled(table: TableMapping, subject: Subject, counts: list[str]) -> str:
    if not counts:
        return ""
    sample = f"SELECT * FROM {table.source.sql} LIMIT {subject.sample}"
    return f"WITH sample AS MATERIALIZED ({sample}) {' UNION ALL '.join(counts)}"


def _alias(table: TableMapping) -> str:
    return quote(table.source.name)  # expressions may name the table


def _judges_limits(
    rule: Rule, what: str, repair: Callable[[Row], str]
) -> Callable[[TableMapping, Rows, Rows, Subject], Iterator[Finding]]:
    def judge(table: TableMapping, facts: Rows, rows: Rows, subject: Subject) -> Iterator[Finding]:
        for row in rows:
            if row["rows"]:
                limit = facts[row["place"]]
                column = limit.get("column") or ""
                name = f"{table.target}.{column}" if column else f"{table.target}, {limit['name']}"
                yield rule.found(
                    f"{row['rows']} of the first {subject.sample} rows of {table.source} {what} {name}",
                    place=Place.of(Side.TARGET, table.target, column),
                    path=(*table.path, "columns", *([column] if column else [])),
                    repair=f"ALTER TABLE {table.target.sql} {repair(limit)}",
                    remedy=f"repair the rows, the mapping, or the target: {rule.repair}",
                )

    return judge


def _column(what: str) -> Callable[[Row], str]:
    return lambda limit: f"ALTER {quote(limit['column'])} {what}"


def judge_infinite(table: TableMapping, facts: Rows, rows: Rows, subject: Subject) -> Iterator[Finding]:
    """Values that PostgreSQL carries and applications may not."""
    for row in rows:
        if row["rows"]:
            fact = facts[row["place"]]
            column = quote(fact["column"])
            odd = f"{column}::text IN ('infinity', '-infinity', 'Infinity', '-Infinity', 'NaN')"
            if fact["dated"]:
                odd = f"NOT isfinite({column}) OR extract(year FROM {column}) < 1"
            yield ROWS_INFINITE.found(
                f"{row['rows']} of the first {subject.sample} rows of {table.source} hold infinity, NaN or a "
                f"year before 1 in {fact['column']}",
                place=Place.of(Side.SOURCE, table.source, fact["column"]),
                path=table.path,
                repair=""
                if fact["not_null"]
                else f"UPDATE {table.source.sql} SET {column} = NULL WHERE {odd}",
                remedy="see that the service can read them, or give them another value",
            )


_STORED = "SELECT FROM strangler_cdc.position WHERE stream = %(slot)s"
_SEQUENCES = f"""
WITH {MAPPED}
SELECT schema, "table", attname::text AS column, s.relation::text AS sequence,
       quote_literal(s.relation) AS quoted, pg_sequence_last_value(s.relation::regclass) AS last,
       q.seqincrement > 0 AS rising
FROM mapped JOIN pg_attribute a ON attrelid = mapped.relation AND attnum > 0 AND NOT attisdropped
CROSS JOIN LATERAL (
    SELECT pg_get_serial_sequence(quote_ident(schema) || '.' || quote_ident("table"), attname)) AS s(relation)
JOIN pg_sequence q ON q.seqrelid = s.relation::regclass
ORDER BY place, attnum
"""
# a length or precision is kept in the type modifier, see format_type in PostgreSQL's source
_LIMITS = f"""
WITH {MAPPED}
SELECT schema, "table", attname::text AS column, format_type(atttypid, NULL) AS type, attnotnull AS not_null,
       CASE WHEN atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND atttypmod > 4
            THEN atttypmod - 4 END AS length,
       CASE WHEN atttypid = 'numeric'::regtype AND atttypmod > 4
            THEN ((atttypmod - 4) >> 16) & 65535 END AS precision,
       CASE WHEN atttypid = 'numeric'::regtype AND atttypmod > 4
            THEN (((atttypmod - 4) & 2047) # 1024) - 1024 END AS scale
FROM mapped JOIN pg_attribute a ON attrelid = relation
WHERE attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY place, attnum
"""
_CHECKS = f"""
WITH {MAPPED}
SELECT schema, "table", conname::text AS name, pg_get_expr(conbin, conrelid) AS expression,
       (SELECT json_agg(json_build_object('name', attname, 'type', format_type(atttypid, NULL)))
        FROM pg_attribute WHERE attrelid = relation AND attnum = ANY (conkey)) AS columns
FROM mapped JOIN pg_constraint ON conrelid = relation AND contype = 'c' AND conkey <> '{{}}'
ORDER BY place, conname
"""
_ODD_TYPES = f"""
WITH {MAPPED}
SELECT schema, "table", attname::text AS column, attnotnull AS not_null,
       atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype) AS dated
FROM mapped JOIN pg_attribute ON attrelid = relation
WHERE attnum > 0 AND NOT attisdropped AND atttypid IN ('date'::regtype, 'timestamp'::regtype,
    'timestamptz'::regtype, 'numeric'::regtype, 'float4'::regtype, 'float8'::regtype)
ORDER BY place, attnum
"""


def _limit(
    rule: Rule, condition: Callable[[Row, str], str], what: str, repair: Callable[[Row], str]
) -> TableCheck:
    return TableCheck(
        rule,
        Side.SOURCE,
        _asks_limits(condition),
        _judges_limits(rule, what, repair),
        facts_in=Side.TARGET,
        facts=_LIMITS,
    )


ROW_CHECKS: tuple[TableCheck, ...] = (
    TableCheck(
        NOT_EMPTY,
        Side.TARGET,
        _ask_not_empty,
        judge_not_empty,
        facts_in=Side.TARGET,
        facts=_STORED,
        asked_by=AskedBy.STREAM,  # the schema may be its own
        none_when_absent=True,
    ),
    TableCheck(
        SEQUENCE_BEHIND,
        Side.TARGET,
        _ask_sequences,
        judge_sequences,
        facts_in=Side.TARGET,
        facts=_SEQUENCES,
    ),
    _limit(ROWS_NULL, _null, "give NULL for", _column("DROP NOT NULL")),
    _limit(ROWS_LONG, _long, "are too long for", _column("TYPE text")),
    _limit(ROWS_RANGE, _range, "are out of the range of", _column("TYPE numeric")),
    TableCheck(
        ROWS_CHECK,
        Side.SOURCE,
        _ask_checks,
        _judges_limits(
            ROWS_CHECK, "break a CHECK of", lambda limit: f"DROP CONSTRAINT {quote(limit['name'])}"
        ),
        facts_in=Side.TARGET,
        facts=_CHECKS,
    ),
    TableCheck(
        ROWS_INFINITE,
        Side.SOURCE,
        _ask_infinite,
        judge_infinite,
        facts_in=Side.SOURCE,
        facts=_ODD_TYPES,
    ),
)

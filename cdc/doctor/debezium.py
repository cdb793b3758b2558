"""Where Debezium reads the log: columns whose values it loses, told before anything moves.

    catalogue ─► the mapped columns, what they are made of ─► `decode.debezium_values.loss`   always refused: blocker
              └► rows of the source ─► values that it damages                                 there are some: blocker
              └► NOT NULL, identity, CHECKs ─► values that it would damage                    may come: warning

The stream refuses the same values when they come (`cdc.decode`), and stops there: the snapshot reads the table, not
Debezium, so it shows only with the first update. Columns that the mapping ignores are of no concern.
"""

# ruff: noqa: S608  (names are quoted)

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cdc.changes import quote
from cdc.decode.debezium_values import BIT, TIMESTAMP, ColumnType, Modes, column, loss
from cdc.doctor.check import MAPPED, Check, Facts, Row, Rows, Subject, TableCheck, place_of
from cdc.findings import Finding, Rule, Severity, Side
from cdc.mapping import TableMapping

_ELSE = "leave the column out of the mapping (ignore), or read the log with stream.source: slot"

LOSES_TYPE = Rule(
    "debezium-loses-type",
    Severity.ERROR,
    "Debezium does not carry values of a mapped column's type whole",
    "the stream stops at the first change of the table",
    f"{_ELSE}; or give the column another type: text carries everything",
)
DAMAGES_VALUES = Rule(
    "debezium-damages-values",
    Severity.ERROR,
    "a mapped column holds values that Debezium damages",
    "the stream stops at the next change of such a row",
    f"repair the values, or {_ELSE}",
)
MAY_DAMAGE = Rule(
    "debezium-may-damage",
    Severity.WARNING,
    "a mapped column can take values that Debezium damages",
    "the stream stops when such a value is written",
    f"a CHECK that forbids them (a NOT VALID one counts: it holds for what is written), or {_ELSE}",
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Values of one column that Debezium damages. `broken`: SQL, true of such a value; "" when the table cannot show
    them. `words`: what they are. `forbids`: the CHECK that keeps them out, as PostgreSQL prints it, "" when none does.
    `may_come`: worth a word while there are none.
    """

    words: str
    broken: str
    forbids: str = ""
    repair: str = ""
    may_come: bool = True


_LAST_MOMENT: Final = "'294247-01-10 04:00:54.775807'"  # 2^63 - 1 microseconds after 1970, as Debezium counts
_EARLY: Final = "arrays with days before 1582-10-15, which Debezium writes as other days"


def doubts(row: Row, modes: Modes) -> Iterator[Doubt]:
    """What may be wrong with values of the column of `row` (of `_COLUMNS`) although its type is carried. Pure."""
    type_ = _type(row)
    name = row["name"]
    micro = type_.modifier not in range(4)
    if type_.element:
        yield Doubt(
            "arrays of several dimensions, or whose first index is not 1",
            f"array_ndims({name}) > 1 OR array_lower({name}, 1) <> 1",
            f"((array_ndims({name}) = 1) AND (array_lower({name}, 1) = 1))",
        )
    match type_.element:
        case 1082:
            kept = f"(('1582-10-15'::date <= ALL ({name})) AND ('infinity'::date > ALL ({name})))"
            yield Doubt(f"{_EARLY}, or with infinity", f"NOT {kept}", kept)
        case 1114:
            kept = f"('1582-10-15 00:00:00'::timestamp without time zone <= ALL ({name}))"
            early = (
                f"EXISTS (SELECT FROM unnest({name}) AS _(each) WHERE isfinite(each) AND each < '1582-10-15')"
            )
            yield Doubt(_EARLY, early, kept)
        case 1184:
            kept = f"('1582-10-15 00:00:00+00'::timestamp with time zone <= ALL ({name}))"
            yield Doubt(f"{_EARLY}, or with -infinity", f"NOT {kept}", kept)
        case 1083:
            kept = f"('24:00:00'::time without time zone <> ALL ({name}))"
            yield Doubt("arrays with 24:00:00, which comes as 00:00:00", f"NOT {kept}", kept)
    if TIMESTAMP in (type_.oid, type_.element) and micro:
        each = f"unnest({name})" if type_.element else f"(SELECT {name})"
        yield Doubt(
            "timestamps after the year 294247",
            f"EXISTS (SELECT FROM {each} AS _(each) WHERE isfinite(each) AND each >= {_LAST_MOMENT})",
            may_come=False,
        )
    if column(type_, modes, "").blurred:
        keeps_old = row["identity"] == "f"
        yield Doubt(
            "NULL or large values that an update leaves alone: Debezium writes both alike",
            "" if keeps_old else f"{name} IS NULL",
            repair=f"ALTER TABLE {quote(row['schema'])}.{quote(row['table'])} REPLICA IDENTITY FULL",
            # a short bit string is never stored out of line
            may_come=type_.oid != BIT or not keeps_old,
        )


def judge_types(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """No mapped column may have a type that the stream always refuses."""
    for row in _concerned(facts.source, subject):
        reason = loss(_type(row), Modes())
        if reason is None:
            continue
        yield LOSES_TYPE.found(
            f"column {row['schema']}.{row['table']}.{row['column']} is {row['type']}: {reason}",
            place=place_of(Side.SOURCE, row),
            path=subject.table_at(Side.SOURCE, row).path,
            remedy=LOSES_TYPE.repair,
        )


def judge_may_damage(facts: Facts, subject: Subject) -> Iterator[Finding]:
    """What may come, and no constraint keeps out."""
    for row in _carried(facts.source, subject):
        open_ = [
            doubt for doubt in doubts(row, Modes()) if doubt.may_come and doubt.forbids not in row["checks"]
        ]
        if not open_:
            continue
        checks = ", ".join(f"ADD CHECK {doubt.forbids} NOT VALID" for doubt in open_ if doubt.forbids)
        table = f"{quote(row['schema'])}.{quote(row['table'])}"
        yield MAY_DAMAGE.found(
            f"column {row['schema']}.{row['table']}.{row['column']} ({row['type']}) may hold "
            + "; ".join(doubt.words for doubt in open_),
            place=place_of(Side.SOURCE, row),
            path=subject.table_at(Side.SOURCE, row).path,
            repair=f"ALTER TABLE {table} {checks}" if checks else "",
            remedy=f"forbid them, or {_ELSE}" if checks else _ELSE,
        )


def _ask_damaged(table: TableMapping, facts: Rows, subject: Subject) -> str:
    counts = []
    for place, _, number, doubt in _of_table(table, facts, subject):
        counts.append(
            f"SELECT {place} AS place, {number} AS doubt, count(*) AS rows FROM sample WHERE {doubt.broken}"
        )
    if not counts:
        return ""
    columns = ", ".join(sorted({quote(row["column"]) for _, row, _, _ in _of_table(table, facts, subject)}))
    sample = f"SELECT {columns} FROM {table.source.sql} LIMIT {subject.sample}"
    return f"WITH sample AS MATERIALIZED ({sample}) {' UNION ALL '.join(counts)}"


def judge_damaged(table: TableMapping, facts: Rows, rows: Rows, subject: Subject) -> Iterator[Finding]:
    """What the first rows hold already."""
    found = {(each["place"], each["doubt"]): each["rows"] for each in rows}
    for place, row, number, doubt in _of_table(table, facts, subject):
        if count := found.get((place, number)):
            yield DAMAGES_VALUES.found(
                f"{count} of the first {subject.sample} rows of {table.source} hold in {row['column']} "
                f"({row['type']}) {doubt.words}",
                place=place_of(Side.SOURCE, row),
                path=table.path,
                repair=doubt.repair,
                remedy=DAMAGES_VALUES.repair,
            )


def _of_table(table: TableMapping, facts: Rows, subject: Subject) -> Iterator[tuple[int, Row, int, Doubt]]:
    for place, row in enumerate(facts):
        if (row["schema"], row["table"]) != (table.source.schema, table.source.name):
            continue
        for carried in _carried([row], subject):
            for number, doubt in enumerate(doubts(carried, Modes())):
                if doubt.broken:
                    yield place, carried, number, doubt


def _concerned(rows: Rows, subject: Subject) -> Iterator[Row]:
    """The columns that the mapping carries, where Debezium reads the log."""
    if not subject.debezium:
        return
    for row in rows:
        ignored = {name for name, _ in subject.table_at(Side.SOURCE, row).ignored}
        if row["column"] not in ignored:
            yield row


def _carried(rows: Rows, subject: Subject) -> Iterator[Row]:
    return (row for row in _concerned(rows, subject) if loss(_type(row), Modes()) is None)


def _type(row: Row) -> ColumnType:
    return ColumnType(row["oid"], row["modifier"], row["element"])


# name: as PostgreSQL itself prints the column in a constraint
_COLUMNS = f"""
WITH RECURSIVE {MAPPED}, made AS (
    SELECT schema, "table", place, relation, relreplident, attnum, attname, atttypid AS type, atttypmod AS modifier,
           format_type(atttypid, atttypmod) AS told
    FROM mapped JOIN pg_attribute ON attrelid = relation AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT schema, "table", place, relation, relreplident, attnum, attname, t.typbasetype,
           CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE made.modifier END, told
    FROM made JOIN pg_type t ON t.oid = made.type AND t.typtype = 'd')
SELECT schema, "table", attname::text AS column, quote_ident(attname) AS name, told AS type, t.oid::bigint AS oid,
       made.modifier, CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END::bigint AS element,
       relreplident::text AS identity,
       ARRAY(SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint
             WHERE conrelid = relation AND contype = 'c') AS checks
FROM made JOIN pg_type t ON t.oid = made.type AND t.typtype <> 'd'
ORDER BY place, attnum
"""

DEBEZIUM_CHECKS: tuple[Check | TableCheck, ...] = (
    Check(LOSES_TYPE, judge_types, source=_COLUMNS),
    TableCheck(
        DAMAGES_VALUES, Side.SOURCE, _ask_damaged, judge_damaged, facts_in=Side.SOURCE, facts=_COLUMNS
    ),
    Check(MAY_DAMAGE, judge_may_damage, source=_COLUMNS),
)

"""Possible histories of two small tables, for laws that hold for every history."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import strategies as st

from cdc.changes import (
    UNCHANGED,
    Change,
    Key,
    Lsn,
    Operation,
    Relation,
    RelationColumn,
    Row,
    TableName,
    Transaction,
)
from cdc.sinks.memory import apply_one_by_one

TABLES = [TableName("public", "product"), TableName("public", "stock")]
RELATIONS = [
    Relation(
        table, (RelationColumn("id", 20, key=True), RelationColumn("name", 25), RelationColumn("body", 25))
    )
    for table in TABLES
]
KEYS = dict.fromkeys(TABLES, ("id",))
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
START = Lsn(5)
Tables = dict[TableName, dict[Key, Row]]


@st.composite
def histories(draw: st.DrawFn) -> list[Transaction]:
    """A possible history of two tables: every update and delete refers to a row that exists."""
    alive: dict[TableName, set[bytes]] = {table: set() for table in TABLES}
    position = int(START)
    made: list[Transaction] = []
    for number in range(draw(st.integers(0, 8))):
        changes: list[Change] = []
        for _ in range(draw(st.integers(0, 6))):
            place = draw(st.integers(0, 1))
            changes.append(_change(draw, RELATIONS[place], alive[TABLES[place]]))
        position += draw(st.integers(2, 50))  # a commit record has some length
        made.append(Transaction(Lsn(position), MOMENT, number, tuple(changes)))
    return made


def in_pieces(history: Sequence[Transaction], size: int) -> list[Transaction]:
    """The same history with transactions of more than `size` changes cut, as the slot source cuts them."""
    made: list[Transaction] = []
    for whole in history:
        starts = range(0, max(len(whole.changes), 1), size)
        for start in starts:
            more = start != starts[-1]
            made.append(
                replace(
                    whole,
                    changes=whole.changes[start : start + size],
                    more=more,
                    position=Lsn(whole.position - 1) if more else whole.position,
                )
            )
    return made


def _change(draw: st.DrawFn, relation: Relation, alive: set[bytes]) -> Change:
    text = st.one_of(st.none(), st.sampled_from([b"a", b"b", b"c"]))
    body = st.one_of(text, st.just(UNCHANGED))
    kinds = ["insert", "truncate"] + (["update", "move", "delete"] * 3 if alive else [])
    kind = draw(st.sampled_from(kinds))
    free = sorted({b"1", b"2", b"3", b"4"} - alive)
    if kind in ("insert", "move") and not free:
        kind = "update"
    if kind == "truncate":
        if draw(st.integers(0, 3)):
            kind = "insert" if free else "update"
        else:
            alive.clear()
            return Change(Operation.TRUNCATE, relation)
    if kind == "insert":
        key = draw(st.sampled_from(free))
        alive.add(key)
        return Change(Operation.INSERT, relation, None, (key, draw(text), draw(text)))
    old = draw(st.sampled_from(sorted(alive)))
    before: Row = (old, None, None)
    if kind == "delete":
        alive.remove(old)
        return Change(Operation.DELETE, relation, before)
    if kind == "update":
        return Change(Operation.UPDATE, relation, None, (old, draw(text), draw(body)))
    new = draw(st.sampled_from(free))
    alive.remove(old)
    alive.add(new)
    return Change(Operation.UPDATE, relation, before, (new, draw(text), draw(body)))


def meaning(history: Sequence[Transaction]) -> Tables:
    tables: Tables = {table: {} for table in TABLES}
    apply_one_by_one(tables, history, KEYS)
    return tables

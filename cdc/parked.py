"""Which changes wait, and behind what, when the target refuses one. Pure.

With `on_refused: park` a change that the target refuses does not stop the stream: it is parked, and with it its
*key*. Every later change of that key waits behind it, in order; all other keys go on. A change of a key touches
two rows' places, so it waits when either is parked, and then both are. TRUNCATE empties the table on the source,
whatever was parked of it before: nothing of that table waits any more, and the truncation itself goes on.

So at any time a key that is not parked has the row that the source's history up to the stored position gives
it; a parked one has the row it had before its first parked change. Parked changes that are linked by keys are a
*lot*; applying a lot's changes in order makes all its keys good (`cdc.release`).

A key is named by its *address*: `catalog_stock/W1/77`, the table and the values of the mapping's key columns, each
percent-encoded, so that it is one word of a command line.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeVar
from urllib.parse import quote

from cdc.changes import (
    UNCHANGED,
    Change,
    Identity,
    Lsn,
    Operation,
    Relation,
    RelationColumn,
    Row,
    TableName,
    Transaction,
    Value,
)
from cdc.coalesce import KeyUnknownError

Address = str
Keys = MappingOf[TableName, tuple[str, ...]]
Entry = TypeVar("Entry")


class OnRefused(StrEnum):
    """What happens to a change that the target refuses."""

    STOP = "stop"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the target refused: SQLSTATE ("" when it is not PostgreSQL that refused), sentence, target column."""

    sqlstate: str
    reason: str
    column: str = ""


@dataclass(frozen=True, slots=True)
class ParkedChange:
    """A change that waits. `refusal` is None when it only waits behind another one.

    `addresses` are the keys that it touches, the one it leaves first; position, time and id are those of its
    source transaction.
    """

    addresses: tuple[Address, ...]
    change: Change
    position: Lsn
    commit_time: datetime
    xid: int
    refusal: Refusal | None = None


@dataclass(slots=True)
class Parting:
    """Parts a batch into what goes on and what waits. `blocked`: address of each parked key → its table.

    `parked` are the changes that joined those already waiting; `wiped` are tables of which nothing that
    waited before this batch waits any more.
    """

    keys: Keys
    blocked: dict[Address, TableName]
    parked: list[ParkedChange] = field(default_factory=list)
    wiped: set[TableName] = field(default_factory=set)
    _tables: set[TableName] = field(
        init=False
    )  # those with parked keys: changes of others need no second look

    def __post_init__(self) -> None:
        self._tables = set(self.blocked.values())

    def copy(self) -> Self:
        """The same, to go on from on trial."""
        return replace(self, blocked=dict(self.blocked), parked=list(self.parked), wiped=set(self.wiped))

    def divide(self, transactions: Sequence[Transaction]) -> Sequence[Transaction]:
        """`transactions` without the changes that wait. Raises KeyUnknownError."""
        if not self.blocked:
            return transactions
        return [
            replace(
                transaction,
                changes=tuple(
                    change for change in transaction.changes if not self.waits(change, transaction)
                ),
            )
            for transaction in transactions
        ]

    def waits(self, change: Change, transaction: Transaction) -> bool:
        """Whether `change` has to wait; it is then parked. Raises KeyUnknownError."""
        if change.relation.table not in self._tables:
            return False
        if change.operation is Operation.TRUNCATE:
            self._wipe(change.relation.table)
            return False
        touched = addresses(change, self.keys)
        if not any(address in self.blocked for address in touched):
            return False
        self._park(touched, change, transaction, None)
        return True

    def refuse(self, change: Change, transaction: Transaction, refusal: Refusal) -> None:
        """Park a change that the target has refused."""
        self._park(addresses(change, self.keys), change, transaction, refusal)

    def _park(
        self, touched: tuple[Address, ...], change: Change, transaction: Transaction, refusal: Refusal | None
    ) -> None:
        for address in touched:
            self.blocked[address] = change.relation.table
        self._tables.add(change.relation.table)
        self.parked.append(
            ParkedChange(
                touched, change, transaction.position, transaction.commit_time, transaction.xid, refusal
            )
        )

    def _wipe(self, table: TableName) -> None:
        self.blocked = {address: of for address, of in self.blocked.items() if of != table}
        self.parked = [each for each in self.parked if each.change.relation.table != table]
        self.wiped.add(table)
        self._tables.discard(table)


def addresses(change: Change, keys: Keys) -> tuple[Address, ...]:
    """The keys that `change` touches: one, or two when it moves a row; none when its table is not mapped or it
    is a TRUNCATE. Raises KeyUnknownError when the log does not tell them.
    """
    names = keys.get(change.relation.table)
    if names is None:
        return ()
    found = [
        _address_of(row, change.relation, names) for row in (change.before, change.after) if row is not None
    ]
    return tuple(dict.fromkeys(found))


def _table_part(table: TableName) -> str:
    parts = [table.name] if table.schema == "public" else [table.schema, table.name]
    return ".".join(quote(part, safe="").replace(".", "%2E") for part in parts)


def _address_of(row: Row, relation: Relation, names: tuple[str, ...]) -> Address:
    columns = relation.names()
    parts = [_table_part(relation.table)]
    for name in names:
        if name not in columns:
            raise KeyUnknownError(relation, f"its key column {name!r} does not exist any more")
        value = row[columns.index(name)]
        if not isinstance(value, bytes):
            raise KeyUnknownError(
                relation,
                f"the log gives no value for a column of its key ({value!r}); its replica identity must cover it",
            )
        parts.append(quote(value, safe=""))
    return "/".join(parts)


def lots(entries: Sequence[Entry], touched: Callable[[Entry], Iterable[Address]]) -> list[list[Entry]]:
    """`entries` in the groups that share keys, directly or through others; order is kept, also of the groups."""
    home: dict[Address, int] = {}
    groups: dict[int, list[int]] = {}
    for place, entry in enumerate(entries):
        joined = sorted({home[address] for address in touched(entry) if address in home})
        members = sorted([member for group in joined for member in groups.pop(group)] + [place])
        first = members[0]
        groups[first] = members
        for member in members:
            for address in touched(entries[member]):
                home[address] = first
    return [[entries[member] for member in groups[first]] for first in sorted(groups)]


def by_table(blocked: Collection[TableName]) -> str:
    """How many keys of which table, for people."""
    counted = Counter(blocked)
    return ", ".join(f"{count} of {table}" for table, count in counted.most_common())


def as_transactions(entries: Iterable[ParkedChange]) -> Iterator[Transaction]:
    """What waits, as transactions to apply again; one for each run of entries of one source transaction."""
    run: list[ParkedChange] = []
    for entry in entries:
        if run and (entry.position, entry.xid) != (run[-1].position, run[-1].xid):
            yield _transaction(run)
            run = []
        run.append(entry)
    if run:
        yield _transaction(run)


def _transaction(run: Sequence[ParkedChange]) -> Transaction:
    first = run[0]
    return Transaction(first.position, first.commit_time, first.xid, tuple(entry.change for entry in run))


# -- as JSON in the table strangler_cdc.parked --------------------------------------------------------------------


def row_json(row: Row | None, relation: Relation) -> str | None:
    """A row as an object by column: text, null, `{"unchanged": true}`, or `{"hex": …}` for what is not UTF-8."""
    if row is None:
        return None
    return json.dumps(
        {name: _value_json(value) for name, value in zip(relation.names(), row, strict=True)},
        ensure_ascii=False,
    )


def read_row(data: MappingOf[str, Any] | None, relation: Relation) -> Row | None:
    """The row that `row_json` wrote."""
    return None if data is None else tuple(_read_value(data[name]) for name in relation.names())


def relation_json(relation: Relation) -> str:
    """The table's definition at the time of the change."""
    return json.dumps(
        {
            "schema": relation.table.schema,
            "name": relation.table.name,
            "identity": relation.identity.value,
            "columns": [
                {
                    "name": column.name,
                    "type_oid": column.type_oid,
                    "type_modifier": column.type_modifier,
                    "type_name": column.type_name,
                    "key": column.key,
                }
                for column in relation.columns
            ],
        }
    )


def read_relation(data: MappingOf[str, Any]) -> Relation:
    """The relation that `relation_json` wrote."""
    columns = (
        RelationColumn(**{**column, "type_name": tuple(column["type_name"]) if column["type_name"] else None})
        for column in data["columns"]
    )
    return Relation(TableName(data["schema"], data["name"]), tuple(columns), Identity(data["identity"]))


def _value_json(value: Value) -> str | dict[str, Any] | None:
    if value is None:
        return None
    if value is UNCHANGED:
        return {"unchanged": True}
    assert isinstance(value, bytes)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _read_value(value: Any) -> Value:
    match value:
        case None:
            return None
        case str():
            return value.encode()
        case {"unchanged": True}:
            return UNCHANGED
        case {"hex": str(digits)}:
            return bytes.fromhex(digits)
        case _:
            raise ValueError(f"{value!r} is not a value of a parked row")

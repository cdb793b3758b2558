"""Fold many changes into few writes. Pure.

A batch of whole transactions becomes a short list of `Step`s, applied in order inside one target
transaction. Within a step each key has one outcome: a whole row, a deletion, or a row with holes (unchanged
large values that the log left out). A new step starts only where folding would lose something: when a row
with holes moves to another key, or when the definition of a table changes half way.

Law (held by tests): applying the steps has the effect of applying the changes one by one.
"""

from collections.abc import Iterable
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from typing import Final

from cdc.changes import UNCHANGED, Change, Key, Operation, Relation, Row, TableName
from cdc.decode.transactions import fill

# Final and compared by `is`: a `match` over the members looks each of them up and compares strings, for every row
_INSERT: Final = Operation.INSERT
_UPDATE: Final = Operation.UPDATE
_DELETE: Final = Operation.DELETE


class KeyUnknownError(Exception):
    """A change does not tell the key that the mapping identifies rows by."""

    def __init__(self, relation: Relation, reason: str) -> None:
        self.table = relation.table
        self.reason = reason
        super().__init__(f"table {relation.table}: {reason}")


@dataclass(slots=True)
class TableWork:
    """What a step does to one table, in this order: wipe, delete `gone`, patch `holes`, write `fresh`.

    Keys are values of the mapping's key columns, in mapping order. In `holes`: key under which the target
    holds the row → the row with UNCHANGED values. `moved` tells that such a row carries another key than it
    is held under.
    """

    relation: Relation
    wipe: bool = False
    gone: list[Key] = field(default_factory=list)
    holes: list[tuple[Key, Row]] = field(default_factory=list)
    fresh: list[Row] = field(default_factory=list)
    moved: bool = False

    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.wipe or self.gone or self.holes or self.fresh)


Step = tuple[TableWork, ...]


def coalesce(
    changes: Iterable[Change], keys: MappingOf[TableName, tuple[str, ...]], *, one_by_one: bool = False
) -> list[Step]:
    """The steps that have the effect of `changes`. `keys`: source key columns of each table that counts;
    changes of other tables are left out. `one_by_one` gives each change a step of its own, in source order.

    Raises KeyUnknownError when the log does not carry the key.
    """
    folder = _Folder(keys)
    for change in changes:
        folder.add(change)
        if one_by_one:
            folder.close()
    folder.close()
    return folder.steps


class _Pending:
    """The outcomes of one table in the step that is being built. None: deleted."""

    __slots__ = ("at", "relation", "rows", "wipe")

    def __init__(self, relation: Relation, at: tuple[int, ...]) -> None:
        self.relation = relation
        self.at = at
        self.rows: dict[Key, Row | None] = {}
        self.wipe = False

    def key(self, row: Row) -> Key:
        if len(self.at) == 1:
            only = row[self.at[0]]
            if isinstance(only, bytes):
                return (only,)
        values: list[bytes] = []
        for place in self.at:
            value = row[place]
            if not isinstance(value, bytes):
                raise KeyUnknownError(
                    self.relation,
                    f"the log gives no value for a column of its key ({value!r}); its replica identity "
                    "must cover it",
                )
            values.append(value)
        return tuple(values)

    def work(self) -> TableWork:
        work = TableWork(self.relation, wipe=self.wipe)
        for key, row in self.rows.items():
            if row is None:
                if not self.wipe:
                    work.gone.append(key)
            elif _has_holes(row):
                work.holes.append((key, row))
            else:
                work.fresh.append(row)
        return work


def _has_holes(row: Row) -> bool:
    unchanged = UNCHANGED  # looked up once, not once a value
    for value in row:  # noqa: SIM110  (compiled, a loop of identities; `in` would ask every value for equality)
        if value is unchanged:
            return True
    return False


class _Folder:
    def __init__(self, keys: MappingOf[TableName, tuple[str, ...]]) -> None:
        self.steps: list[Step] = []
        self._keys = keys
        self._pending: dict[TableName, _Pending] = {}
        self._last: _Pending | None = None

    def add(self, change: Change) -> None:
        pending = self._last
        relation = change.relation
        if pending is None or pending.relation is not relation:
            pending = self._of(relation)
            if pending is None:
                return
            self._last = pending
        operation, after = change.operation, change.after
        if operation is _UPDATE:
            assert after is not None
            self._update(pending, change.before, after)
        elif operation is _INSERT:
            assert after is not None
            pending.rows[pending.key(after)] = after
        elif operation is _DELETE:
            before = change.before
            assert before is not None
            pending.rows[pending.key(before)] = None
        else:
            pending.rows.clear()
            pending.wipe = True

    def close(self) -> None:
        step = tuple(work for work in (each.work() for each in self._pending.values()) if not work.empty())
        if step:
            self.steps.append(step)
        self._pending.clear()
        self._last = None

    def _update(self, pending: _Pending, before: Row | None, after: Row) -> None:
        new = pending.key(after)
        old = pending.key(before) if before is not None else new
        held = pending.rows.get(old)
        if held is not None and _has_holes(after):
            after = fill(after, held)
        if before is None or old == new:
            pending.rows[new] = after
            return
        if not _has_holes(after):
            pending.rows[old] = None
            pending.rows[new] = after
            return
        # The target still holds the missing values, under the old key: what is pending must be there first.
        relation = pending.relation
        self.close()
        self.steps.append((TableWork(relation, holes=[(old, after)], moved=True),))

    def _of(self, relation: Relation) -> _Pending | None:
        names = self._keys.get(relation.table)
        if names is None:
            return None
        pending = self._pending.get(relation.table)
        if pending is not None and pending.relation is not relation and pending.relation != relation:
            self.close()
            pending = None
        if pending is None:
            columns = relation.names()
            lacking = [name for name in names if name not in columns]
            if lacking:
                raise KeyUnknownError(relation, f"its key column {lacking[0]!r} does not exist any more")
            pending = _Pending(relation, tuple(columns.index(name) for name in names))
            self._pending[relation.table] = pending
        return pending

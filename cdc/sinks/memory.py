"""A sink that keeps tables in memory: for tests. Stores rows and position together or not at all."""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingOf

from cdc.changes import Key, Lsn, Operation, Row, TableName, Transaction
from cdc.coalesce import coalesce
from cdc.decode.transactions import fill


class MemorySink:
    """Rows by table and key, as the source has them (no mapping). See `cdc.seams.Sink`."""

    def __init__(self, keys: MappingOf[TableName, tuple[str, ...]], position: Lsn | None = None) -> None:
        self.tables: dict[TableName, dict[Key, Row]] = {table: {} for table in keys}
        self._keys = keys
        self._position = position
        self._unstored: dict[TableName, dict[Key, Row]] | None = None

    def position(self) -> Lsn | None:
        """The stored position."""
        return self._position

    def durable(self) -> Lsn | None:
        """The stored position: memory is all there is."""
        return self._position

    def apply(
        self, transactions: Sequence[Transaction], *, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Apply the folded changes; an exception leaves everything as it was."""
        assert self._position is not None, "a stream begins with a snapshot"
        assert transactions[-1].position > self._position, "already applied"
        begun, self._unstored = self._unstored, None
        tables = begun or {table: dict(rows) for table, rows in self.tables.items()}
        changes = [change for transaction in transactions for change in transaction.changes]
        for step in coalesce(changes, self._keys):
            for work in step:
                rows = tables[work.relation.table]
                places = [work.relation.names().index(name) for name in self._keys[work.relation.table]]
                if work.wipe:
                    rows.clear()
                for key in work.gone:
                    rows.pop(key, None)
                for key, row in work.holes:
                    filled = fill(row, rows.pop(key))
                    rows[_key(filled, places)] = filled
                for row in work.fresh:
                    rows[_key(row, places)] = row
        if meanwhile is not None:
            meanwhile()
        if transactions[-1].more:
            self._unstored = tables
            return
        self.tables = tables
        self._position = transactions[-1].position

    def prepare(self, transactions: Sequence[Transaction]) -> None:
        """Nothing: there is no target to wait for."""

    def advance(self, position: Lsn) -> None:
        """Store that nothing happened up to `position`."""
        assert self._position is not None
        assert position >= self._position
        assert self._unstored is None, "a transaction is open"
        self._position = position

    def close(self) -> None:
        """Forget what was not stored."""
        self._unstored = None


def apply_one_by_one(
    tables: dict[TableName, dict[Key, Row]],
    transactions: Sequence[Transaction],
    keys: MappingOf[TableName, tuple[str, ...]],
) -> None:
    """What the changes mean, without any folding: the yardstick for everything cleverer."""
    for transaction in transactions:
        for change in transaction.changes:
            rows = tables[change.relation.table]
            places = [change.relation.names().index(name) for name in keys[change.relation.table]]
            match change.operation:
                case Operation.INSERT:
                    assert change.after is not None
                    rows[_key(change.after, places)] = change.after
                case Operation.UPDATE:
                    assert change.after is not None
                    new = _key(change.after, places)
                    old = _key(change.before, places) if change.before is not None else new
                    rows[new] = fill(change.after, rows.pop(old))
                case Operation.DELETE:
                    assert change.before is not None
                    rows.pop(_key(change.before, places), None)
                case Operation.TRUNCATE:
                    rows.clear()


def _key(row: Row, places: list[int]) -> Key:
    key = [row[place] for place in places]
    return tuple(value for value in key if isinstance(value, bytes))

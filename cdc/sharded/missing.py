"""Values that an update left alone, read from the source.

An update that moves a row to another key comes as its two halves, in two partitions. Large values that it left alone
are not in the log, and the target's old row may be gone already, so they are asked for where they are: under the new
key, as they are *now*. That is safe in the end: whatever happens to the row later comes in this key's partition, with
the value when it changed. A row that is gone from the source by now is deleted or moved by a later record of the same
partition, so nothing of it is needed until then.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from cdc.changes import UNCHANGED, Change, Operation, TableName, Value
from cdc.sessions import connect

Keys = dict[TableName, tuple[str, ...]]


def has_holes(change: Change) -> bool:
    """Whether large values of the new row are not known."""
    return change.after is not None and UNCHANGED in change.after


class SourceRows:
    """Asks the source for the missing values of rows. `keys`: the mapping's source key columns."""

    def __init__(self, dsn: str, *, stream: str, keys: Keys) -> None:
        self._dsn = dsn
        self._stream = stream
        self._keys = keys
        self._connection: psycopg.Connection[Any] | None = None

    def complete(self, change: Change) -> Change | None:
        """`change` as the insertion of a whole row; None when the source has no such row any more. Raises
        psycopg.OperationalError.
        """
        assert change.after is not None
        relation, row = change.relation, change.after
        names = relation.names()
        missing = [name for name, value in zip(names, row, strict=True) if value is UNCHANGED]
        key = {name: row[names.index(name)] for name in self._keys[relation.table]}
        found = self._ask(relation.table, missing, key)
        if found is None:
            return None
        values = dict(zip(missing, found, strict=True))
        whole = tuple(values.get(name, value) for name, value in zip(names, row, strict=True))
        return replace(change, operation=Operation.INSERT, before=None, after=whole)

    def close(self) -> None:
        """Close the session, if one was needed."""
        stale, self._connection = self._connection, None
        if stale is not None:
            stale.close()

    def _ask(
        self, table: TableName, columns: Sequence[str], key: dict[str, Value]
    ) -> tuple[bytes | None, ...] | None:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._dsn, name=f"strangler_cdc rows {self._stream}")
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.Identifier(table.schema, table.name),
            sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in key),
        )
        values = [value.decode() if isinstance(value, bytes) else None for value in key.values()]
        cursor = self._connection.execute(query, values)
        result = cursor.pgresult
        if result is None or result.ntuples == 0:
            return None
        # as PostgreSQL prints them; nothing is converted on the way
        return tuple(result.get_value(0, place) for place in range(result.nfields))

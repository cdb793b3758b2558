"""Who is told of changes, and when; and what the proxy is told."""

from datetime import UTC, datetime

import pytest

from cdc.announce import AnnouncingSink
from cdc.changes import Change, Lsn, Operation, Relation, TableName, Transaction
from migration_plans.drivers.cache_notices import CacheNotices
from migration_plans.proxy_admin import ProxyAdmin, ProxyUnreachableError

PRODUCT, STOCK = TableName("public", "product"), TableName("public", "stock")


class Store:
    """A sink that may refuse."""

    def __init__(self) -> None:
        self.stored: list[Transaction] = []
        self.broken = False

    def position(self) -> Lsn | None:
        return Lsn(5)

    def apply(self, transactions: list[Transaction], *, meanwhile: object = None) -> None:  # type: ignore[override]  # a test's sink
        if self.broken:
            raise RuntimeError("no")
        self.stored.extend(transactions)

    def advance(self, position: Lsn) -> None:
        pass

    def close(self) -> None:
        pass


def transaction(*tables: TableName) -> Transaction:
    changes = tuple(Change(Operation.INSERT, Relation(table, ()), after=()) for table in tables)
    return Transaction(Lsn(10), datetime.now(UTC), 1, changes)


def test_tables_are_announced_once_they_are_stored_and_not_before() -> None:
    store, told = Store(), []
    sink = AnnouncingSink(store, lambda tables: told.append((tables, len(store.stored))))  # type: ignore[arg-type]  # a list will do
    sink.apply([transaction(PRODUCT, PRODUCT), transaction(STOCK)])
    sink.apply([transaction()])
    assert told == [(frozenset({PRODUCT, STOCK}), 2)]
    store.broken = True
    with pytest.raises(RuntimeError):
        sink.apply([transaction(STOCK)])
    assert len(told) == 1
    assert sink.position() == Lsn(5)


class Proxy(ProxyAdmin):
    """Confirms when it is reachable."""

    def __init__(self) -> None:
        super().__init__("http://nowhere.invalid")
        self.reachable = False
        self.caches = 1
        self.heard: list[list[str]] = []

    def invalidate(self, tables: list[str]) -> int:  # type: ignore[override]  # a list will do
        if not self.reachable:
            raise ProxyUnreachableError("down")
        self.heard.append(tables)
        return self.caches


def test_a_notice_is_kept_until_the_proxy_has_confirmed_it() -> None:
    with Proxy() as proxy:
        notices = CacheNotices(proxy)
        tell = notices._tell
        notices.changed(frozenset({PRODUCT}))
        assert tell(notices._pending) == 0.5
        assert notices._pending == {PRODUCT}
        notices.changed(frozenset({STOCK}))
        proxy.reachable = True
        assert tell(notices._pending) == 0.05
        assert proxy.heard == [["product", "stock"]]
        proxy.caches = 0
        assert tell(frozenset({STOCK})) == 1.0

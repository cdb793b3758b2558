"""Tells the proxy which tables changed, so that no cache outlives the data it was read from.

`changed` never blocks: names are collected, and a thread posts them. The first ones go out at once, later ones at
most every 50 ms, or every second while no group has a cache. What could not be told is told again until it is:
a notice is only forgotten when the proxy has confirmed it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from cdc.changes import TableName
from migration_plans.proxy_admin import ProxyAdmin, ProxyUnreachableError

PACE = 0.05  # seconds between two notices
IDLE_PACE = 1.0  # the same while no group has a cache
_RETRY = 0.5

Changed = Callable[[frozenset[TableName]], None]


class CacheNotices:
    """The collecting and the telling. `told` counts notices that the proxy confirmed."""

    def __init__(self, proxy: ProxyAdmin) -> None:
        self._proxy = proxy
        self._lock = threading.Lock()
        self._pending: frozenset[TableName] = frozenset()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._fault = ""
        self.told = 0

    def changed(self, tables: frozenset[TableName]) -> None:
        """These tables changed."""
        with self._lock:
            self._pending |= tables
        self._wake.set()

    def run(self) -> None:
        """Tell until `stop`."""
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                tables, self._pending = self._pending, frozenset()
            if tables and not self._stop.is_set():
                self._stop.wait(self._tell(tables))

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()
        self._wake.set()

    def _tell(self, tables: frozenset[TableName]) -> float:
        """Tell, and say how long to wait before the next notice."""
        try:
            caches = self._proxy.invalidate(sorted(map(str, tables)))
        except ProxyUnreachableError as error:
            if str(error) != self._fault:
                structlog.get_logger().warning(
                    "the proxy's caches cannot be told of changes", reason=str(error)
                )
            self._fault = str(error)
            self.changed(tables)
            return _RETRY
        if self._fault:
            structlog.get_logger().info("the proxy's caches are told of changes again")
        self._fault = ""
        self.told += 1
        return PACE if caches else IDLE_PACE


@contextmanager
def cache_notices(proxy: ProxyAdmin) -> Iterator[Changed]:
    """What to call with the tables that changed, while the block runs."""
    notices = CacheNotices(proxy)
    thread = threading.Thread(target=notices.run, name="cache notices", daemon=True)
    thread.start()
    try:
        yield notices.changed
    finally:
        notices.stop()
        thread.join(5.0)

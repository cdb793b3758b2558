"""Compare one stretch of one table in two open snapshots: totals, then buckets, then rows, then columns.

Each step looks only where the step before found something unequal, so that equal tables cost one pass over both
sides and one altered row costs one stretch more. Memory: one row for each bucket, the keys and hashes of at most
64 buckets of about 1,000 rows.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingOf
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import psycopg

from cdc import compare_sql
from cdc.compare_sql import Key, Side, Stretch

_ROWS_A_BUCKET = 1_000
_MAX_BUCKETS = 65_536
_BUCKETS_AT_ONCE = 64

RowKey = tuple[str | None, ...]
Pair = tuple[Side, Side]


class Kind(StrEnum):
    """What is wrong with a row of the target."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Difference:
    """One wrong value: `column` of the target row `key`, as text on both sides (None is NULL).

    For a missing or extra row `column` is empty and both values are None.
    """

    key: MappingOf[str, str | None]
    kind: Kind
    column: str = ""
    source: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Rows of a stretch on both sides. `unequal`: the buckets that differ, of `buckets`; when the stretch was not
    split (`buckets` 0), whether it differs stands in `equal` alone.
    """

    source_rows: int
    target_rows: int
    equal: bool
    buckets: int = 0
    unequal: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WrongKey:
    """A key, and how many of its rows only one side has, told apart by their hash."""

    key: RowKey
    missing: int
    extra: int

    @property
    def changed(self) -> bool:
        """One row that differs, rather than rows without counterpart."""
        return self.missing == self.extra == 1

    @property
    def rows(self) -> int:
        """Rows that are wrong."""
        return max(self.missing, self.extra)


@dataclass(frozen=True, slots=True)
class Look:
    """What a closer look at a stretch found: the keys that are `wrong` in the buckets `wanted` (of `buckets`).

    `unseen`: unequal buckets that were not opened, for there were enough wrong rows already; each holds at least
    one more. `looks`: how often the stretch was looked at for these keys.
    """

    stretch: Stretch
    buckets: int
    wanted: tuple[int, ...] = ()
    wrong: tuple[WrongKey, ...] = ()
    unseen: tuple[int, ...] = ()
    looks: int = 1

    @property
    def empty(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong and not self.unseen


class ChunkComparison:
    """Asks both sides at the same time. `source` and `target` stand in their snapshots."""

    def __init__(
        self,
        source: psycopg.Connection[Any],
        target: psycopg.Connection[Any],
        threads: ThreadPoolExecutor,
    ) -> None:
        """`threads` has room for two."""
        self._source = source
        self._target = target
        self._threads = threads

    def edge(self, pair: Pair, after: Key | None, rows: int) -> Key | None:
        """The source's key number `rows` behind `after`; None when fewer are left."""
        row = self._source.execute(compare_sql.edge(pair[0], after, rows).encode()).fetchone()
        return tuple(row[0]) if row else None

    def totals(self, pair: Pair, stretch: Stretch) -> Totals:
        """Whether the rows of `stretch` are the same."""
        ours, theirs = self._both(*(compare_sql.total(side, stretch) for side in pair))
        return Totals(ours[0][0], theirs[0][0], equal=ours == theirs)

    def sums(self, pair: Pair, stretch: Stretch, rows: int) -> Totals:
        """As `totals`, by buckets fit for about `rows` rows."""
        return self._sums(pair, stretch, bucket_count(rows))

    def _sums(self, pair: Pair, stretch: Stretch, buckets: int) -> Totals:
        ours, theirs = self._both(*(compare_sql.sums(side, stretch, buckets) for side in pair))
        source = {bucket: (count, total) for bucket, count, total in ours}
        target = {bucket: (count, total) for bucket, count, total in theirs}
        unequal = sorted(
            bucket for bucket in source.keys() | target.keys() if source.get(bucket) != target.get(bucket)
        )
        return Totals(
            sum(count for count, _ in source.values()),
            sum(count for count, _ in target.values()),
            not unequal,
            buckets,
            tuple(unequal),
        )

    def closer(self, pair: Pair, stretch: Stretch, totals: Totals, *, enough: int) -> Look:
        """The wrong keys of a stretch that is unequal; about `enough` of them, at least one bucket's."""
        if not totals.buckets:
            totals = self.sums(pair, stretch, max(totals.source_rows, totals.target_rows))
        unequal = totals.unequal
        at_once = min(_BUCKETS_AT_ONCE, max(1, enough))
        wrong: list[WrongKey] = []
        seen = 0
        while seen < len(unequal) and (not seen or sum(each.rows for each in wrong) < enough):
            wanted = unequal[seen : seen + at_once]
            seen += len(wanted)
            wrong += self._wrong(pair, stretch, totals.buckets, wanted)
        return Look(stretch, totals.buckets, unequal[:seen], tuple(wrong), unequal[seen:])

    def again(self, pair: Pair, look: Look) -> Look:
        """The same buckets of the same stretch, in the snapshots that are open now."""
        wrong: list[WrongKey] = []
        for start in range(0, len(look.wanted), _BUCKETS_AT_ONCE):
            wanted = look.wanted[start : start + _BUCKETS_AT_ONCE]
            wrong += self._wrong(pair, look.stretch, look.buckets, wanted)
        unseen: tuple[int, ...] = ()
        if look.unseen:
            still = set(self._sums(pair, look.stretch, look.buckets).unequal)
            unseen = tuple(bucket for bucket in look.unseen if bucket in still)
        return replace(look, wrong=tuple(wrong), unseen=unseen, looks=look.looks + 1)

    def _wrong(self, pair: Pair, stretch: Stretch, buckets: int, wanted: Sequence[int]) -> list[WrongKey]:
        ours, theirs = self._both(*(compare_sql.hashes(side, stretch, buckets, wanted) for side in pair))
        return wrong_keys(ours, theirs)

    def explain(self, pair: Pair, look: Look, wrong: Sequence[WrongKey]) -> Iterator[Difference]:
        """`wrong`, keys of `look`, column by column."""
        names = pair[0]
        changed = [each.key for each in wrong if each.changed and None not in each.key]
        source_rows: dict[RowKey, Any] = {}
        target_rows: dict[RowKey, Any] = {}
        if changed:
            ours, theirs = self._both(
                *(
                    compare_sql.values(side, look.stretch, look.buckets, look.wanted, keys=changed)
                    for side in pair
                )
            )
            source_rows = {tuple(key): row for key, row in ours}
            target_rows = {tuple(key): row for key, row in theirs}
        for each in wrong:
            named = dict(zip(names.key, each.key, strict=True))
            if each.key in source_rows:
                both = zip(names.columns, source_rows[each.key], target_rows[each.key], strict=True)
                for column, want, have in both:
                    if want != have:
                        yield Difference(named, Kind.DIFFERENT, column, want, have)
                continue
            if each.missing:
                yield Difference(named, Kind.MISSING)
            if each.extra:
                yield Difference(named, Kind.EXTRA)

    def _both(self, source_query: str, target_query: str) -> tuple[list[Any], list[Any]]:
        # the two servers work at the same time; their results are small
        first = self._threads.submit(lambda: self._source.execute(source_query.encode()).fetchall())
        second = self._threads.submit(lambda: self._target.execute(target_query.encode()).fetchall())
        return first.result(), second.result()


def wrong_keys(
    ours: Sequence[tuple[Sequence[str | None], int]], theirs: Sequence[tuple[Sequence[str | None], int]]
) -> list[WrongKey]:
    """The keys whose rows (key, hash) are not the same on both sides, in order. Pure."""
    # counted, not looked up: where a key is NULL or lost its unique index, several rows may share it
    source = Counter((tuple(key), hashed) for key, hashed in ours)
    target = Counter((tuple(key), hashed) for key, hashed in theirs)
    missing = Counter(key for key, _ in (source - target).elements())
    extra = Counter(key for key, _ in (target - source).elements())
    keys = sorted(missing.keys() | extra.keys(), key=lambda key: [(part is None, part or "") for part in key])
    return [WrongKey(key, missing[key], extra[key]) for key in keys]


def bucket_count(rows: int) -> int:
    """How many buckets for `rows` rows: a power of two."""
    wanted = max(1, min(_MAX_BUCKETS, rows // _ROWS_A_BUCKET))
    return 1 << (wanted - 1).bit_length()

"""One partition's way into the target: records in offset order, each change once, the offset stored with the rows.

    take: record ─► decode ─► `order.Repeats` ─► pieces that wait          step: pieces ─► sink, offset behind them

A lane never blocks for another one: what the target refuses for a while is set aside with its key, and tried again
(`patience`).
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
from kafka.consumer.fetcher import ConsumerRecord

from cdc.announce import Announce
from cdc.changes import Lsn, Operation
from cdc.decode.debezium import Record
from cdc.decode.debezium_values import DebeziumError
from cdc.meter import Meter
from cdc.release import retry_partition
from cdc.seams import BEGIN_ANEW, StreamError
from cdc.sharded.claim import partition_stream
from cdc.sharded.missing import SourceRows, has_holes
from cdc.sharded.order import Piece, Repeats, as_transactions
from cdc.sharded.patience import PATIENCE, BackOff, may_resolve, passing
from cdc.sinks.parking import parkable
from cdc.sinks.plans import ApplyError, RowMissingError
from cdc.sinks.postgres import PostgresSink

LOOK_BACK = (
    400  # records that are read again to learn the last place; an END lies in each partition now and then
)
_STORE_EVERY = 0.25  # seconds between stored offsets while nothing of ours goes by

Decode = Callable[[ConsumerRecord], Record]


class Lane:
    """Applies partition `partition` of `topic` through `sink`, whose stored position it goes on from."""

    def __init__(
        self,
        sink: PostgresSink,
        *,
        stream: str,
        topic: str,
        partition: int,
        decode: Decode,
        rows: SourceRows,
        meter: Meter,
        max_batch: int,
        parks: bool,
        replayer: Callable[[], PostgresSink],
        announce: Announce | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """`parks`: what is refused for good is parked, else it stops the stream. `replayer` makes a sink of the same
        name that applies what was set aside again.
        """
        position = sink.position()
        if position is None:
            raise StreamError(f"the target holds no offset of partition {partition} of {topic}; {BEGIN_ANEW}")
        self.partition = partition
        self.stored = int(position)
        self.sink = sink
        self._stream = stream
        self._topic = topic
        self._decode = decode
        self._rows = rows
        self._meter = meter
        self._max_batch = max_batch
        self._announce = announce
        self._patience = patience
        self._repeats = Repeats()
        self._pieces: deque[Piece] = deque()
        self._read = max(0, self.stored - LOOK_BACK)
        self._stored_at = 0.0
        self._in_the_way = BackOff()
        self._not_before = 0.0
        self._parks = parks
        self._replayer = replayer
        self._replay: PostgresSink | None = None
        self._aside: dict[int, float] = {}  # since when (monotonic) what is parked under this number has been
        self._retries = BackOff()
        self._retry_at = 0.0
        sink.park_only(_row_by_row if parks else may_resolve)
        self._waits = sink.waiting()

    @property
    def waiting(self) -> int:
        """Changes that are read and not stored."""
        return len(self._pieces)

    @property
    def begins_at(self) -> int:
        """The offset to read from: somewhat before what is stored."""
        return self._read

    def ready(self, now: float) -> bool:
        """Whether `step` has changes to write."""
        return bool(self._pieces) and now >= self._not_before

    def take(self, messages: Sequence[ConsumerRecord]) -> None:
        """The next records. Raises StreamError for what cannot be applied in partitions."""
        for message in messages:
            if message.offset < self._read:
                continue  # of a fetch from before the seek
            applied = message.offset < self.stored
            try:
                record = self._decode(message)
            except DebeziumError as error:
                raise StreamError(f"{self._where(message.offset)}: {error}; {BEGIN_ANEW}") from error
            self._read = message.offset + 1
            if self._repeats.known(record) or applied or record.change is None:
                continue
            if record.change.operation is Operation.TRUNCATE:
                raise StreamError(
                    f"{self._where(message.offset)}: TRUNCATE of table {record.change.relation.table} cannot be put in "
                    "order with the changes of its rows in other partitions; use DELETE on the source, or "
                    f"`partitions: 1`; now {BEGIN_ANEW}"
                )
            self._pieces.append(
                Piece(
                    message.offset + 1,
                    record.xid,
                    record.after,
                    record.position,
                    record.commit_time,
                    record.change,
                )
            )

    def step(self, now: float, *, upto: Lsn | None = None) -> bool:
        """Write what waits, at most a batch; or that nothing of ours went by. Returns whether anything was written.
        Changes from the first one on that committed after `upto` stay. Raises ApplyError, psycopg.OperationalError.
        """
        if now < self._not_before:
            return False
        batch = self._batch(upto)
        if not batch:
            if not self._pieces and self._read > self.stored and now - self._stored_at >= _STORE_EVERY:
                self.sink.advance(Lsn(self._read))
                self.stored, self._stored_at = self._read, now
            return False
        batch = self._completed(batch)
        if batch:
            self._write(batch, now)
        return True

    def retry(self, now: float) -> None:
        """Try again what was set aside, when it is time. Raises StreamError when it is refused for good and the plan
        does not park.
        """
        if not self._waits or now < self._retry_at:
            return
        if self._replay is None:
            self._replay = self._replayer()
        outcomes = retry_partition(self._replay, stream=partition_stream(self._stream, self.partition))
        refused = [each for each in outcomes if each.error]
        self._aside = {each.lot.numbers[0]: self._aside.get(each.lot.numbers[0], now) for each in refused}
        late = [each for each in refused if now - self._aside[each.lot.numbers[0]] >= self._patience]
        if late and not self._parks:
            raise StreamError(
                f"partition {self.partition}, {late[0].lot.addresses[0]}: {late[0].error}; it has been tried for "
                f"{self._patience:g} s and no other partition has released what it needs; repair the target, then "
                "start the stream again"
            )
        self._retries = self._retries.failed() if len(refused) == len(outcomes) else BackOff()
        self._retry_at = self._retries.again_at(now)
        self._waits = self.sink.waiting()

    def beyond(self, position: Lsn) -> bool:
        """Whether the change in front committed after `position` on the source."""
        return bool(self._pieces) and _later(self._pieces[0], position)

    @property
    def empty(self) -> bool:
        """Whether everything that was read is stored, and nothing is only set aside for a while."""
        now = time.monotonic()
        young = any(now - since < self._patience for since in self._aside.values())
        return (
            not self._pieces
            and self._read <= self.stored
            and not (self._waits and (young or not self._aside))
        )

    def close(self) -> None:
        """Forget what is not stored and let the partition go."""
        if self._replay is not None:
            self._replay.close()
        self.sink.close()

    def _batch(self, upto: Lsn | None) -> list[Piece]:
        found: list[Piece] = []
        for piece in self._pieces:
            if len(found) >= self._max_batch or (upto is not None and _later(piece, upto)):
                break
            found.append(piece)
        return found

    def _completed(self, batch: list[Piece]) -> list[Piece]:
        """The pieces, those that moved a row to another key with all their values."""
        found: list[Piece] = []
        for piece in batch:
            if piece.change.operation is Operation.INSERT and has_holes(piece.change):
                whole = self._rows.complete(piece.change)
                if whole is None:
                    continue
                found.append(replace(piece, change=whole))
            else:
                found.append(piece)
        if not found:
            self._drop_to(batch[-1].end, advance=True)
        return found

    def _write(self, batch: list[Piece], now: float) -> None:
        transactions = as_transactions(batch)
        try:
            self.sink.apply(transactions)
        except ApplyError as error:
            self._drop_to(int(self._position()))
            if not isinstance(error.__cause__, RowMissingError):
                raise
            self._patch_front(error)
            return
        except psycopg.OperationalError as error:
            if not passing(error.sqlstate):
                raise
            self._drop_to(int(self._position()))
            self._in_the_way = self._in_the_way.failed()
            self._not_before = self._in_the_way.again_at(now)
            return
        self._in_the_way = BackOff()
        self._meter.applied(transactions, datetime.now(UTC), of_partition=True)
        self._drop_to(batch[-1].end)
        self._stored_at = now
        self._waits = self.sink.waiting()
        if self._announce is not None:
            self._announce(frozenset(piece.change.relation.table for piece in batch))

    def _patch_front(self, error: ApplyError) -> None:
        """The row of an update in part is not there: its insertion found nothing on the source, as `missing` says. Ask
        for the first such change that waits: it is written whole, or left out as well.
        """
        found: deque[Piece] = deque()
        asked = False
        for piece in self._pieces:
            if has_holes(piece.change) and piece.change.before is None and not asked:
                asked = True
                whole = self._rows.complete(piece.change)
                if whole is not None:
                    found.append(replace(piece, change=whole))
                continue
            found.append(piece)
        if not asked:
            raise error
        self._pieces = found

    def _position(self) -> Lsn:
        position = self.sink.position()
        assert position is not None, "it was there when the lane began"
        return position

    def _drop_to(self, end: int, *, advance: bool = False) -> None:
        if advance:
            self.sink.advance(Lsn(end))
        self.stored = max(self.stored, end)
        while self._pieces and self._pieces[0].end <= end:
            self._pieces.popleft()

    def _where(self, offset: int) -> str:
        return f"topic {self._topic}, partition {self.partition}, record {offset}"


def _later(piece: Piece, position: Lsn) -> bool:
    return piece.lsn >= position or (piece.after is not None and piece.after >= position)


def _row_by_row(sqlstate: str | None) -> bool:
    # without a SQLSTATE the row is incomplete, which the source can mend
    return bool(sqlstate) and parkable(sqlstate)

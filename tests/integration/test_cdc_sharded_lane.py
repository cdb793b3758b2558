"""One partition's way into a real target, record by record: what another partition has to release first, and what
becomes of it when that never happens.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from cdc import schema
from cdc.changes import Change, Lsn, Operation
from cdc.decode.debezium import Kind, Record
from cdc.mapping import Mapping, parse_mapping
from cdc.meter import Meter
from cdc.release import read_parked
from cdc.seams import StreamError
from cdc.sharded.claim import partition_stream
from cdc.sharded.lane import Lane
from cdc.sharded.missing import SourceRows
from cdc.sinks.postgres import PostgresSink
from chassis.yamlfile import parse
from tests.cdc_histories import MOMENT, RELATIONS
from tests.cdc_shop import admin

STOCK = RELATIONS[1]
PATIENCE = 5.0  # seconds, of a clock that the tests move
MAPPING = "tables: {stock: {target: copy_stock, key: {id: id}, columns: {id: id, name: name, body: body}}}"


class Partitions:
    """Lanes on one target, whose table takes each name once."""

    def __init__(self, dsn: str, connection: psycopg.Connection[Any], mapping: Mapping) -> None:
        self._dsn = dsn
        self._stream = f"lanes_{secrets.token_hex(4)}"
        self._connection = connection
        self._mapping = mapping
        self._records: dict[int, list[Record]] = {0: [], 1: []}  # by offset

    def open(self, partition: int, *, parks: bool = False) -> Lane:
        """A lane that goes on where its partition stands."""
        name = partition_stream(self._stream, partition)
        self._connection.execute(
            "INSERT INTO strangler_cdc.position (stream, lsn, snapshot_lsn) VALUES (%s, '0/0', '0/0')"
            " ON CONFLICT DO NOTHING",
            [name],
        )
        return Lane(
            PostgresSink(self._dsn, stream=name, mapping=self._mapping, max_parked=100),
            stream=self._stream,
            topic="shop",
            partition=partition,
            decode=lambda message: self._records[partition][message.offset],
            rows=SourceRows(self._dsn, stream=self._stream, keys={}),
            meter=Meter(),
            max_batch=100,
            parks=parks,
            replayer=lambda: PostgresSink(self._dsn, stream=name, mapping=self._mapping, applier=False),
            patience=PATIENCE,
        )

    def feed(self, lane: Lane, *changes: Change, now: float = 0.0) -> None:
        """Records of `changes`, each a transaction of its own, written as far as the target takes them."""
        for change in changes:
            offset = len(self._records[lane.partition])
            place = Lsn(1_000 + 10 * offset)
            self._records[lane.partition].append(
                Record(
                    Kind.CHANGE,
                    xid=offset + 1,
                    order=1,
                    position=place,
                    commit_time=MOMENT,
                    after=place,
                    change=change,
                )
            )
            lane.take([SimpleNamespace(offset=offset)])  # type: ignore[list-item]  # a lane reads nothing else of it
        lane.step(now)

    def rows(self) -> dict[int, str]:
        """Names by id."""
        return dict(self._connection.execute("SELECT id, name FROM copy_stock").fetchall())

    def parked(self, partition: int) -> list[str]:
        """What waits of a partition."""
        lots = read_parked(self._dsn, stream=partition_stream(self._stream, partition))
        return [address for lot in lots for address in lot.addresses]


@pytest.fixture
def partitions(database: str) -> Iterator[Partitions]:
    data, places = parse(MAPPING, "plan.yaml")
    with admin(database) as connection:
        connection.execute("CREATE TABLE copy_stock (id bigint PRIMARY KEY, name text UNIQUE, body text)")
        schema.create(connection)
        yield Partitions(database, connection, parse_mapping(data["tables"], places))


@contextmanager
def opened(*lanes: Lane) -> Iterator[None]:
    with ExitStack() as stack:
        for lane in lanes:
            stack.callback(lane.close)
        yield


def put(number: int, name: str) -> Change:
    return Change(Operation.INSERT, STOCK, None, (b"%d" % number, name.encode(), None))


def rename(number: int, name: str) -> Change:
    return Change(Operation.UPDATE, STOCK, None, (b"%d" % number, name.encode(), None))


def test_a_name_that_another_partition_has_to_release_is_waited_for(partitions: Partitions) -> None:
    ahead, behind = partitions.open(0), partitions.open(1)
    with opened(ahead, behind):
        partitions.feed(behind, put(9, "x"))
        partitions.feed(ahead, put(1, "x"), put(2, "y"), now=1.0)
        assert partitions.rows() == {9: "x", 2: "y"}, "what is not refused goes on"
        assert partitions.parked(0) == ["stock/1"]
        assert ahead.stored == 2
        ahead.retry(2.0)
        assert partitions.rows() == {9: "x", 2: "y"}
        partitions.feed(behind, rename(9, "z"), now=3.0)
        ahead.retry(4.0)
        assert partitions.rows() == {9: "z", 2: "y", 1: "x"}
        assert partitions.parked(0) == []


def test_what_nobody_releases_ends_the_stream_in_time_and_is_not_lost(partitions: Partitions) -> None:
    first, other = partitions.open(0), partitions.open(1)
    with opened(first, other):
        partitions.feed(other, put(9, "x"))
        partitions.feed(first, put(1, "x"))
        first.retry(10.0)
        first.retry(10.0 + PATIENCE - 0.1)
        with pytest.raises(
            StreamError, match=r"partition 0, stock/1: .*duplicate key.*tried for 5 s.*repair the target"
        ):
            first.retry(10.0 + PATIENCE + 1.0)
    # a person repairs it, and the stream begins again
    again, other = partitions.open(0), partitions.open(1)
    with opened(again, other):
        partitions.feed(other, rename(9, "z"))
        again.retry(100.0)
        assert partitions.rows() == {9: "z", 1: "x"}
        assert partitions.parked(0) == []


@pytest.mark.parametrize("released", [True, False])
def test_where_the_plan_parks_the_stream_goes_on_without_it(
    partitions: Partitions, *, released: bool
) -> None:
    lane, other = partitions.open(0, parks=True), partitions.open(1, parks=True)
    with opened(lane, other):
        partitions.feed(other, put(9, "x"))
        partitions.feed(lane, put(1, "x"))
        lane.retry(0.0)
        lane.retry(10 * PATIENCE)
        assert partitions.parked(0) == ["stock/1"]
        partitions.feed(lane, put(2, "y"), rename(1, "w") if released else rename(2, "v"), now=10 * PATIENCE)
        lane.retry(20 * PATIENCE)
        assert partitions.parked(0) == ([] if released else ["stock/1"])
        assert partitions.rows() == ({9: "x", 2: "y", 1: "w"} if released else {9: "x", 2: "v"})

"""Whatever Connect repeats, and whatever it says of the first transaction then, no new record is left out and each key
ends with its last version; where transactions do not overlap, no version is applied twice either.
"""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cdc.changes import Lsn
from cdc.decode.debezium import Kind, Record
from cdc.sharded.order import Repeats

KEYS = 3


@dataclass(frozen=True)
class Write:
    """One record as the connector wrote it: `serial` is its place in the source's order."""

    record: Record
    key: int = 0
    serial: int = 0


@st.composite
def transactions(draw: st.DrawFn, *, overlap: bool) -> list[list[Write]]:
    """Transactions in commit order, each with its END where it lies in our partition."""
    made: list[list[Write]] = []
    lsn, serial, after, early = 1_000, 0, Lsn(900), 0
    for xid in range(10, 10 + draw(st.integers(1, 8))):
        begun = lsn  # rows of a transaction that overlaps were written before the commit in front of it
        if overlap and made and draw(st.booleans()):
            begun = early
        writes: list[Write] = []
        for number in range(1, draw(st.integers(0, 4)) + 1):
            serial += 1
            begun += 1
            position = Lsn(begun if begun < lsn else (lsn := lsn + 10))
            key = draw(st.integers(0, KEYS - 1))
            if draw(st.integers(0, 3)):  # the others lie in another partition
                writes.append(
                    Write(
                        Record(Kind.CHANGE, xid=xid, order=number, position=position, after=after),
                        key,
                        serial,
                    )
                )
        early = int(after) + 1
        lsn += 10
        if draw(st.booleans()):
            writes.append(Write(Record(Kind.END, xid=xid, position=Lsn(lsn))))
        after = Lsn(lsn)
        made.append(writes)
    return made


@st.composite
def topics(draw: st.DrawFn, *, overlap: bool, lies: bool) -> list[Write]:
    """What lies in the partition: runs of the connector, each from a transaction that the one before has reached. What
    that one repeated and did not come to is not skipped: its offset is what Connect keeps.
    """
    source = draw(transactions(overlap=overlap))
    topic: list[Write] = []
    reached = 0
    for _ in range(draw(st.integers(0, 3))):
        first = draw(st.integers(0, reached))
        last = draw(st.integers(first, len(source)))
        topic += _run(draw, source, first, last, lies=lies)
        reached = last
    return topic + _run(draw, source, draw(st.integers(0, reached)), len(source), lies=lies)


def _run(draw: st.DrawFn, source: list[list[Write]], first: int, last: int, *, lies: bool) -> list[Write]:
    run: list[Write] = []
    for place in range(first, last):
        writes = source[place]
        if place == first and lies:
            said = draw(st.sampled_from(["true", "unknown", "the log's end"]))
            writes = [_with_after(write, said) for write in writes]
        run += writes
    # cut off anywhere: what follows comes with the next run
    return run


def _with_after(write: Write, said: str) -> Write:
    record = write.record
    if record.kind is Kind.END or said == "true":
        return write
    after = None if said == "unknown" else Lsn(1_000_000)
    changed = Record(record.kind, xid=record.xid, order=record.order, position=record.position, after=after)
    return Write(changed, write.key, write.serial)


def applied(topic: list[Write]) -> list[Write]:
    """What is not left out."""
    repeats = Repeats()
    return [write for write in topic if not repeats.known(write.record)]


@given(topics(overlap=True, lies=True))
def test_nothing_new_is_left_out_and_every_key_ends_with_its_last_version(topic: list[Write]) -> None:
    found = applied(topic)
    changes = [write for write in topic if write.record.kind is Kind.CHANGE]
    assert {write.serial for write in found} == {write.serial for write in changes}
    for key in range(KEYS):
        versions = [write.serial for write in changes if write.key == key]
        ends = [write.serial for write in found if write.key == key]
        assert ends[-1:] == ([max(versions)] if versions else [])


@given(topics(overlap=False, lies=False))
def test_what_does_not_overlap_is_applied_once_and_in_order(topic: list[Write]) -> None:
    found = [write.serial for write in applied(topic)]
    assert found == sorted(set(found))

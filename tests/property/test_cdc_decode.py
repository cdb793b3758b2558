"""decode(encode(message)) is the message; anything else is refused, never half understood."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.changes import UNCHANGED, Identity, Lsn
from cdc.copytext import encode_row, encode_rows
from cdc.decode.pgoutput import (
    EPOCH,
    Begin,
    Commit,
    DecodeError,
    Delete,
    Emitted,
    Insert,
    Message,
    Origin,
    RelationMessage,
    Truncate,
    TypeName,
    Update,
    WireColumn,
    decode,
)
from cdc.decode.pgoutput_encoder import encode
from cdc.decode.transactions import Assembler

oids = st.integers(0, 2**32 - 1)
positions = st.integers(0, 2**64 - 1).map(Lsn)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
moments = st.datetimes(min_value=datetime(1999, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  (Hypothesis wants naive bounds)
rows = st.lists(st.one_of(st.none(), st.just(UNCHANGED), st.binary(max_size=30)), max_size=8).map(tuple)
columns = st.builds(WireColumn, st.booleans(), names, oids, st.integers(-1, 2**31 - 1))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin, positions, moments, oids),
    st.builds(Commit, positions, positions, moments),
    st.builds(Origin, positions, names),
    st.builds(TypeName, oids, names, names),
    st.builds(
        RelationMessage,
        oids,
        names.filter(bool),
        names,
        st.sampled_from(Identity),
        st.lists(columns, max_size=5).map(tuple),
    ),
    st.builds(Insert, oids, rows),
    st.builds(Update, oids, rows),
    st.builds(Update, oids, rows, rows, st.booleans()),
    st.builds(Delete, oids, rows, st.booleans()),
    st.builds(Truncate, st.lists(oids, max_size=4).map(tuple), st.booleans(), st.booleans()),
    st.builds(Emitted, st.booleans(), positions, names, st.binary(max_size=30)),
)


@given(messages)
@settings(deadline=None)
def test_decode_undoes_encode(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages, st.data())
@settings(deadline=None)
def test_a_cut_message_is_refused(message: Message, data: st.DataObject) -> None:
    payload = encode(message)
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(DecodeError):
        decode(payload[:cut])


@given(messages, st.binary(min_size=1, max_size=5))
@settings(deadline=None)
def test_a_message_with_a_tail_is_refused(message: Message, tail: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(encode(message) + tail)


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_noise_is_decoded_or_refused_but_never_breaks(payload: bytes) -> None:
    with suppress(DecodeError):
        assert encode(decode(payload))


@given(positions, positions)
@settings(deadline=None)
def test_positions_sort_as_the_log_does(a: Lsn, b: Lsn) -> None:
    assert (a < b) == (int(a) < int(b))
    assert Lsn.parse(str(a)) == a


@given(st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_copy_line_can_be_read_back(row: list[bytes | None]) -> None:
    line = encode_row(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    undo = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"\\": b"\\"}

    def value(field: bytes) -> bytes | None:
        if field == rb"\N":
            return None
        out = bytearray()
        at = 0
        while at < len(field):
            if field[at : at + 1] == b"\\":
                out += undo[field[at + 1 : at + 2]]
                at += 2
            else:
                out += field[at : at + 1]
                at += 1
        return bytes(out)

    assert [value(field) for field in line[:-1].split(b"\t")] == row


def test_a_key_too_large_for_its_row_is_taken_from_the_old_row() -> None:
    assembler = Assembler()
    columns = (WireColumn(True, "id", 25, -1), WireColumn(False, "body", 25, -1))
    assembler.feed(RelationMessage(7, "public", "page", Identity.DEFAULT, columns))
    assembler.feed(Begin(Lsn(5), EPOCH, 1))
    assembler.feed(Update(7, (UNCHANGED, UNCHANGED), (b"long", None)))
    transaction = assembler.feed(Commit(Lsn(5), Lsn(9), EPOCH))
    assert transaction is not None
    assert transaction.changes[0].after == (b"long", UNCHANGED)


@given(
    st.lists(st.one_of(messages, st.builds(Update, st.just(7), rows)), max_size=12),
    st.integers(1, 4),
    st.data(),
)
@settings(deadline=None)
def test_the_short_way_for_rows_means_what_the_long_way_means(
    sent: list[Message], piece: int, data: st.DataObject
) -> None:
    """Bytes fed at once, and message by message: the same transactions, or refused alike."""
    relation = RelationMessage(
        7,
        "public",
        "page",
        Identity.DEFAULT,
        (WireColumn(True, "id", 25, -1), WireColumn(False, "b", 25, -1)),
    )
    inside = data.draw(st.booleans())
    begin = [Begin(Lsn(5), EPOCH, 1)] if inside else []
    short, long = Assembler(piece_changes=piece), Assembler(piece_changes=piece)
    for message in [relation, *begin, *sent, Commit(Lsn(5), Lsn(9), EPOCH)]:
        payload = encode(message)
        results = []
        for feed in (
            lambda: short.feed_bytes(b"header" + payload, 6),  # noqa: B023  (called in this turn)
            lambda: long.feed(decode(payload), size=6 + len(payload)),  # noqa: B023
        ):
            try:
                results.append((feed(), short.within_transaction))
            except DecodeError:
                results.append(("refused", None))
            except (ValueError, AssertionError) as error:
                results.append((type(error).__name__, None))
        assert results[0] == results[1]
        assert short.within_transaction == long.within_transaction


@given(st.lists(st.lists(st.one_of(st.none(), st.binary(max_size=8)), min_size=2, max_size=2), max_size=120))
@settings(deadline=None)
def test_many_rows_together_are_encoded_as_one_by_one(many: list[list[bytes | None]]) -> None:
    assert encode_rows(many) == b"".join(map(encode_row, many))

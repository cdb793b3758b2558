"""Rows of raw text values as the text format of COPY. Pure.

The values are PostgreSQL's own text output, so most rows need no escaping at all: many rows are joined first and
looked at once. Only when they hold one of the four special bytes, or a NULL, they are looked at one by one, and
only a row that has one is escaped value by value.
"""

from collections.abc import Iterable, Sequence

_TOGETHER = 50  # rows; one with a special byte costs the others a second look


def encode_rows(rows: Iterable[Sequence[bytes | None]]) -> bytes:
    """One line a row; NULL is `\\N`."""
    rows = list(rows)
    return b"".join(
        [_encode_some(rows[start : start + _TOGETHER]) for start in range(0, len(rows), _TOGETHER)]
    )


def _encode_some(rows: list[Sequence[bytes | None]]) -> bytes:
    try:
        lines = b"\n".join([b"\t".join(row) for row in rows])  # type: ignore[arg-type]  # None raises TypeError
    except TypeError:
        return b"".join([encode_row(row) for row in rows])
    if (
        b"\\" in lines
        or b"\r" in lines
        or lines.count(b"\n") != len(rows) - 1
        or lines.count(b"\t") != sum(map(len, rows)) - len(rows)
    ):
        return b"".join([encode_row(row) for row in rows])
    return lines + b"\n"


def encode_row(row: Sequence[bytes | None]) -> bytes:
    """One line, with its end."""
    try:
        line = b"\t".join(row)  # type: ignore[arg-type]  # a None raises TypeError, which is the question asked
    except TypeError:
        return b"\t".join([rb"\N" if value is None else _escape(value) for value in row]) + b"\n"
    if b"\\" in line or b"\n" in line or b"\r" in line or line.count(b"\t") != len(row) - 1:
        return b"\t".join([_escape(value) for value in row if value is not None]) + b"\n"
    return line + b"\n"


def _escape(value: bytes) -> bytes:
    if b"\\" in value:
        value = value.replace(b"\\", b"\\\\")
    return value.replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")

"""Which identifiers are taken from a request, and which are not."""

import pytest

from chassis.correlation import request_id, trace_id

_TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("given", ["a", "r-1", "x" * 128, "~!@#"])
def test_a_sane_request_id_is_kept(given: str) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "ü", "a\n", "\x7f"])
def test_any_other_is_replaced(given: str | None) -> None:
    made = request_id(given)
    assert made != given
    assert len(made) == 32
    assert made != request_id(given)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{_TRACE}-b7ad6b7169203331-01", _TRACE),
        (f"01-{_TRACE}-b7ad6b7169203331-01-later", _TRACE),
        (f"ff-{_TRACE}-b7ad6b7169203331-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{_TRACE}-{'0' * 16}-01", None),
        (f"00-{_TRACE.upper()}-b7ad6b7169203331-01", None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_trace_ids(header: str | None, expected: str | None) -> None:
    assert trace_id(header) == expected

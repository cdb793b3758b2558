"""The kept corpus of the fuzzer, and mutations of it drawn anew each time, through the laws of `wire.py`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.wire import Wire, check
from tests.integration.test_proxy_differential import CASES

CORPUS = sorted(path for path in (Path(__file__).parent / "corpus").iterdir() if path.is_file())
SEEDS = [*CASES.values(), *(path.read_bytes() for path in CORPUS)]


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def test_there_is_a_corpus() -> None:
    assert len(CORPUS) >= 50


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(wire: Wire, path: Path) -> None:
    check(wire, path.read_bytes())


@pytest.mark.parametrize("name", CASES)
def test_differential_cases(wire: Wire, name: str) -> None:
    if len(CASES[name]) < 20_000:  # byte by byte
        check(wire, CASES[name])


SMALL = st.sampled_from([seed for seed in SEEDS if len(seed) < 2_000])
PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"0", b"chunked", b"Content-Length: 3\r\n",
     b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive, x-a\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"Host: b\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(seed=SMALL, other=SMALL, places=st.lists(st.tuples(st.integers(0, 2_000), PIECES), max_size=4))
def test_mutations(wire: Wire, seed: bytes, other: bytes, places: list[tuple[int, bytes]]) -> None:
    data = seed + other
    for place, piece in places:
        at = place % (len(data) + 1)
        data = data[:at] + piece + data[at:]
    check(wire, data)

"""A fuzzer for what clients send, guided by coverage (atheris, libFuzzer inside).

    python -m tests.fuzz.fuzz_requests -max_total_time=60 tests/fuzz/corpus

What breaks a law of `wire.py` is written as `crash-…`; put it into the corpus with the fix.
"""

import sys

import atheris

with atheris.instrument_imports(include=["strangler_proxy", "tests.fuzz.wire"]):
    from tests.fuzz.wire import Wire, check


def main() -> None:
    """Fuzz until libFuzzer's limits."""
    wire = Wire()

    def one(data: bytes) -> None:
        check(wire, data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""How fast may a comparison go without getting in anybody's way? Pure: measured facts in, a pause out.

Three brakes: the rate a person asked for; a stream that falls behind; a source whose answers to a tiny question
become slow. The last is the idea of TCP Vegas: delay that grows tells of a queue before anything is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_SLOW_MS = 20.0  # an answer quicker than this is never called slow
_SLOW_TIMES = 5.0  # so many times the calm answer is slow
_AT_MOST = 9.0  # pauses are at most so many times the work: one tenth of the speed
_REMEMBERED = 20
_CHUNK_SECONDS = 0.25
_FIRST_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """`rate`: rows a second, both sides looked at together being one row; None is no limit. `max_lag`: seconds the
    stream may be behind before the comparison waits for it. `chunk`: fewest and most rows of a stretch.
    """

    rate: float | None = None
    max_lag: float = 5.0
    chunk: tuple[int, int] = (1_000, 100_000)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait `seconds`; `why` is for people, empty when the rate asks for it."""

    seconds: float
    why: str = ""


def pause_after(limits: Limits, *, rows: int, took: float, answers_ms: Sequence[float] = ()) -> Pause:
    """How long to wait after `rows` were compared in `took` seconds. `answers_ms`: times of the source's answers to
    a tiny question, the latest last.
    """
    owed = rows / limits.rate - took if limits.rate else 0.0
    slow = slowness(answers_ms)
    if slow > 1.0:
        rest = took * min(_AT_MOST, slow)
        if rest > owed:
            return Pause(rest, f"the source answers in {answers_ms[-1]:.0f} ms")
    return Pause(max(0.0, owed))


def slowness(answers_ms: Sequence[float]) -> float:
    """How many times slower than calm the latest answer is, 0 when it is not slow."""
    if len(answers_ms) < 2:
        return 0.0
    calm = median(sorted(answers_ms[:-1])[: max(1, len(answers_ms) // 2)])
    latest = answers_ms[-1]
    if latest < _SLOW_MS or latest < _SLOW_TIMES * calm:
        return 0.0
    return latest / max(calm, 0.1)


def remembered(answers_ms: Sequence[float], answer_ms: float) -> tuple[float, ...]:
    """The answers to keep."""
    return (*answers_ms, answer_ms)[-_REMEMBERED:]


def must_wait(limits: Limits, lag: float | None) -> str:
    """Why the comparison has to wait for the stream, "" when it has not. `lag` in seconds, None: not known."""
    if lag is None or lag <= limits.max_lag:
        return ""
    return f"the stream is {lag:.1f} s behind (at most {limits.max_lag:g} s while comparing)"


def first_chunk(limits: Limits) -> int:
    """Rows of the first stretch."""
    return min(_FIRST_CHUNK, limits.chunk[1])


def next_chunk(limits: Limits, *, rows: int, took: float) -> int:
    """Rows of the next stretch, after one of `rows` took `took` seconds: a quarter of a second's work."""
    least, most = limits.chunk
    if limits.rate:
        most = max(least, min(most, int(limits.rate)))
    # not more than fourfold at once: the next rows may be larger
    wanted = rows * min(4.0, _CHUNK_SECONDS / max(took, 1e-3))
    return int(min(most, max(least, wanted)))

"""Which instance takes a request: facts in, the place of one instance out.

1. Only instances whose breaker lets a request in and that were not tried for it before.
2. Of these, those that are up. When no instance at all is up, all are asked: the checks may be what is broken,
   and a try costs no more than the certain failure (Envoy calls this panic mode).
3. A request that cannot be repeated is no probe: it avoids instances whose breaker is only half closed.
4. An instance that has just joined or come back takes its `share` of the turns.
5. The fewest pending requests win; equals take turns.

Up to EXACT instances all are compared. Beyond that two are drawn and the better one is taken, which keeps the
fullest instance within O(log log n) of the mean (Mitzenmacher, "The Power of Two Choices in Randomized Load
Balancing", 1996). There are no dice: the draw is a mixture of the turn's number.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

EXACT = 8
_MASK = (1 << 64) - 1


class Standing(NamedTuple):
    """One instance at this moment. `pending`: requests it has of this worker, those that wait for a connection
    included; `admits`: its breaker lets a request in; `proven`: its breaker is closed; `share`: of the turns it
    takes, 1 but for a slow start."""

    pending: int
    up: bool = True
    admits: bool = True
    proven: bool = True
    share: float = 1.0


_WHOLLY_FIT = Standing(0)[1:]


def choose(
    standings: Sequence[Standing], *, turn: int, safe: bool, tried: Collection[int] = ()
) -> int | None:
    """The place in `standings` of who takes the request of number `turn`; None when nobody can."""
    count = len(standings)
    if count > EXACT:
        first = mixed(turn) % count
        second = (first + 1 + mixed(turn + 1) % (count - 1)) % count
        pair = [
            place for place in (first, second) if standings[place][1:] == _WHOLLY_FIT and place not in tried
        ]
        if pair:
            return min(pair, key=lambda place: standings[place].pending)
    panic = not any(standing.up for standing in standings)
    able = [
        place
        for place, standing in enumerate(standings)
        if standing.admits and (standing.up or panic) and place not in tried
    ]
    if not safe:
        able = _those(able, lambda place: standings[place].proven)
    able = _those(
        able, lambda place: standings[place].share >= 1 or _fraction(turn, place) < standings[place].share
    )
    if not able:
        return None
    fewest = min(standings[place].pending for place in able)
    equals = [place for place in able if standings[place].pending == fewest]
    return equals[turn % len(equals)]


def mixed(number: int) -> int:
    """64 bits that look random (the finisher of SplitMix64: Steele, Lea, Flood, 2014)."""
    mixture = (number * 0x9E3779B97F4A7C15) & _MASK
    mixture = ((mixture ^ (mixture >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixture = ((mixture ^ (mixture >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixture ^ (mixture >> 31)


def _fraction(turn: int, place: int) -> float:
    return mixed((turn << 10) + place) / (_MASK + 1)


def _those(places: list[int], wanted: Callable[[int], bool]) -> list[int]:
    """The places that are wanted, or all when none is."""
    return [place for place in places if wanted(place)] or places

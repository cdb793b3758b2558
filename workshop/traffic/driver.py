"""The traffic driver: sends what is due, whoever is late, and records what came back.

Arrivals follow an open-loop schedule (`arrivals`). Each one is given to the shopper that has been ready for
longest; a shopper is ready again a think time after its last answer. Only when nobody is ready does a new
shopper walk in, up to `crowd`; beyond that the next one is hurried, so that the rate stays what was asked.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from workshop.traffic.arrivals import arrivals
from workshop.traffic.client import Answer, BrokenError, Client
from workshop.traffic.record import Arm, Record, Seen
from workshop.traffic.shopper import Shopper
from workshop.traffic.visitors import Visitor

_ARMS: dict[bytes, Arm] = {
    b"control": "control", b"canary": "canary", b"fallback": "fallback", b"guarded": "guarded",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrafficConfig:
    """`rate` requests a second from at most `crowd` shoppers who think for `think` seconds on average.

    Nobody thinks for less than a fifth of that.
    """

    host: str
    port: int
    rate: float = 40.0
    crowd: int = 500
    think: float = 5.0
    seed: int = 1
    timeout: float = 10.0


@dataclass(slots=True)
class Driver:
    """Drives traffic until its task is cancelled or `stop` is called; `record` grows meanwhile.

    `visitors` makes the next new shopper's visitor. `config.rate` may be replaced while it runs; the schedule
    stays open at every rate. `under_way` requests wait for their answers now.
    """

    config: TrafficConfig
    visitors: Callable[[Random], Visitor]
    record: Record = field(default_factory=Record)
    hurried: int = 0
    shoppers: int = 0
    under_way: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Send until `stop`; return when the last answer is in."""
        config = self.config
        random = Random(config.seed)  # noqa: S311  (repeatable on purpose, nothing secret)
        client = Client(config.host, config.port, timeout=config.timeout)
        crowd = _Crowd(config, self.visitors)
        due, numbers = time.monotonic(), itertools.count(1)
        try:
            async with asyncio.TaskGroup() as under_way:
                for gap in _gaps(random):
                    due += gap / self.config.rate
                    if await self._stopped_within(due - time.monotonic()):
                        break
                    shopper = crowd.next(time.monotonic())
                    under_way.create_task(self._one(client, crowd, shopper, due=due, number=next(numbers)))
        finally:
            client.close()
            self.hurried, self.shoppers = crowd.hurried, crowd.size

    def stop(self) -> None:
        """Send nothing more."""
        self._stopping.set()

    async def _stopped_within(self, seconds: float) -> bool:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                return False
        return self._stopping.is_set()

    async def _one(
        self, client: Client, crowd: "_Crowd", shopper: Shopper, *, due: float, number: int
    ) -> None:
        """One request of `shopper`, `due` at that monotonic time."""
        # turns monotonic seconds into seconds since 1970; anew each time, to follow a clock that is being set
        clock = time.time() - time.monotonic()
        self.under_way += 1
        step = shopper.next_step()
        request_id = f"w{self.config.seed}-{number}"
        before = shopper.identity()
        sent = time.monotonic() + clock
        answer: Answer | None = None
        try:
            answer = await client.send(
                shopper.request(step, request_id=request_id), head=step.method == "HEAD", repeatable=step.safe
            )
            fault = step.fault(answer)
        except BrokenError as error:
            fault = f"{error.kind}: {error}"
        finally:
            self.under_way -= 1
        answered = time.monotonic() + clock
        shopper.take(answer)
        self.record.add(
            Seen(
                step=step.name,
                safe=step.safe,
                arm=_arm(answer),
                status=answer.status if answer is not None else 0,
                due=due + clock,
                sent=sent,
                answered=answered,
                identity=before or shopper.identity(),
                fault=fault,
                request_id=request_id,
            )
        )
        crowd.back(shopper, time.monotonic())


class _Crowd:
    """Who is in the shop, and who is ready."""

    def __init__(self, config: TrafficConfig, visitors: Callable[[Random], Visitor]) -> None:
        self._config = config
        self._visitors = visitors
        self._waiting: list[tuple[float, int, Shopper]] = []
        # apart from the shoppers' numbers, which seed them and must not depend on how fast answers come
        self._ties: Iterator[int] = itertools.count(1)
        self.size = 0
        self.hurried = 0

    def next(self, now: float) -> Shopper:
        """Whose turn it is at `now` (monotonic seconds)."""
        if self._waiting and self._waiting[0][0] <= now:
            return heapq.heappop(self._waiting)[2]
        if self.size >= self._config.crowd and self._waiting:
            self.hurried += 1
            return heapq.heappop(self._waiting)[2]
        self.size += 1
        random = Random(f"{self._config.seed}/{self.size}")  # noqa: S311  (as above)
        return Shopper(
            name=str(self.size),
            host=f"{self._config.host}:{self._config.port}",
            visitor=self._visitors(random),
            random=random,
        )

    def back(self, shopper: Shopper, now: float) -> None:
        """`shopper` has its answer and begins to think."""
        think = self._config.think
        at_least = think / 5
        more = shopper.random.expovariate(1 / (think - at_least))
        shopper.ready_at = now + at_least + min(more, 4 * think)
        heapq.heappush(self._waiting, (shopper.ready_at, next(self._ties), shopper))


def _gaps(random: Random) -> Iterator[float]:
    """Gaps between arrivals at a rate of one a second."""
    before = 0.0
    for due in arrivals(1.0, random=random):
        yield due - before
        before = due


def _arm(answer: Answer | None) -> Arm:
    named = answer.header(b"x-strangler-arm") if answer is not None else None
    return _ARMS.get(named, "none") if named is not None else "none"

"""Four workers are one proxy: what they count adds up exactly, the percentage holds in each of them, and the death of
one is nobody else's.

Which worker serves a connection is read from the kernel (`/proc/net/tcp` and the descriptors of the workers), not
guessed from how many connections there are.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strangler_proxy.buckets import digest_of, in_canary
from strangler_proxy.identity import anonymous_key
from tests.integration.test_proxy_processes import Proxy, proxy
from tests.proxy_lab import Client, Message, anonymous, reply, run, until

_WORKERS = 4
_CONNECTIONS = 64
_PERCENT = 30
_THINKING = 0.03  # seconds between a user's requests: about 1,500 a second together, not as many as fit
# A breaker that opens would make the counts depend on the order of things.
_NO_BREAKER = "breaker: {consecutive: 100000, window: 100000}"


def by_worker(clients: list[Client], pids: list[int]) -> dict[int, list[Client]]:
    """Whose connection is whose, by process id."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(address.split(":")[1], 16) for address in fields[1:3])
        inodes[(local, remote)] = fields[9]
    owners = {}
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                owners[target.removeprefix("socket:[").removesuffix("]")] = pid
    found: dict[int, list[Client]] = {pid: [] for pid in pids}
    for client in clients:
        own = client.writer.get_extra_info("sockname")[1]
        served = client.writer.get_extra_info("peername")[1]
        found[owners[inodes[(served, own)]]].append(client)
    return found


@asynccontextmanager
async def connected(it: Proxy) -> AsyncIterator[dict[int, list[Client]]]:
    """Connections by worker. Each had an answer, so a worker has accepted it; every worker has some (that one of
    four has none: 1 in 20 million)."""
    clients = [await it.connect() for _ in range(_CONNECTIONS)]
    try:
        for client in clients:
            assert (await client.get("/elsewhere")).status == 200
        found = by_worker(clients, [worker["pid"] for worker in (await it.status())["workers"]])
        assert all(found.values())
        assert sum(map(len, found.values())) == _CONNECTIONS
        yield found
    finally:
        for client in clients:
            client.close()


def kept_waiting(pid: int) -> int:
    """How long (ns) a process was ready to run and something else had the cores: other tests, other people.

    The second figure of `/proc/PID/schedstat` (Linux, Documentation/scheduler/sched-stats.rst).
    """
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])


def in_service(user: str) -> bool:
    """Does the user belong to the canary at `_PERCENT`? By the decision's own pure functions."""
    return in_canary(digest_of("catalog", anonymous_key(user.encode())), _PERCENT * 100)


async def each_at_once(
    clients: list[Client], work: Callable[[int, Client], Coroutine[Any, Any, None]]
) -> None:
    """Do `work` on every connection at the same time."""
    async with asyncio.TaskGroup() as group:
        for number, client in enumerate(clients):
            group.create_task(work(number, client))


def test_percentage_holds_for_the_same_users_in_every_worker(tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(250)]

    async def main() -> None:
        async with proxy(tmp_path, workers=_WORKERS, percent=_PERCENT) as it, connected(it) as workers:

            async def ask_all(number: int, client: Client) -> None:
                for user in users:
                    answer = await client.get("/api/x", anonymous(user))
                    assert (answer.body == b"catalog") is in_service(user), (number, user)

            await each_at_once([clients[0] for clients in workers.values()], ask_all)
            share = sum(map(in_service, users)) / len(users)
            assert abs(share - _PERCENT / 100) < 0.12  # four standard deviations: the users are no odd lot

    run(main())


@dataclass(slots=True)
class Expected:
    """What one arm of `/admin/outcomes` has to say."""

    requests: int = 0
    errors: int = 0
    fallbacks: int = 0
    fallback_errors: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    by_error: Counter[str] = field(default_factory=Counter)
    users: set[str] = field(default_factory=set)

    def add(self, kind: str, user: str) -> None:
        """One request of `kind`; on the canary its failures are answered by the monolith, if that can."""
        self.requests += 1
        self.users.add(user)
        match kind:
            case "good" | "new":
                self.by_status["200"] += 1
            case "missing":
                self.by_status["404"] += 1
            case "broken" | "both":
                self.by_status["500"] += 1
                self.by_error["status"] += 1
                self.errors += 1
            case "cut":
                self.by_error["reset"] += 1
                self.errors += 1

    def as_told(self) -> dict[str, Any]:
        """The arm as `/admin/outcomes` has to tell it; latencies apart, everything else is 0."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "fallbacks": self.fallbacks,
            "fallback_errors": self.fallback_errors,
            "by_status": dict(self.by_status),
            "by_error": dict(self.by_error),
            "clients": len(self.users),
        }


def service_that_fails(*, of_monolith: bool) -> Any:
    """A script: the path says what happens."""

    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = request.target.split(b"/")[2].decode() if request.target.startswith(b"/api/") else "good"
        if kind == "both" or (kind == "broken" and not of_monolith):
            await reply(status=b"500 Oh")(request, reader, writer)
        elif kind == "cut" and not of_monolith:
            writer.transport.abort()
        elif kind == "missing":
            await reply(status=b"404 No")(request, reader, writer)
        else:
            await reply()(request, reader, writer)

    return script


def test_known_requests_and_failures_add_up_exactly_over_four_workers(tmp_path: Path) -> None:
    """64 connections at once, 3,200 requests: good ones, 404s, posts, failures the monolith heals, failures that
    both sides have, connections the service cuts. Every user comes through several workers."""
    kinds = ["good", "good", "missing", "new", "broken", "good", "both", "cut"]
    control, canary = Expected(), Expected()

    async def main() -> None:
        file = {"percent": _PERCENT, "owner": "monolith", "backend": _NO_BREAKER}
        async with proxy(tmp_path, workers=_WORKERS, **file) as it, connected(it) as workers:
            it.monolith.script = service_that_fails(of_monolith=True)
            it.catalog.script = service_that_fails(of_monolith=False)

            async def ask(number: int, client: Client) -> None:
                for turn in range(50):
                    kind, user = kinds[(number + turn) % len(kinds)], f"user-{(number * 7 + turn) % 150}"
                    unsafe = kind == "new"
                    service = in_service(user) and not unsafe  # the monolith owns the group
                    fails = kind == "both" or (service and kind in ("broken", "cut"))
                    answer = await client.get(
                        f"/api/{kind}/{turn}", anonymous(user), method="POST" if unsafe else "GET"
                    )
                    assert answer.status == {"missing": 404, "both": 500}.get(kind, 200)
                    arm = canary if service else control
                    arm.add(kind if fails or kind in ("missing", "new") else "good", user)
                    if service and fails:
                        canary.fallbacks += 1
                        canary.fallback_errors += kind == "both"

            await each_at_once([client for clients in workers.values() for client in clients], ask)
            assert control.requests + canary.requests == _CONNECTIONS * 50
            await it.until_counted(_CONNECTIONS * 50, fallbacks=canary.fallbacks)
            outcomes = await it.outcomes()
            assert canary.by_error["status"] > 100
            assert canary.by_error["reset"] > 50
            for name, expected in (("control", control), ("canary", canary)):
                arm, wanted = outcomes[name], expected.as_told()
                assert {key: arm[key] for key in wanted} == wanted, name
                # whatever else is counted did not happen here
                assert not any(arm[key] for key in arm.keys() - wanted.keys() - {"latency_ms"}), name

    run(main())


def test_killed_worker_is_replaced_within_a_second_and_the_others_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxy(tmp_path, workers=_WORKERS, percent=_PERCENT) as it, connected(it) as workers:
            before = await it.status()
            victim = before["workers"][1]["pid"]
            stop = asyncio.Event()
            answered: list[tuple[int, bool]] = []  # when (ns), and was it the victim's connection
            cut: set[int] = set()

            async def go_on(number: int, client: Client) -> None:
                """Ask until told to stop; only the victim's clients may be cut off, once, and are served again."""
                victims = client in workers[victim]
                while not stop.is_set():
                    try:
                        answer = await client.get("/api/x", anonymous(f"u{number}"))
                    except (ConnectionError, asyncio.IncompleteReadError):
                        assert victims, "a connection of another worker was harmed"
                        assert number not in cut, "cut off twice"
                        cut.add(number)
                        client.close()
                        client = await it.connect()  # the user comes back
                        continue
                    assert answer.status == 200
                    answered.append((time.time_ns(), victims and number not in cut))
                    await asyncio.sleep(_THINKING)
                client.close()

            clients = [client for several in workers.values() for client in several]
            load = asyncio.create_task(each_at_once(clients, go_on))
            try:
                await until(lambda: len(answered) > 500)
                killed_at = time.time_ns()
                os.kill(victim, signal.SIGKILL)
                status = await it.until_status(
                    lambda status: (
                        status["workers"][1]["pid"] not in {None, victim}
                        and status["workers"][1]["version"] is not None
                    )
                )
                replacement = status["workers"][1]
                took = replacement["applied_at_ns"] - killed_at
                assert took - kept_waiting(replacement["pid"]) <= 1_000_000_000
                others = [worker["pid"] for number, worker in enumerate(before["workers"]) if number != 1]
                assert [w["pid"] for number, w in enumerate(status["workers"]) if number != 1] == others
                since = len(answered)
                await until(lambda: len(answered) > since + 500 or load.done())
            finally:
                stop.set()
                await load
            assert len(cut) == len(workers[victim])
            # What the victim answered last it could not report any more: at most what it did in one flush.
            unreported = sum(victims and at > killed_at - 50_000_000 for at, victims in answered)
            await it.until_counted(len(answered) - unreported)
            counted = sum(arm["requests"] for arm in (await it.outcomes()).values())
            assert counted <= len(answered) + len(cut)
            assert any("worker died" in entry.get("event", "") for entry in it.log)

    run(main())

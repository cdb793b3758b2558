"""Duties of a group, and the proxy's own requests, on real sockets."""

import asyncio
from dataclasses import dataclass, field

from strangler_proxy.duties import WAIT, Admission, Answer, Call, Duty, Outgoing, Refusal
from strangler_proxy.fetch import Fetch, Fetched, fetched
from strangler_proxy.headers import ResponseHead
from strangler_proxy.outcomes import Failure
from tests.proxy_lab import Lab, hang, lab, raw, reply, run, until


@dataclass(eq=False)
class Recording(Duty):
    """Says what it is told to, and keeps what it saw."""

    says: Admission = None
    taps = True
    seen: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def admit(self, call: Call) -> Admission:
        self.seen.append("admit")
        self.calls.append(call)
        return self.says

    def request(self, call: Call, outgoing: Outgoing) -> None:
        self.seen.append(f"request to {outgoing.backend}")
        outgoing.target = b"/elsewhere"
        outgoing.lines.append(b"X-Added: yes\r\n")

    def response(self, call: Call, status: int, head: ResponseHead) -> None:
        self.seen.append(f"response {status} of {call.answered_by}")
        head.lines.append(b"X-Seen: yes\r\n")

    def body(self, call: Call, data: bytes) -> None:
        self.seen.append(data.decode())

    def end(self, call: Call, *, complete: bool) -> None:
        self.seen.append(f"end, complete {complete}")


def use(proxy: Lab, *duties: Duty) -> None:
    proxy.plane.duties["catalog"] = duties


def test_a_duty_sees_a_request_from_its_head_to_its_end() -> None:
    async def main() -> None:
        async with lab(catalog=reply(b"hello", headers=b"X-Own: 1\r\n")) as proxy:
            duty = Recording()
            use(proxy, duty)
            answer = await proxy.get("/api/x")
            assert answer.body == b"hello"
            assert answer.get(b"x-seen") == b"yes"
            (request,) = proxy.catalog.requests
            assert request.target == b"/elsewhere"
            assert request.get(b"x-added") == b"yes"
            assert duty.seen == [
                "admit", "request to catalog", "response 200 of catalog", "hello", "end, complete True",
            ]  # fmt: skip

    run(main())


def test_after_a_fallback_duties_see_the_answer_that_is_passed_on() -> None:
    async def main() -> None:
        async with lab(catalog=reply(b"no", status=b"500 No")) as proxy:
            duty = Recording()
            use(proxy, duty)
            assert (await proxy.get("/api/x")).body == b"monolith"
            assert duty.seen == [
                "admit", "request to catalog", "request to monolith", "response 200 of monolith", "monolith",
                "end, complete True",
            ]  # fmt: skip

    run(main())


def test_a_refusal_reaches_the_client_and_no_backend() -> None:
    async def main() -> None:
        async with lab() as proxy:
            first = Recording()
            refusing = Recording(Refusal(429, "slower", (b"X-Why: rate\r\n",), retry_after=1.0))
            last = Recording()
            use(proxy, first, refusing, last)
            client = await proxy.connect()
            for _ in range(2):  # and the connection goes on
                answer = await client.get("/api/x")
                assert answer.status == 429
                assert answer.get(b"x-why") == b"rate"
                assert int(answer.get(b"retry-after")) >= 1
            client.close()
            assert not proxy.catalog.requests
            assert first.seen == ["admit", "end, complete False"] * 2
            assert refusing.seen == ["admit"] * 2
            assert not last.seen

    run(main())


def test_an_answer_of_a_duty_is_framed_for_the_client() -> None:
    async def main() -> None:
        async with lab() as proxy:
            use(proxy, Recording(Answer(200, b"OK", (b"Content-Type: text/plain\r\n",), b"from memory")))
            client = await proxy.connect()
            assert (await client.get("/api/x")).body == b"from memory"
            headless = await client.get("/api/x", method="HEAD")
            assert (headless.body, headless.get(b"content-length")) == (b"", b"11")
            assert (await client.get("/api/x")).body == b"from memory"
            client.close()
            assert not proxy.catalog.requests

    run(main())


def test_a_duty_may_take_its_time() -> None:
    async def main() -> None:
        async with lab() as proxy:
            duty = Recording(WAIT)
            use(proxy, duty)
            going = asyncio.ensure_future(proxy.get("/api/x"))
            await until(lambda: bool(duty.calls))
            duty.calls[0].proceed()
            duty.calls[0].proceed()  # a second word is not heard
            assert (await going).body == b"catalog"
            refused = asyncio.ensure_future(proxy.get("/api/x"))
            await until(lambda: len(duty.calls) == 2)
            duty.calls[1].refuse(Refusal(403, "not you"))
            assert (await refused).status == 403
            assert len(proxy.catalog.requests) == 1

    run(main())


def test_a_client_that_leaves_while_a_duty_thinks_is_forgotten() -> None:
    async def main() -> None:
        async with lab() as proxy:
            duty = Recording(WAIT)
            use(proxy, duty)
            client = await proxy.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: lab\r\n\r\n")
            await until(lambda: bool(duty.calls))
            client.reset()
            await until(lambda: "end, complete False" in duty.seen)
            duty.calls[0].proceed()
            assert not proxy.plane.active
            assert not proxy.catalog.requests

    run(main())


async def fetch_catalog(proxy: Lab, *, seconds: float = 2.0, max_body: int = 1000) -> Fetched:
    backend = proxy.plane.routes.backends["catalog"]
    lines = [b"Host: lab\r\n"]
    return await fetched(
        proxy.plane, backend=backend, target=b"/own", lines=lines, seconds=seconds, max_body=max_body
    )


def test_a_fetch_gives_the_whole_answer_and_keeps_the_connection() -> None:
    async def main() -> None:
        async with lab(catalog=reply(b"hello", headers=b"X-Strangler-Applied: 0/1\r\n")) as proxy:
            for _ in range(2):
                result = await fetch_catalog(proxy)
                assert (result.status, result.body, result.failure, result.cut) == (
                    200,
                    b"hello",
                    None,
                    False,
                )
                assert result.header(b"x-strangler-applied") == b"0/1"
            backend = proxy.plane.routes.backends["catalog"]
            assert (proxy.plane.pool(backend).open, proxy.plane.pool(backend).idle) == (1, 1)

    run(main())


def test_a_fetch_is_bounded() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"258\r\n%b\r\n" % (b"x" * 600) * 3

    async def main() -> None:
        async with lab(catalog=reply(b"x" * 2000)) as proxy:
            result = await fetch_catalog(proxy, max_body=1000)
            assert (result.status, len(result.body), result.cut) == (200, 1000, True)
        async with lab(catalog=raw(chunks)) as proxy:
            result = await fetch_catalog(proxy, max_body=1000)
            assert (len(result.body), result.cut) == (1000, True)
        async with lab(catalog=hang) as proxy:
            assert (await fetch_catalog(proxy, seconds=0.05)).failure is Failure.TIMEOUT
        async with lab(catalog=raw(b"nonsense\r\n\r\n", close=True)) as proxy:
            assert (await fetch_catalog(proxy)).failure is Failure.PROTOCOL
        async with lab() as proxy:
            await proxy.catalog.stop()
            assert (await fetch_catalog(proxy)).failure is Failure.REFUSED

    run(main())


def test_a_cancelled_fetch_says_nothing_and_leaves_no_connection() -> None:
    async def main() -> None:
        async with lab(catalog=hang) as proxy:
            said: list[Fetched] = []
            backend = proxy.plane.routes.backends["catalog"]
            fetch = Fetch(
                proxy.plane, backend=backend, method=b"GET", target=b"/", lines=[b"Host: lab\r\n"],
                seconds=0.2, max_body=1, done=said.append,
            ).start()  # fmt: skip
            await until(lambda: bool(proxy.catalog.requests))
            fetch.cancel()
            await until(lambda: proxy.plane.pool(backend).open == 0)
            assert not said

    run(main())

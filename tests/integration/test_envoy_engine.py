"""`--engine envoy` as it is run: the same routes file, admin port and outcomes, with Envoy in the data path."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from strangler_proxy.buckets import digest_of, in_canary
from strangler_proxy.edit import set_percent
from strangler_proxy.identity import ANONYMOUS_COOKIE, USER_COOKIE, CookieSigner, cookie_value
from tests.integration.test_proxy_processes import Proxy, proxy
from tests.proxy_lab import SECRET, Message, anonymous, hang, raw, reply, run, until, until_true

SIGNER = CookieSigner(SECRET)


def started(directory: Path, **changes: object) -> Any:
    return proxy(directory, workers=1, engine="envoy", **changes)


async def counted(it: Proxy, arm: str, **wanted: object) -> dict[str, Any]:
    """An arm's counters, once they are as `wanted`."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        found.update((await it.outcomes())[arm])
        return all(found[name] == value for name, value in wanted.items())

    try:
        await until_true(there)
    except TimeoutError:
        pytest.fail(f"{arm} is {found}, not {wanted}")
    return found


def test_side_is_the_one_that_python_draws_and_lowering_removes_the_newest(tmp_path: Path) -> None:
    names = [f"visitor-{number}" for number in range(400)]
    digests = {name: digest_of("catalog", f"anonymous:{name}".encode()) for name in names}

    async def main() -> None:
        async with started(tmp_path, percent=37.25) as it:
            client = await it.connect()
            for percent in (3725, 5000, 1250):
                version = set_percent(it.routes, {"catalog": Decimal(percent) / 100})
                answer = await it.admin.post("/admin/reload")
                assert answer.json()["version"] == version
                for name in names:
                    body = (await client.get("/api/x", anonymous(name))).body
                    expected = b"catalog" if in_canary(digests[name], percent) else b"monolith"
                    assert body == expected, (name, percent)
            assert (await client.get("/else", anonymous(names[0]))).body == b"monolith"
            client.close()

    run(main())


def test_unsafe_methods_go_to_the_owner_whatever_the_percentage(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, percent=100) as it:
            assert (await it.ask("/api/x", "Content-Length: 0", method="POST")).body == b"monolith"
            await counted(it, "control", requests=1)
            it.write(percent=0, owner="catalog")
            await it.admin.post("/admin/reload")
            assert (await it.ask("/api/x", "Content-Length: 0", method="DELETE")).body == b"catalog"
            assert (await it.ask("/api/x")).body == b"monolith"
            await counted(it, "canary", requests=1)

    run(main())


def test_identities_are_issued_signed_and_followed_as_by_python(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, percent=50) as it:
            first = await it.ask("/api/x")
            issued = first.get(b"set-cookie").partition(b";")[0]
            value = SIGNER.verify(ANONYMOUS_COOKIE, cookie_value(issued, ANONYMOUS_COOKIE))
            assert value
            on_canary = in_canary(digest_of("catalog", b"anonymous:" + value), 5000)
            assert first.body == (b"catalog" if on_canary else b"monolith")
            again = await it.ask("/api/x", "Cookie: " + issued.decode())
            assert again.body == first.body
            assert not again.all(b"set-cookie")
            forged = await it.ask("/api/x", f"Cookie: strangler_id={value.decode()}.AAAAAAAAAAAAAAAAAAAAAA")
            assert forged.all(b"set-cookie")

            it.monolith.script = reply(b"in", headers=b"X-Strangler-User: 42\r\n")
            login = await it.ask("/login", "Cookie: " + issued.decode())
            user = login.get(b"set-cookie").partition(b";")[0]
            assert SIGNER.verify(USER_COOKIE, cookie_value(user, USER_COOKIE)) == b"42"
            assert not login.all(b"x-strangler-user")
            it.monolith.script = reply(b"monolith")
            as_user = await it.ask("/api/x", "Cookie: " + (issued + b"; " + user).decode())
            assert as_user.body == (
                b"catalog" if in_canary(digest_of("catalog", b"user:42"), 5000) else b"monolith"
            )
            it.monolith.script = reply(b"out", headers=b"X-Strangler-User:\r\n")
            out = await it.ask("/logout", "Cookie: " + user.decode())
            assert b"Max-Age=0" in out.get(b"set-cookie")

            it.catalog.script = reply(b"catalog", headers=b"X-Strangler-User: 1\r\n")
            set_percent(it.routes, {"catalog": Decimal(100)})
            await it.admin.post("/admin/reload")
            told = await it.ask("/api/x", "Cookie: " + issued.decode())
            assert not told.all(b"set-cookie"), "a service cannot say who is logged in"

    run(main())


def test_backends_are_told_what_python_tells_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, more='trusted_proxies: ["10.0.0.0/8"]') as it:
            await it.ask(
                "/api//a/../b%2Fc;d?q=%20", "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6",
                "X-Strangler-Arm: control",
                "X-Strangler-Subject: root", "X_Forwarded_For: 6.6.6.6", "X-Request-ID: mine-1",
                "Proxy-Authorization: x", "Connection: X-Hop", "X-Hop: 1",
            )  # fmt: skip
            (request,) = it.catalog.requests
            assert request.target == b"/api//a/../b%2Fc;d?q=%20"
            assert request.get(b"x-forwarded-for") == b"127.0.0.1"
            assert request.get(b"forwarded") == b'for=127.0.0.1;host="shop.test";proto=http'
            assert request.get(b"x-forwarded-host") == b"shop.test"
            assert request.get(b"x-forwarded-proto") == b"http"
            assert request.get(b"x-request-id") == b"mine-1"
            assert request.get(b"via") == b"1.1 strangler"
            names = {name.lower() for name, _ in request.headers}
            assert names <= {
                b"host", b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
                b"forwarded", b"via",
            }  # fmt: skip
            it.write(more='trusted_proxies: ["127.0.0.0/8"]')
            await it.admin.post("/admin/reload")
            answer = await it.ask("/api/x", "X-Forwarded-For: 1.2.3.4, 5.6.7.8", "X-Forwarded-Proto: https")
            request = it.catalog.requests[-1]
            assert request.get(b"x-forwarded-for") == b"1.2.3.4, 5.6.7.8, 127.0.0.1"
            assert request.get(b"x-forwarded-proto") == b"https"
            assert b"; Secure" in answer.get(b"set-cookie")
            assert answer.get(b"x-request-id")

    run(main())


def test_failures_are_answered_by_the_monolith_and_counted_against_the_service(tmp_path: Path) -> None:
    scripts = {
        "status": reply(b"no", status=b"503 Service Unavailable"),
        "timeout": hang,
        "reset": raw(b"", reset=True),
        "protocol": raw(b"GARBAGE\r\n\r\n", close=True),
    }

    async def main() -> None:
        async with started(tmp_path, percent=100, group="timeouts: {read: 300}") as it:
            for number, (failure, script) in enumerate(scripts.items(), 1):
                it.catalog.script = script
                answer = await it.ask("/api/x")
                assert (answer.status, answer.body) == (200, b"monolith"), failure
                arm = await counted(it, "canary", requests=number)
                assert arm["by_error"].get(failure) == 1, arm["by_error"]
                assert arm["fallbacks"] == number
            await it.catalog.stop()
            assert (await it.ask("/api/x")).body == b"monolith"
            arm = await counted(it, "canary", requests=5)
            assert arm["by_error"].get("refused") == 1
            assert (await it.outcomes())["control"]["requests"] == 0

    run(main())


def test_stream_tells_of_failures_within_moments(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            started(tmp_path, percent=100, fallback="false") as it,
            it.admin.stream("GET", "/admin/outcomes/stream") as stream,
        ):
            lines = stream.aiter_lines()
            hello = json.loads(await anext(lines))
            assert hello["type"] == "hello"
            assert hello["version"] == (await it.status())["version"]
            it.catalog.script = reply(b"no", status=b"500 Internal Server Error")
            delays = []
            for number in range(10):
                answer = await it.ask(f"/api/x?n={number}", f"X-Request-ID: r{number}", anonymous("a"))
                ended = time.monotonic()
                assert answer.status == 500
                while (event := json.loads(await anext(lines)))["type"] != "batch":
                    pass
                delays.append(time.monotonic() - ended)
                (item,) = event["items"]
                assert item["error"] == "status"
                assert (item["status"], item["request_id"], item["path"]) == (500, f"r{number}", "/api/x")
                assert item["client"] == f"{digest_of('catalog', b'anonymous:a'):016x}"
                assert item["percent"] == 100
                assert abs(item["at_ns"] - time.time_ns()) < 2_000_000_000
            assert sorted(delays)[5] < 0.1, delays

    run(main())


def test_client_that_goes_away_is_no_evidence(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, percent=100, group="timeouts: {read: 5000}") as it:
            it.catalog.script = hang
            client = await it.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            await until(lambda: bool(it.catalog.requests))
            client.reset()
            arm = await counted(it, "canary", aborted=1)
            assert (arm["requests"], arm["errors"]) == (0, 0)

    run(main())


def test_testers_choose_a_side_and_are_no_evidence(tmp_path: Path) -> None:
    async def main() -> None:
        overrides = "overrides: {header: X-Strangler-Side, cookie: side}"
        async with started(tmp_path, percent=0, group=overrides) as it:
            assert (await it.ask("/api/x", "X-Strangler-Side: canary")).body == b"catalog"
            assert it.catalog.requests[0].get(b"x-strangler-side") == b"canary"
            assert (await it.ask("/api/x", "Cookie: side=catalog")).body == b"catalog"
            assert (await it.ask("/api/x", "Cookie: side=nonsense")).body == b"monolith"
            arm = await counted(it, "canary", overridden=2)
            assert arm["requests"] == 0

    run(main())


def test_edits_cut_no_connection_and_a_fault_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, percent=0) as it:
            client = await it.connect()
            statuses: Counter[int] = Counter()
            ended = asyncio.Event()

            async def ask() -> None:
                while not ended.is_set():
                    answer: Message = await client.get("/api/x", anonymous("a"))
                    statuses[answer.status] += 1

            asking = asyncio.create_task(ask())
            took = []
            for number in range(20):
                # every other time another backend: a new cluster beside the old one
                it.write(percent=number, backend=f"timeouts: {{read: {5000 + number // 2}}}")
                began = time.monotonic()
                answer = await it.admin.post("/admin/reload")
                took.append(time.monotonic() - began)
                assert answer.status_code == 200
            ended.set()
            await asking
            client.close()
            assert set(statuses) == {200}
            assert sorted(took)[10] < 0.25, took

            edited = time.time_ns()
            it.write(percent=20)
            await it.admin.post("/admin/reload")
            (worker,) = (await it.status())["workers"]
            # who sees the new percentage sees it after `since_ns`
            assert edited <= worker["since_ns"] < worker["applied_at_ns"] <= time.time_ns()

            before = await it.status()
            it.write(percent=1, more="rate_limit: [{by: ip, requests: 5, per: second}]")
            refused = await it.admin.post("/admin/reload")
            assert refused.status_code == 409
            (problem,) = refused.json()["problems"]
            assert (
                problem["line"]
                == it.routes.read_text()
                .splitlines()
                .index("rate_limit: [{by: ip, requests: 5, per: second}]")
                + 1
            )
            assert "rate_limit" in problem["message"]
            assert (await it.status())["version"] == before["version"]

    run(main())


def test_killed_envoy_is_replaced_and_sigterm_finishes_what_runs(tmp_path: Path) -> None:
    async def main() -> None:
        async with started(tmp_path, percent=100) as it:
            (worker,) = (await it.status())["workers"]
            await asyncio.to_thread(os.kill, worker["pid"], signal.SIGKILL)
            await it.until_status(lambda status: status["workers"][0]["pid"] not in (None, worker["pid"]))
            await it.until_status(lambda status: status["workers"][0]["version"] is not None)
            assert (await it.ask("/api/x")).body == b"catalog"

            go = asyncio.Event()

            async def slow(request: Message, reader: Any, writer: Any) -> None:
                await go.wait()
                await reply(b"slow")(request, reader, writer)

            it.catalog.script = slow
            client = await it.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            await until(lambda: len(it.catalog.requests) == 2)
            it.process.send_signal(signal.SIGTERM)
            await until(lambda: any(line["event"].startswith("proxy stops") for line in it.log))
            go.set()
            assert (await client.response()).body == b"slow"
            client.close()
            assert await asyncio.wait_for(it.process.wait(), 10) == 0

    run(main())

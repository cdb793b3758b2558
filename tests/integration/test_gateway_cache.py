"""Answers from memory on a real proxy."""

import asyncio
import json
from pathlib import Path

from strangler_proxy.identity import USER_COOKIE, CookieSigner
from tests.integration.test_proxy_processes import proxy
from tests.proxy_lab import SECRET, Backend, Message, Script, anonymous, lab, reply, run, until, until_true

FRESH = "cache: {fresh: 60000}\n    expose: true"


def numbered(*, headers: bytes = b"", name: bytes = b"answer") -> Script:
    """Every answer is another one."""
    count = 0

    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reply(b"%b %d" % (name, count), headers=headers)(request, reader, writer)

    return script


def test_an_anonymous_read_is_answered_from_memory_and_counted_apart() -> None:
    async def main() -> None:
        async with lab(group=FRESH, catalog=numbered(headers=b"X-Own: 1\r\n")) as it:
            answers = [await it.get("/api/x", anonymous("somebody")) for _ in range(3)]
            assert {answer.body for answer in answers} == {b"answer 1"}
            assert [answer.get(b"x-cache") for answer in answers] == [b"miss", b"hit", b"hit"]
            assert (answers[1].get(b"age"), answers[1].get(b"x-own")) == (b"0", b"1")
            assert (await it.get("/api/x?page=2", anonymous("somebody"))).body == b"answer 2"
            headless = await it.get("/api/x", method="HEAD")
            assert (headless.get(b"content-length"), headless.get(b"x-cache")) == (b"8", b"hit")
            fresh = await it.get("/api/x")  # a new client gets a cookie of its own, also from memory
            assert b"strangler_id=" in fresh.get(b"set-cookie")
            assert (fresh.get(b"x-cache"), len(it.catalog.requests)) == (b"hit", 2)
            wire = it.drained()
            assert (wire["catalog"]["canary"]["cached"], wire["catalog"]["canary"]["requests"]) == (4, 2)
            assert wire["catalog"]["items"] == [["canary", 2, 100]]

    run(main())


def test_who_has_a_name_or_a_cookie_is_never_answered_from_memory() -> None:
    async def main() -> None:
        signed = CookieSigner(SECRET).sign(USER_COOKIE, b"7").decode()
        async with lab(group=FRESH, catalog=numbered()) as it:
            await it.get("/api/x")
            for line in (
                "Authorization: Bearer x",
                "Cookie: sessionid=1",
                f"Cookie: strangler_user={signed}",
                "Cookie: strangler_wrote=0/1",
                "Range: bytes=0-1",
            ):
                assert (await it.get("/api/x", line)).get(b"x-cache") == b"miss"
            client = await it.connect()
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\n{}")
            assert (await client.response()).get(b"x-cache") == b"miss"
            client.close()
            assert (await it.get("/api/x")).body == b"answer 1"

    run(main())


def test_what_the_backend_forbids_is_not_kept() -> None:
    async def main() -> None:
        for said in (
            b"Cache-Control: private\r\n",
            b"Set-Cookie: a=b\r\n",
            b"X-Strangler-User: 7\r\n",
            b"Vary: *\r\n",
        ):
            async with lab(group=FRESH, catalog=numbered(headers=said)) as it:
                assert [(await it.get("/api/x")).body for _ in range(2)] == [b"answer 1", b"answer 2"]
        async with lab(group="cache: {}", catalog=numbered()) as it:
            assert [(await it.get("/api/x")).body for _ in range(2)] == [b"answer 1", b"answer 2"]
        async with lab(group="cache: {}", catalog=numbered(headers=b"Cache-Control: max-age=60\r\n")) as it:
            assert [(await it.get("/api/x")).body for _ in range(2)] == [b"answer 1", b"answer 1"]
        async with lab(group="cache: {fresh: 60000, largest: 1024}", catalog=reply(b"x" * 2000)) as it:
            await it.get("/api/x")
            await it.get("/api/x")
            assert len(it.catalog.requests) == 2

    run(main())


def test_no_user_is_given_the_other_arms_answer() -> None:
    async def main() -> None:
        async with lab(
            group=FRESH, percent=50, catalog=numbered(name=b"catalog"), monolith=numbered(name=b"monolith")
        ) as it:
            for _ in range(2):
                for number in range(20):
                    answer = await it.get("/api/x", anonymous(f"user {number}"))
                    arm = {b"canary": b"catalog 1", b"control": b"monolith 1"}
                    assert answer.body == arm[answer.get(b"x-strangler-arm")]
            assert (len(it.catalog.requests), len(it.monolith.requests)) == (1, 1)

    run(main())


def test_an_answer_of_the_fallback_is_not_kept_for_the_canary() -> None:
    async def main() -> None:
        async with lab(group=FRESH, catalog=reply(b"no", status=b"500 No")) as it:
            assert [(await it.get("/api/x")).get(b"x-cache") for _ in range(2)] == [b"miss", b"miss"]
            assert len(it.catalog.requests) == 2

    run(main())


def test_requests_for_one_thing_wait_for_one_answer() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def slow(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            await reply(b"once")(request, reader, writer)

        async with lab(group=FRESH, catalog=slow) as it:
            going = [asyncio.ensure_future(it.get("/api/x")) for _ in range(10)]
            await until(lambda: len(it.plane.active) == 10 and len(it.catalog.requests) == 1)
            gate.set()
            assert {answer.body for answer in await asyncio.gather(*going)} == {b"once"}
            assert len(it.catalog.requests) == 1

    run(main())


def test_who_waits_in_vain_goes_on() -> None:
    """For an answer that is not kept, for one whose client left, and for one that takes too long."""

    async def main() -> None:
        gate = asyncio.Event()

        async def slow(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            await reply(b"own", headers=b"Cache-Control: no-store\r\n")(request, reader, writer)

        async with lab(group=FRESH, catalog=slow) as it:
            going = [asyncio.ensure_future(it.get("/api/x")) for _ in range(3)]
            await until(lambda: len(it.plane.active) == 3)
            gate.set()
            assert [answer.body for answer in await asyncio.gather(*going)] == [b"own"] * 3
            gate.clear()
            first = await it.connect()
            await first.send(b"GET /api/x HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            await until(lambda: len(it.catalog.requests) == 4)
            second = asyncio.ensure_future(it.get("/api/x"))
            await until(lambda: len(it.plane.active) == 2)
            first.reset()
            await until(lambda: len(it.catalog.requests) == 5)
            third = asyncio.ensure_future(it.get("/api/x"))
            await until(lambda: len(it.catalog.requests) == 6)  # after its second of patience
            gate.set()
            assert (await second).body == (await third).body == b"own"

    run(main())


def with_tag(seen: list[Message]) -> Script:
    """Answers 304 to who has version 1."""

    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        head = b'ETag: "v1"\r\nCache-Control: max-age=1\r\nAge: 0\r\n'
        if request.get(b"if-none-match") == b'"v1"':
            writer.write(b"HTTP/1.1 304 Not Modified\r\n" + head.replace(b"=1", b"=600") + b"\r\n")
            await writer.drain()
        else:
            await reply(b"version 1", headers=head)(request, reader, writer)

    return script


def test_a_stale_answer_is_asked_about_and_served_again() -> None:
    async def main() -> None:
        seen: list[Message] = []
        group = "cache: {}\n    transform: {request: {set: {X-Api: '2'}}, path: {prefix: {/api: /v2}}}"
        async with lab(group=group, catalog=with_tag(seen)) as it:
            assert (await it.get("/api/x")).body == b"version 1"

            async def asked_again() -> bool:
                assert (await it.get("/api/x")).body == b"version 1"
                return len(seen) == 2

            await until_true(asked_again)
            assert seen[1].get(b"if-none-match") == b'"v1"'
            assert (seen[1].target, seen[1].get(b"x-api")) == (b"/v2/x", b"2")
            for _ in range(3):
                assert (await it.get("/api/x")).body == b"version 1"
            assert len(seen) == 2
            told = await it.get("/api/x", 'If-None-Match: "v1"')
            assert (told.status, told.get(b"etag"), told.get(b"content-length")) == (304, b'"v1"', b"")

    run(main())


def test_a_failure_while_asking_again_is_not_hidden() -> None:
    async def main() -> None:
        seen: list[Message] = []
        async with lab(group="cache: {}", catalog=with_tag(seen)) as it:
            await it.get("/api/x")
            it.drained()
            it.catalog.script = reply(b"no", status=b"500 No")

            async def fell_back() -> bool:
                return (await it.get("/api/x")).body == b"monolith"

            await until_true(fell_back)
            wire = it.drained()
            assert wire["catalog"]["canary"]["errors"] >= 1

    run(main())


def test_a_write_empties_the_cache_and_what_was_read_before_it_is_not_kept() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        answers = iter([b"old", b"old", b"new", b"never"])

        async def script(
            request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            body = next(answers)
            if request.target == b"/api/slow":
                await gate.wait()
            await reply(body)(request, reader, writer)

        async with lab(group=FRESH, catalog=script) as it:
            assert (await it.get("/api/x")).body == b"old"
            slow = asyncio.ensure_future(it.get("/api/slow"))
            await until(lambda: len(it.catalog.requests) == 2)
            assert (await it.get("/api/x", "Content-Length: 0", method="POST")).body == b"monolith"
            gate.set()
            assert (await slow).body == b"old"
            assert (await it.get("/api/x")).body == b"new"
            assert (await it.get("/api/slow")).get(b"x-cache") == b"miss"

    run(main())


def test_a_change_of_a_percentage_keeps_the_cache_and_another_policy_does_not() -> None:
    async def main() -> None:
        async with lab(group=FRESH, catalog=numbered()) as it:
            await it.get("/api/x")
            it.use(group=FRESH, percent=99.99)
            assert (await it.get("/api/x", anonymous("a"))).body == b"answer 1"
            it.use(group="cache: {fresh: 50000}")
            assert (await it.get("/api/x", anonymous("a"))).body == b"answer 2"

    run(main())


def test_every_worker_is_told_of_changes_and_of_writes(tmp_path: Path) -> None:
    async def main() -> None:
        group = "cache: {fresh: 60000, tables: [catalog_product]}"
        async with proxy(tmp_path, group=group) as it:
            catalog: Backend = it.catalog

            async def everybody(body: bytes) -> bool:
                answers = []
                for _ in range(24):  # on connections of their own, so of both workers
                    client = await it.connect()
                    answers.append((await client.get("/api/x")).body)
                    client.close()
                return set(answers) == {body}

            assert await everybody(b"catalog")
            asked = len(catalog.requests)
            assert asked <= 2
            catalog.script = reply(b"changed")
            assert await everybody(b"catalog")
            told = await it.admin.post("/admin/invalidate", content=json.dumps({"tables": ["other"]}))
            assert (told.status_code, told.json()) == (200, {"groups": [], "caches": 1})
            assert await everybody(b"catalog")
            told = await it.admin.post(
                "/admin/invalidate", content=json.dumps({"tables": ["catalog_product"]})
            )
            assert (told.status_code, told.json()) == (200, {"groups": ["catalog"], "caches": 1})
            assert await everybody(b"changed")  # at once: the answer came when every worker was done
            catalog.script = reply(b"written")
            client = await it.connect()
            assert (await client.get("/api/x", "Content-Length: 0", method="POST")).status == 200
            client.close()
            await until_true(lambda: everybody(b"written"))  # the other worker hears of it a moment later
            refused = await it.admin.post("/admin/invalidate", content=b'{"tables": 5}')
            assert refused.status_code == 400
            outcomes = await it.outcomes()
            assert outcomes["canary"]["cached"] >= 60

    run(main())


def test_an_answer_from_memory_that_issues_a_cookie_is_not_shared_with_it() -> None:
    async def main() -> None:
        shared = numbered(headers=b"Cache-Control: public, max-age=60\r\n")
        async with lab(group=FRESH, catalog=shared) as it:
            for served in (b"miss", b"hit"):
                answer = await it.get("/api/x")
                assert (answer.get(b"x-cache"), len(answer.all(b"set-cookie"))) == (served, 1)
                assert b'private="Set-Cookie"' in answer.all(b"cache-control")

    run(main())


def in_its_language() -> Script:
    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = request.get(b"accept-language") or b"default"
        await reply(body, headers=b"Vary: Accept-Language\r\n")(request, reader, writer)

    return script


def test_a_header_that_is_taken_off_on_the_way_names_no_variant() -> None:
    async def main() -> None:
        async with lab(group=FRESH, catalog=in_its_language()) as it:
            french = "Accept-Language: fr"
            assert (await it.get("/api/x", french, "Connection: Accept-Language")).body == b"default"
            assert (await it.get("/api/x", french)).body == b"fr"
            assert (await it.get("/api/x", french, "Connection: Accept-Language")).body == b"default"
            assert (await it.get("/api/x", french, "Connection: keep-alive")).get(b"x-cache") == b"hit"

    run(main())


def test_hosts_are_kept_apart_by_all_that_tells_of_them() -> None:
    async def script(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = request.get(b"host") + b" " + request.get(b"x-forwarded-host")
        await reply(body)(request, reader, writer)

    async def main() -> None:
        async with lab(group=FRESH, catalog=script, more="trusted_proxies: [127.0.0.1]") as it:
            client = await it.connect()
            for host, told in ((b"evil.test", b"shop.test"), (b"shop.test", b"shop.test")):
                await client.send(
                    b"GET /api/x HTTP/1.1\r\nHost: %b\r\nX-Forwarded-Host: %b\r\n\r\n" % (host, told)
                )
                assert (await client.response()).body == host + b" " + told
            client.close()
            odd = "X-Forwarded-Proto: X-Forwarded-Host: shop.test"
            answer = await it.get("/api/x", odd, "X-Forwarded-Host: other.test")
            assert answer.body == b"shop.test other.test"

    run(main())

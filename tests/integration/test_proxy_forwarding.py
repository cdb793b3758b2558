"""What passes through the proxy on a good day: heads, bodies, cookies, connections, in both directions."""

import asyncio
import re

from strangler_proxy.identity import USER_COOKIE, CookieSigner
from tests.proxy_lab import SECRET, Message, anonymous, lab, raw, reply, run, until

CONTROL_AT_50 = anonymous("shopper-0")


def test_head_is_forwarded_as_received_but_for_what_belongs_to_the_hop() -> None:
    async def main() -> None:
        async with lab() as it:
            client = await it.connect()
            await client.send(
                b"GET /cart/../x//y%2Fz?q=a+b HTTP/1.1\r\nhOsT: shop.test:8000\r\n"
                b"X-Odd-Case: 1\r\nx-odd-case: 2\r\n"
                b"Connection: keep-alive, X-Private\r\nX-Private: secret\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
                b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n"
                b"X_Forwarded_For: 6.6.6.6\r\nX-Strangler-User: 1\r\nX_Strangler_User: 1\r\n"
                b"traceparent: 00-1-2-01\r\n\r\n"
            )
            response = await client.response()
            seen = it.monolith.requests[0]
            assert seen.start == b"GET /cart/../x//y%2Fz?q=a+b HTTP/1.1"
            assert seen.get(b"host") == b"shop.test:8000"
            assert seen.all(b"x-odd-case") == [b"1", b"2"]
            assert [name for name, _ in seen.headers if name.lower() == b"x-odd-case"] == [
                b"X-Odd-Case",
                b"x-odd-case",
            ]
            assert seen.get(b"traceparent") == b"00-1-2-01"
            assert seen.get(b"x-forwarded-for") == b"127.0.0.1"
            assert seen.get(b"x-forwarded-proto") == b"http"
            assert seen.get(b"x-forwarded-host") == b"shop.test:8000"
            assert seen.get(b"forwarded") == b'for=127.0.0.1;host="shop.test:8000";proto=http'
            assert (seen.get(b"te"), seen.get(b"connection")) == (b"trailers", b"TE")
            gone = {b"x-private", b"keep-alive"}
            gone |= {b"x_forwarded_for", b"x-strangler-user", b"x_strangler_user"}
            assert gone.isdisjoint(name.lower() for name, _ in seen.headers)
            assert response.get(b"x-request-id") == seen.get(b"x-request-id") != b""
            client.close()

    run(main())


def test_trusted_proxy_continues_its_chain() -> None:
    async def main() -> None:
        async with lab(more="trusted_proxies: [127.0.0.0/8]") as it:
            response = await it.get(
                "/api/x",
                "X-Forwarded-For: 1.1.1.1, 2.2.2.2",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: www.shop.test",
            )
            seen = it.catalog.requests[0]
            assert seen.get(b"x-forwarded-for") == b"1.1.1.1, 2.2.2.2, 127.0.0.1"
            assert seen.get(b"x-forwarded-proto") == b"https"
            assert seen.get(b"x-forwarded-host") == b"www.shop.test"
            assert b"; Secure" in response.get(b"set-cookie")

    run(main())


def test_request_id_is_kept_when_sane_and_made_when_not() -> None:
    async def main() -> None:
        async with lab(monolith=reply(headers=b"X-Request-ID: of-the-app\r\n")) as it:
            kept = await it.get("/", "X-Request-ID: abc-123")
            assert kept.get(b"x-request-id") == b"abc-123"
            assert it.monolith.requests[-1].get(b"x-request-id") == b"abc-123"
            made = await it.get("/", "X-Request-ID: two words")
            assert re.fullmatch(rb"[0-9a-f]+-[0-9a-f]+", made.get(b"x-request-id"))

    run(main())


def test_response_head_keeps_order_case_and_repeats() -> None:
    async def main() -> None:
        headers = (
            b"SET-Cookie: a=1\r\nset-cookie: b=2\r\nX-Strangler-Debug: x\r\nETag: W/1\r\nKeep-Alive: 5\r\n"
        )
        async with lab(monolith=reply(status=b"299 Odd Reason", headers=headers)) as it:
            response = await it.get("/")
            assert response.start == b"HTTP/1.1 299 Odd Reason"
            assert response.headers[:3] == [
                (b"SET-Cookie", b"a=1"),
                (b"set-cookie", b"b=2"),
                (b"ETag", b"W/1"),
            ]
            names = {name.lower() for name, _ in response.headers}
            assert names.isdisjoint({b"x-strangler-debug", b"keep-alive"})

    run(main())


def test_no_cookie_of_one_user_reaches_another_through_the_pool() -> None:
    async def main() -> None:
        async with lab(monolith=reply(headers=b"Set-Cookie: sessionid=of-A\r\n")) as it:
            await it.get("/login", "Cookie: who=A")
            await it.get("/")
            assert it.monolith.connections == 1
            assert it.monolith.requests[1].all(b"cookie") == []

    run(main())


def test_upstream_connection_is_reused_and_dropped_when_the_backend_says_so() -> None:
    async def main() -> None:
        async with lab() as it:
            for _ in range(5):
                await it.get("/")
            assert it.monolith.connections == 1
            it.monolith.script = reply(headers=b"Connection: close\r\n")
            await it.get("/")
            await it.get("/")
            assert it.monolith.connections == 2

    run(main())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def echo(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.target.endswith(b"slow"):
            await asyncio.sleep(0.05)
        body = request.method + request.target + request.body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def main() -> None:
        async with lab(monolith=echo, catalog=echo) as it:
            client = await it.connect()
            await client.send(
                b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
                b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz"
                b"GET /api/c HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            bodies = [(await client.response()).body for _ in range(3)]
            assert bodies == [b"GET/slow", b"POST/bxyz", b"GET/api/c"]
            client.close()

    run(main())


def test_head_204_304_have_no_body_and_the_connection_goes_on() -> None:
    async def main() -> None:
        async with lab(monolith=reply(b"12345")) as it:
            client = await it.connect()
            response = await client.get("/", method="HEAD")
            assert response.get(b"content-length") == b"5"
            it.monolith.script = raw(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert (await client.get("/")).status == 204
            it.monolith.script = raw(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: x\r\n\r\n")
            response = await client.get("/")
            assert (response.status, response.get(b"content-length")) == (304, b"77")
            it.monolith.script = reply(b"after")
            assert (await client.get("/")).body == b"after"
            client.close()

    run(main())


def test_expect_100_continue_is_asked_of_the_backend() -> None:
    async def upload(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(request.get(b"content-length")))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def main() -> None:
        async with lab(monolith=upload, read_bodies=False) as it:
            client = await it.connect()
            await client.send(
                b"POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
            )
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"body")
            response = await client.response()
            assert (response.status, response.body) == (201, b"body")
            assert it.monolith.connections == 1
            client.close()

    run(main())


def test_chunked_upload_and_chunked_answer() -> None:
    async def echo(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert request.get(b"transfer-encoding") == b"chunked"
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in request.body:
            writer.write(b"1\r\n%c\r\n" % byte)
            await writer.drain()
        writer.write(b"0\r\nX-Trailer: 1\r\n\r\n")

    async def main() -> None:
        async with lab(monolith=echo) as it:
            client = await it.connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (b"3\r\nab", b"c\r\n1;ext=1\r\nd\r", b"\n0\r\nX-T: 1\r\n\r\n"):
                await client.send(piece)
                await asyncio.sleep(0)
            assert (await client.response()).body == b"abcd"
            assert (await client.get("/api")).body == b"catalog"
            client.close()

    run(main())


def test_http10_client_gets_an_unchunked_answer_and_the_end_of_the_connection() -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        async with lab(monolith=raw(answer)) as it:
            client = await it.connect()
            await client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            received = await client.reader.read()
            assert received.endswith(b"\r\n\r\nabc")
            assert b"chunked" not in received
            client.close()

    run(main())


def test_answer_that_ends_with_the_connection_is_passed_on_chunked() -> None:
    async def main() -> None:
        async with lab(monolith=raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True)) as it:
            client = await it.connect()
            assert (await client.get("/")).body == b"until the end"
            assert (await client.get("/api")).body == b"catalog"
            client.close()

    run(main())


def test_client_that_ends_its_side_still_gets_the_answer() -> None:
    async def slow(_request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

    async def main() -> None:
        async with lab(monolith=slow) as it:
            client = await it.connect()
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.writer.write_eof()
            assert (await client.reader.read()).endswith(b"late")
            client.close()

    run(main())


def test_absolute_target_is_routed_and_forwarded_by_its_path() -> None:
    async def main() -> None:
        async with lab() as it:
            response = await it.get("http://other.test/api/p?x=1")
            assert response.body == b"catalog"
            assert it.catalog.requests[0].start == b"GET /api/p?x=1 HTTP/1.1"
            assert it.catalog.requests[0].get(b"host") == b"other.test"

    run(main())


def test_safe_methods_go_to_the_canary_unsafe_ones_to_the_owner() -> None:
    async def main() -> None:
        async with lab() as it:
            client = await it.connect()
            for method in ("GET", "HEAD", "OPTIONS"):
                await client.get("/api/x", method=method)
            assert [r.method for r in it.catalog.requests] == [b"GET", b"HEAD", b"OPTIONS"]
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                await client.get("/api/x", method=method)
            assert len(it.catalog.requests) == 3
            assert len(it.monolith.requests) == 4
            it.use(owner="catalog", percent=0)
            await client.get("/api/x", method="DELETE")
            assert it.catalog.requests[-1].method == b"DELETE"
            client.close()

    run(main())


def test_anonymous_cookie_is_issued_once_and_keeps_the_side() -> None:
    async def main() -> None:
        async with lab(percent=50) as it:
            first = await it.get("/api/x")
            cookie = first.get(b"set-cookie")
            assert b"HttpOnly" in cookie
            assert b"SameSite=Lax" in cookie
            assert b"Secure" not in cookie
            pair = "Cookie: " + cookie.split(b";")[0].decode()
            for _ in range(5):
                again = await it.get("/api/x", pair)
                assert again.body == first.body
                assert again.all(b"set-cookie") == []
            forged = await it.get("/api/x", "Cookie: strangler_id=" + "A" * 22 + "." + "B" * 22)
            assert forged.all(b"set-cookie") != []

    run(main())


def test_cookie_is_kept_from_shared_caches_and_not_put_on_assets() -> None:
    async def main() -> None:
        public = b"Cache-Control: public, max-age=60\r\n"
        async with lab(
            catalog=reply(headers=public), monolith=reply(headers=public + b"Content-Type: image/png\r\n")
        ) as it:
            issued = await it.get("/api/x")
            assert issued.all(b"cache-control") == [b"public, max-age=60", b'private="Set-Cookie"']
            asset = await it.get("/static/logo.png")
            assert asset.all(b"set-cookie") == []
            assert asset.all(b"cache-control") == [b"public, max-age=60"]
            it.monolith.script = reply(headers=b"Content-Type: text/html; charset=utf-8\r\n")
            page = await it.get("/")
            assert page.get(b"set-cookie").startswith(b"strangler_id=")

    run(main())


def test_login_and_logout_change_the_identity() -> None:
    async def main() -> None:
        signer = CookieSigner(SECRET)
        async with lab(monolith=reply(headers=b"X-Strangler-User: 42\r\n")) as it:
            login = await it.get("/login", method="POST")
            cookie = login.get(b"set-cookie")
            value = cookie.split(b";")[0].removeprefix(b"strangler_user=")
            assert signer.verify(USER_COOKIE, value) == b"42"
            assert login.all(b"x-strangler-user") == []
            pair = f"Cookie: strangler_user={value.decode()}"
            assert (await it.get("/", pair)).all(b"set-cookie") == []
            assert (await it.get("/api/x", pair)).all(b"set-cookie") == []
            it.monolith.script = reply(headers=b"X-Strangler-User: \r\n")
            logout = await it.get("/logout", pair)
            assert logout.get(b"set-cookie").startswith(b"strangler_user=; ")
            assert b"Max-Age=0" in logout.get(b"set-cookie")
            assert (await it.get("/")).all(b"set-cookie") == []

    run(main())


def test_service_cannot_name_the_user() -> None:
    async def main() -> None:
        async with lab(catalog=reply(headers=b"X-Strangler-User: 1\r\n")) as it:
            response = await it.get("/api/x", anonymous("a"))
            assert response.all(b"set-cookie") == []
            assert response.all(b"x-strangler-user") == []

    run(main())


def test_testers_choose_a_side_only_where_the_routes_allow_it() -> None:
    async def main() -> None:
        async with lab(percent=0) as it:
            assert (await it.get("/api/x", "X-Strangler-Side: canary")).body == b"monolith"
            it.use(
                percent=0, group="overrides: {header: X-Strangler-Side, cookie: side}", more="expose: true"
            )
            chosen = await it.get("/api/x", "X-Strangler-Side: canary")
            assert (chosen.body, chosen.get(b"x-strangler-arm")) == (b"catalog", b"canary")
            assert (await it.get("/api/x", "Cookie: side=catalog")).body == b"catalog"
            assert (await it.get("/api/x", "Cookie: side=control")).body == b"monolith"
            # one writer: the owner takes writes whatever a tester says
            assert (await it.get("/api/x", "X-Strangler-Side: canary", method="POST")).body == b"monolith"
            it.items()
            await it.get("/api/x", "X-Strangler-Side: canary")
            assert it.items() == []

    run(main())


def test_a_change_of_routes_closes_no_client_connection() -> None:
    async def main() -> None:
        async with lab(percent=0) as it:
            client = await it.connect()
            assert (await client.get("/api/x")).body == b"monolith"
            it.use(percent=100)
            assert (await client.get("/api/x")).body == b"catalog"
            client.close()
            await until(lambda: not it.plane.clients)

    run(main())


def test_who_is_remembered_by_cookies_is_looked_at_anew_under_other_routes() -> None:
    async def main() -> None:
        async with lab(sticky="user") as it:
            cookies = anonymous("ann") + "; who=7"
            for sticky, new_clients in (("user", 1), ("cookie:who", 1), ("user", 0)):
                it.use(sticky=sticky)
                for _ in range(3):  # the second and third time by memory
                    assert (await it.get("/api/x", cookies)).status == 200
                arm = it.drained()["catalog"]["canary"]
                assert (arm["requests"], arm["clients"]) == (3, new_clients)

    run(main())

"""One answer from several backends, over the ordinary data path."""

import asyncio
import json
from typing import Any

from tests.proxy_lab import Lab, Message, Script, anonymous, hang, lab, raw, reply, run, until

DASHBOARD = """\
  dashboard:
    paths: [/dashboard]
    aggregate:
      timeout: {timeout}
      parts:
        products: {{path: "/api/products?size=2", pass_query: true, required: {required}, timeout: 150, max_body: 2000}}
        cart: {{path: /cart, timeout: 150}}
"""


def dashboard(*, timeout: int = 2000, required: str = "false", more: str = "") -> str:
    return DASHBOARD.format(timeout=timeout, required=required) + more


def said(answer: Message) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(answer.body)
    return whole


CART = reply(b'{"items": []}', headers=b"Cache-Control: private, max-age=5\r\nSet-Cookie: cart=7; Path=/\r\n")
PRODUCTS = reply(b'[{"price": 1.50}]', headers=b"Cache-Control: max-age=60\r\nX-Strangler-Internal: x\r\n")


def test_parts_come_from_their_own_backends_with_the_clients_cookies_and_id() -> None:
    async def main() -> None:
        async with lab(monolith=CART, catalog=PRODUCTS, more=dashboard()) as proxy:
            lines = [
                "X-Request-ID: abc-1",
                anonymous("u1"),
                "Cookie: theme=dark",
                "If-None-Match: x",
                "X-Strangler-A: b",
            ]
            answer = await proxy.get("/dashboard?page=3", *lines)
            assert answer.status == 200
            assert answer.body == b'{"products":[{"price": 1.50}],"cart":{"items": []},"_errors":{}}'
            assert answer.get(b"cache-control") == b"private, max-age=5"
            assert answer.get(b"set-cookie") == b"cart=7; Path=/"
            assert answer.get(b"x-request-id") == b"abc-1"
            assert answer.get(b"content-type") == b"application/json"
            (product,), (cart,) = proxy.catalog.requests, proxy.monolith.requests
            assert product.target == b"/api/products?size=2&page=3"
            assert cart.target == b"/cart"
            for request in (product, cart):
                assert request.get(b"x-request-id") == b"abc-1"
                assert request.get(b"accept") == b"application/json"
                assert request.get(b"host") == b"shop.test"
                assert request.get(b"x-forwarded-for") == b"127.0.0.1"
                assert b"theme=dark" in b"; ".join(request.all(b"cookie"))
                assert not request.all(b"if-none-match")
                assert not request.all(b"x-strangler-a")
            ((arm, count, percent),) = proxy.items()
            assert (arm, count, float(percent)) == ("canary", 1, 100)
            assert not proxy.plane.active

    run(main())


def test_methods() -> None:
    async def main() -> None:
        async with lab(monolith=CART, catalog=PRODUCTS, more=dashboard()) as proxy:
            client = await proxy.connect()
            whole = await client.get("/dashboard")
            head = await client.get("/dashboard", method="HEAD")
            assert head.status == 200
            assert int(head.get(b"content-length")) == len(whole.body)
            asked = len(proxy.catalog.requests)
            options = await client.get("/dashboard", method="OPTIONS")
            assert (options.status, options.get(b"allow")) == (204, b"GET, HEAD, OPTIONS")
            refused = await client.get("/dashboard", method="DELETE")
            assert (refused.status, refused.get(b"allow")) == (405, b"GET, HEAD, OPTIONS")
            assert len(proxy.catalog.requests) == asked
            client.close()

    run(main())


def test_who_has_no_identity_gets_one_and_the_same_in_every_part() -> None:
    async def main() -> None:
        more = dashboard(more="  carts: {backend: catalog, paths: [/cart], percent: 0}\n")
        async with lab(monolith=CART, catalog=PRODUCTS, more=more) as proxy:
            answer = await proxy.get("/dashboard")
            issued = [cookie for cookie in answer.all(b"set-cookie") if cookie.startswith(b"strangler_id=")]
            assert len(issued) == 1
            sent = [request.get(b"cookie") for request in (*proxy.catalog.requests, *proxy.monolith.requests)]
            assert sent == [issued[0].partition(b";")[0]] * 2

    run(main())


async def broken(
    script: Script, reason: str, status: int, *, fallback: str = "false", required: str = "false"
) -> Lab:
    more = dashboard(required=required)
    async with lab(monolith=CART, catalog=script, more=more, fallback=fallback) as proxy:
        answer = await proxy.get("/dashboard")
        assert answer.status == (502 if required == "true" else 200)
        whole = said(answer)
        assert whole["products"] is None
        assert whole["cart"] == {"items": []}
        assert whole["_errors"] == {"products": {"status": status, "reason": reason}}
        assert answer.get(b"cache-control") == b"no-store"
        await until(lambda: not proxy.plane.active)
        return proxy


def test_a_part_that_fails_is_null_and_the_failure_is_its_groups() -> None:
    async def main() -> None:
        proxy = await broken(hang, "Gateway Timeout", 504)
        ((arm, *failure),) = proxy.items()
        assert arm == "canary"
        assert "timeout" in failure
        await broken(reply(status=b"500 No"), "Internal Server Error", 500)
        await broken(reply(b"<html>"), "the answer is not JSON", 502)
        await broken(raw(b"", reset=True), "Bad Gateway", 502)
        await broken(
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", close=True), "the answer broke off", 502
        )
        await broken(reply(b" " * 3000), "the answer is longer than 2000 bytes", 502)
        await broken(reply(b" " * 300_000), "the answer is longer than 2000 bytes", 502)
        await broken(reply(status=b"404 No"), "Not Found", 404, required="true")

    run(main())


def test_the_fallback_answers_for_a_part_too() -> None:
    async def main() -> None:
        for script in (hang, reply(status=b"503 No")):
            async with lab(monolith=CART, catalog=script, more=dashboard()) as proxy:
                answer = await proxy.get("/dashboard")
                assert said(answer) == {"products": {"items": []}, "cart": {"items": []}, "_errors": {}}
                (item,) = proxy.items()
                assert item[0] == "canary"

    run(main())


def test_what_is_not_there_in_time_is_left_out() -> None:
    async def main() -> None:
        async with lab(monolith=CART, catalog=hang, more=dashboard(timeout=60), fallback="false") as proxy:
            answer = await proxy.get("/dashboard")
            assert said(answer)["_errors"] == {
                "products": {"status": 504, "reason": "no answer within 60 ms"}
            }
            await until(lambda: not proxy.plane.active)
            await until(lambda: not proxy.catalog.open)

    run(main())


def test_a_client_that_leaves_takes_its_parts_along() -> None:
    async def main() -> None:
        async with lab(monolith=hang, catalog=hang, more=dashboard()) as proxy:
            client = await proxy.connect()
            await client.send(b"GET /dashboard HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: bool(proxy.catalog.requests and proxy.monolith.requests))
            client.reset()
            await until(lambda: not proxy.plane.active)
            await until(lambda: not proxy.catalog.open and not proxy.monolith.open)

    run(main())


def test_limits_hold_for_the_whole_and_for_its_parts() -> None:
    async def main() -> None:
        limit = "rate_limit: [{by: group, requests: 1, per: hour, burst: %d}]"
        more = dashboard() + f"    {limit % 3}\n"
        async with lab(monolith=CART, catalog=PRODUCTS, more=more, group=limit % 2) as proxy:
            answers = [await proxy.get("/dashboard") for _ in range(4)]
            assert [answer.status for answer in answers] == [200, 200, 200, 429]
            errors = [said(answer)["_errors"] for answer in answers[:3]]
            assert errors == [{}, {}, {"products": {"status": 429, "reason": "Too Many Requests"}}]

    run(main())


def test_many_at_once_and_pipelined_are_not_mixed_up() -> None:
    async def echo(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reply(json.dumps(request.target.decode()).encode())(request, reader, writer)

    async def main() -> None:
        async with lab(monolith=echo, catalog=echo, more=dashboard()) as proxy:

            async def ask(number: int) -> None:
                client = await proxy.connect()
                await client.send(
                    b"".join(
                        b"GET /dashboard?n=%d-%d HTTP/1.1\r\nHost: a\r\n\r\n" % (number, turn)
                        for turn in range(5)
                    )
                )
                for turn in range(5):
                    whole = said(await client.response())
                    assert whole == {
                        "products": f"/api/products?size=2&n={number}-{turn}", "cart": "/cart", "_errors": {}
                    }  # fmt: skip
                client.close()

            await asyncio.gather(*(ask(number) for number in range(20)))

    run(main())


def test_an_identity_nobody_signed_does_not_split_the_parts() -> None:
    async def main() -> None:
        async with lab(
            monolith=CART,
            catalog=PRODUCTS,
            more=dashboard(
                more="""\
  cart:
    paths: [/cart]
    backend: catalog
    percent: 0
"""
            ),
        ) as proxy:
            answer = await proxy.get("/dashboard", "Cookie: strangler_id=old.AAAAAAAAAAAAAAAAAAAAAA")
            issued = [cookie for cookie in answer.all(b"set-cookie") if cookie.startswith(b"strangler_id=")]
            assert len(issued) == 1

    run(main())

"""Trailers, what backends are told of the way a request came, and bulkheads: real sockets."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from strangler_proxy.headers import Peer, origin_of
from strangler_proxy.trailers import trailer_lines
from tests.proxy_lab import Lab, Message, anonymous, hang, lab, raw, reply, run, until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\n"
ENDED = CHUNKED + b"X-Sum: 5d41\r\nSet-Cookie: a=b\r\nX-Strangler-User: 7\r\n\r\n"


async def read_all(it: Lab, request: bytes) -> bytes:
    """Everything one connection gives back."""
    client = await it.connect()
    await client.send(request)
    said = await asyncio.wait_for(client.reader.read(), 5)
    client.close()
    return said


def get(*lines: str) -> bytes:
    return "\r\n".join(["GET /api/x HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def test_trailers_of_an_answer_reach_who_asked_for_them() -> None:
    async def main() -> None:
        async with lab(catalog=raw(ENDED)) as it:
            said = await read_all(it, get("TE: trailers", "Connection: TE, close"))
            assert said.endswith(b"5\r\nhello\r\n0\r\nX-Sum: 5d41\r\n\r\n")
            assert b"Trailer: X-Sum" in said
            (request,) = it.catalog.requests
            assert request.all(b"te") == [b"trailers"]
            assert request.all(b"connection") == [b"TE"]
            said = await read_all(it, get("Connection: close"))
            assert said.endswith(b"5\r\nhello\r\n0\r\n\r\n")
            assert not it.catalog.requests[1].all(b"te")

    run(main())


def test_trailers_of_a_request_reach_the_backend() -> None:
    async def trailing(_request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def main() -> None:
        async with lab(monolith=trailing, read_bodies=False) as it:
            client = await it.connect()
            head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            for _ in range(2):
                await client.send(
                    head + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nAuthorization: x\r\n\r\n"
                )
                answer = await client.response()
                assert answer.body.endswith(b"hello\r\n0\r\nX-Sum: 1\r\n\r\n")
            client.close()

    run(main())


def test_too_many_trailers_are_refused() -> None:
    async def main() -> None:
        async with lab(monolith=hang, read_bodies=False) as it:
            client = await it.connect()
            head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
            await client.send(head + b"".join(b"X-%d: 1\r\n" % number for number in range(200)) + b"\r\n")
            assert (await client.response()).status == 431
            client.close()
        async with lab(catalog=raw(CHUNKED + b"X: 1\r\n" * 200 + b"\r\n"), fallback="false") as it:
            said = await read_all(it, get("TE: trailers", "Connection: TE, close"))
            assert b"X: 1" not in said

    run(main())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"X-A", b"host", b"Content-Length", b"TRANSFER-ENCODING", b"Authorization", b"Set-Cookie", b"Cookie",
                 b"X-Strangler-User", b"X_Forwarded_For", b"Forwarded", b"Connection", b"Cache-Control", b"Range"]
            ),
            st.just(b"1"),
        )
    )
)  # fmt: skip
def test_only_harmless_trailers_pass(trailers: list[tuple[bytes, bytes]]) -> None:
    assert trailer_lines(trailers) == b"X-A: 1\r\n" * sum(name == b"X-A" for name, _ in trailers)


def test_backends_are_told_the_way() -> None:
    async def main() -> None:
        async with lab() as it:
            await it.get("/x", "Via: 1.0 fred", "Forwarded: for=6.6.6.6")
            (request,) = it.monolith.requests
            assert request.all(b"via") == [b"1.0 fred", b"1.1 strangler"]
            assert request.all(b"forwarded") == [b'for=127.0.0.1;host="shop.test";proto=http']
            assert not (await it.get("/x")).all(b"via")

    run(main())


def test_a_trusted_proxys_forwarded_is_continued() -> None:
    peer = Peer(b"10.0.0.1", trusted=True, secure=True)
    origin = origin_of(peer, b"shop", [(b"Forwarded", b"for=1.2.3.4"), (b"forwarded", b"for=5.6.7.8")])
    assert b'Forwarded: for=1.2.3.4, for=5.6.7.8, for=10.0.0.1;host="shop";proto=https\r\n' in origin.lines
    ours = origin_of(Peer(b"::1"), b"[::1]:80", None).lines
    assert b'Forwarded: for="[::1]";host="[::1]:80";proto=http\r\n' in ours


def test_peers_in_ipv6_clothes_are_known() -> None:
    async def main() -> None:
        async with lab(more='trusted_proxies: ["10.0.0.0/8"]') as it:
            assert it.plane.trusts("::ffff:10.1.2.3")
            assert not it.plane.trusts("::ffff:11.1.2.3")

    run(main())


def test_a_bulkhead_turns_away_what_a_backend_should_not_get() -> None:
    async def main() -> None:
        async with lab(catalog=hang, backend="limits: {in_flight: 2}") as it:
            waiting = [await it.connect() for _ in range(2)]
            for client in waiting:
                await client.send(get(anonymous("a")))
            await until(lambda: len(it.catalog.requests) == 2)
            assert (await it.get("/api/x")).body == b"monolith"  # fallback
            for client in waiting:
                client.reset()
        async with lab(catalog=hang, backend="limits: {in_flight: 1}", fallback="false") as it:
            client = await it.connect()
            await client.send(get(anonymous("a")))
            await until(lambda: len(it.catalog.requests) == 1)
            answer = await it.get("/api/x")
            assert (answer.status, answer.get(b"retry-after")) == (503, b"2")
            assert b"busy" in answer.body
            assert it.items() == []  # no evidence against the service
            client.reset()
            await until(lambda: it.plane.pool(it.plane.routes.backends["catalog"]).pending == 0)

    run(main())


def test_a_full_pool_is_no_evidence() -> None:
    async def main() -> None:
        limits = "limits: {connections: 1, waiting: 0}"
        async with lab(catalog=hang, backend=limits, fallback="false") as it:
            client = await it.connect()
            await client.send(get(anonymous("a")))
            await until(lambda: len(it.catalog.requests) == 1)
            assert (await it.get("/api/x")).status == 503
            assert it.items() == []
            client.reset()
        async with lab(catalog=reply(b"catalog"), backend=limits) as it:
            for _ in range(3):
                assert (await it.get("/api/x")).body == b"catalog"

    run(main())

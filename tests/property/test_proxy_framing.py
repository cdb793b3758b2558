"""Laws of the wire: how bytes happen to be cut into packets changes nothing, in either direction."""

import asyncio
import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.proxy_lab import Message, lab, read_response, run

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
BODY = st.binary(max_size=300)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A valid request and the body it carries."""
    path = "/" + "/".join(draw(st.lists(TOKEN, max_size=3)))
    lines = [f"X-{draw(TOKEN)}: {draw(TOKEN)}" for _ in range(draw(st.integers(0, 4)))]
    frame = draw(st.sampled_from(["none", "length", "chunked"]))
    if frame == "none":
        return f"GET {path} HTTP/1.1\r\nHost: a\r\n{_lines(lines)}\r\n".encode(), b""
    body = draw(BODY)
    if frame == "length":
        lines.append(f"Content-Length: {len(body)}")
        return f"POST {path} HTTP/1.1\r\nHost: a\r\n{_lines(lines)}\r\n".encode() + body, body
    lines.append("Transfer-Encoding: chunked")
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{_lines(lines)}\r\n".encode()
    return head + _chunked(body, draw(st.lists(st.integers(1, 50), max_size=10))), body


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\r\n" for line in lines)


def _chunked(body: bytes, sizes: list[int]) -> bytes:
    out = b""
    for size in sizes:
        piece, body = body[:size], body[size:]
        if piece:
            out += b"%x\r\n%b\r\n" % (len(piece), piece)
    if body:
        out += b"%x\r\n%b\r\n" % (len(body), body)
    return out + b"0\r\n\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if end > start]


async def echo(request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What was received, told back."""
    custom = sorted(name + b"=" + value for name, value in request.headers if name.startswith(b"X-"))
    ours = (b"X-Forwarded", b"X-Request-ID")
    told = b"|".join([request.start, *(line for line in custom if not line.startswith(ours)), request.body])
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    wanted=st.lists(requests(), min_size=1, max_size=4),
    places=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_requests_mean_the_same_however_they_are_cut(
    wanted: list[tuple[bytes, bytes]], places: list[int]
) -> None:
    async def ask(pieces: list[bytes]) -> list[bytes]:
        async with lab(monolith=echo) as it:
            client = await it.connect()
            for piece in pieces:
                await client.send(piece)
                await asyncio.sleep(0)
            answers = [(await client.response()).body for _ in wanted]
            assert [request.body for request in it.monolith.requests] == [body for _, body in wanted]
            client.close()
            return answers

    stream = b"".join(data for data, _ in wanted)
    assert run(ask(cut(stream, places))) == run(ask([stream]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=BODY,
    frame=st.sampled_from(["length", "chunked", "close"]),
    sizes=st.lists(st.integers(1, 50), max_size=10),
    places=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_answers_arrive_whole_however_they_are_cut(
    body: bytes, frame: str, sizes: list[int], places: list[int]
) -> None:
    match frame:
        case "length":
            answer = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        case "chunked":
            answer = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunked(
                body, sizes
            )
        case _:
            answer = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n" + body

    async def script(_request: Message, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in cut(answer, places):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if frame == "close":
            writer.close()

    async def main() -> None:
        async with lab(monolith=script) as it:
            client = await it.connect()
            for _ in range(2):
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                response = await read_response(client.reader)
                assert response.body == body
                assert response.get(b"x-a") == b"1"
            client.close()

    run(main())

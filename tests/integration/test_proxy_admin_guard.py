"""Who may do what on the admin port, on a real socket."""

import asyncio
import json

import pytest

from strangler_proxy.admin import AdminServer, Guard, Reply, WithBody, json_reply
from tests.proxy_lab import Client, Message, run

TOKEN = b"a token for tests, 32 bytes long"
BEARER = f"Authorization: Bearer {TOKEN.decode()}"


class Port:
    """An admin port whose handlers count."""

    def __init__(self, *, token: bytes = TOKEN, loopback: bool = True) -> None:
        self.changes: list[bytes] = []
        routing = {
            ("GET", "/state"): self._state,
            ("POST", "/change"): self._change,
            ("POST", "/say"): WithBody(self._say),
        }
        self._admin = AdminServer(routing, Guard(token, loopback=loopback))
        self._port = 0

    async def _state(self) -> Reply:
        return json_reply({"changes": len(self.changes)})

    async def _change(self) -> Reply:
        self.changes.append(b"")
        return json_reply({})

    async def _say(self, body: bytes) -> Reply:
        self.changes.append(body)
        return json_reply({"bytes": len(body)})

    async def __aenter__(self) -> "Port":
        self._server = await asyncio.start_server(self._admin.serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._admin.close()

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self._port))

    async def ask(self, request: str, *headers: str, host: str = "127.0.0.1:8010", body: str = "") -> Message:
        client = await self.connect()
        framing = [f"Content-Length: {len(body)}"] if body else []
        lines = [f"{request} HTTP/1.1", f"Host: {host}", *headers, *framing]
        await client.send(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        answer = await client.response()
        client.close()
        return answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        (["Authorization: Bearer wrong"], 401),
        ([f"Authorization: Basic {TOKEN.decode()}"], 401),
        (["Authorization: Bearer "], 401),
        ([BEARER, "Origin: http://127.0.0.1:8010"], 403),
        ([BEARER], 200),
        ([BEARER.replace("Bearer", "bearer")], 200),
    ],
)
def test_a_change_wants_the_token(headers: list[str], status: int) -> None:
    async def main() -> None:
        async with Port() as port:
            answer = await port.ask("POST /change", *headers)
            assert answer.status == status
            assert (answer.get(b"www-authenticate") == b"Bearer") is (status == 401)
            assert len(port.changes) == (status == 200)
            assert (await port.ask("GET /state")).status == 200

    run(main())


def test_without_a_token_nothing_can_be_changed() -> None:
    async def main() -> None:
        async with Port(token=b"") as port:
            for authorization in (BEARER, "Authorization: Bearer ", "Authorization: Bearer"):
                answer = await port.ask("POST /change", authorization)
                assert answer.status == 403
                assert b"STRANGLER_ADMIN_TOKEN" in answer.body
            assert not port.changes

    run(main())


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8010", True),
        ("localhost:8010", True),
        ("LOCALHOST", True),
        ("[::1]:8010", True),
        ("127.0.0.1", True),
        ("evil.example:8010", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
    ],
)
def test_a_strangers_name_for_this_machine_reads_nothing(host: str, allowed: bool) -> None:
    async def main() -> None:
        async with Port() as port:
            assert (await port.ask("GET /state", host=host)).status == (200 if allowed else 403)
        async with Port(loopback=False) as port:  # on other addresses names are what people use
            assert (await port.ask("GET /state", host=host)).status == 200

    run(main())


def test_requests_that_come_in_one_piece_are_answered_one_by_one() -> None:
    async def main() -> None:
        async with Port() as port:
            client = await port.connect()
            get = b"GET /state HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            post = f"POST /say HTTP/1.1\r\nHost: 127.0.0.1\r\n{BEARER}\r\nContent-Length: 5\r\n\r\nhello".encode()
            await client.send(get + post + get)
            counts = [json.loads((await client.response()).body) for _ in range(3)]
            assert counts == [{"changes": 0}, {"bytes": 5}, {"changes": 1}]
            assert port.changes == [b"hello"]
            client.close()

    run(main())


def test_a_body_is_bounded() -> None:
    async def main() -> None:
        async with Port() as port:
            assert (await port.ask("POST /say", BEARER, body="x" * 60_000)).status == 200
            client = await port.connect()
            head = f"POST /say HTTP/1.1\r\nHost: 127.0.0.1\r\n{BEARER}\r\nContent-Length: 100000\r\n\r\n"
            await client.send(head.encode() + b"x" * 90_000)
            assert (await client.response()).status == 413
            client.close()
            assert [len(body) for body in port.changes] == [60_000]

    run(main())

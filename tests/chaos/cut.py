"""A TCP relay in front of a server's socket that can be cut in the three ways a network fails.

close: both ends see an orderly end. reset: both see RST. silence: nothing comes through and nobody is told, new
connections included; `heal` lets what waited go on, `heal(forget=True)` resets it, as a firewall does that has lost its
table. Where the far end is PostgreSQL's Unix socket the server trusts it: no passwords. `lead_to` sends later
connections elsewhere.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST


class Cut:
    """The relay, in a thread of its own while the `with` block runs."""

    def __init__(self, server: Path | int) -> None:
        """`server`: a Unix socket, or a port of this machine."""
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._passes = asyncio.Event()
        self._passes.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="cut")

    def dsn(self, dbname: str) -> str:
        """The URL of a database behind the relay."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{dbname}?sslmode=disable&gssencmode=disable"

    def lead_to(self, server: Path | int) -> None:
        """Later connections go to the server there."""
        self._server = server

    def close(self) -> None:
        """End every connection in good order."""
        self._do(self._drop(reset=False))

    def reset(self) -> None:
        """End every connection with RST."""
        self._do(self._drop(reset=True))

    def silence(self) -> None:
        """Let nothing through from now on."""
        self._do(self._set(passes=False))

    def heal(self, *, forget: bool = False) -> None:
        """Let everything through again; `forget`: but not on the connections that there are."""
        if forget:
            self._do(self._drop(reset=True))
        self._do(self._set(passes=True))

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: "asyncio.coroutines.Coroutine[None, None, None]") -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._accepting = await asyncio.start_server(self._serve, sock=self._listener)

    async def _set(self, *, passes: bool) -> None:
        if passes:
            self._passes.set()
        else:
            self._passes.clear()

    async def _drop(self, *, reset: bool) -> None:
        for writer in list(self._writers):
            if (
                reset
                and (end := writer.get_extra_info("socket")) is not None
                and end.family == socket.AF_INET
            ):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()

    async def _end(self) -> None:
        self._accepting.close()
        self._passes.set()
        await self._drop(reset=False)
        ours = asyncio.current_task()
        relays = [task for task in asyncio.all_tasks() if task is not ours]
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._passes.wait()
            far_reader, far_writer = await self._reach()
        except OSError:  # the server is down: the client sees its connection end
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, far_writer))
                both.create_task(self._carry(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
            for each in (writer, far_writer):
                each.transport.abort()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._server, int):
            return await asyncio.open_connection("127.0.0.1", self._server)
        return await asyncio.open_unix_connection(str(self._server))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # either end may go at any moment; that is what this is for
            while data := await reader.read(65536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
        if not writer.is_closing():
            writer.close()

"""A TCP proxy that does to a connection what networks do: delays, slices, swallows, cuts, refuses, mixes up.

    with Proxy(redis.port, redis=True) as proxy:
        cache = Cache.from_url("memory://", redis.url_at(proxy.port))
        proxy.replies.latency_s = 0.2           # every reply takes 200 ms more, from now on
        proxy.replies.slice_bytes = 1           # and arrives byte by byte
        proxy.requests.black_hole = True        # what is asked is taken and never arrives
        proxy.replies.cut_in(17)                # 17 bytes from now the connection is reset, once
        proxy.heal()

It runs on a thread and an event loop of its own, so that a stalled loop under test stalls nothing here. All faults can
be changed at any time from any thread, and count for open connections as for new ones. Toxiproxy's faults (Shopify),
and one more: with ``redis=True`` it understands replies well enough to exchange two of them (`Faults.swap`).
"""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

__all__ = ["Faults", "Proxy"]

_CHUNK_BYTES = 65536
_MIN_SWAPPED_BYTES = 64
_JOIN_S = 10.0


@dataclass
class Faults:
    """What befalls the bytes of one direction. The defaults do nothing."""

    latency_s: float = 0.0
    """Each piece arrives so much later; the order is kept."""
    jitter_s: float = 0.0
    """At random up to so much later still."""
    bytes_per_s: float | None = None
    """No more than so many."""
    slice_bytes: int | None = None
    """Pieces of at most so many bytes, each sent by itself."""
    black_hole: bool = False
    """Bytes are taken and go nowhere; the connection stays open."""
    limit_bytes: int | None = None
    """Each connection ends after so many bytes of its own."""
    reset: bool = False
    """It ends by a reset (RST) rather than in good order (FIN)."""
    swap: bool = False
    """Exchange each two values of Redis' replies; one that comes alone is exchanged with an earlier one."""
    swapped: int = field(default=0, metadata={"figure": True})
    """How many values went to another place."""
    _cut_in: int | None = field(default=None, repr=False)
    _last: bytes = field(default=b"", repr=False)

    def cut_in(self, count: int, *, reset: bool = True) -> None:
        """Let so many bytes more pass, then end the connection that brings the next one; once."""
        self.reset = reset
        self._cut_in = count

    @property
    def cut_is_due(self) -> bool:
        """Whether `cut_in` has been asked for and has not come about yet."""
        return self._cut_in is not None

    def heal(self) -> None:
        """Back to doing nothing; figures stay."""
        for one in fields(self):
            if not one.metadata.get("figure") and one.name != "_last":
                setattr(self, one.name, one.default)

    def allowed(self, count: int, passed: int) -> int:
        """How many of so many bytes pass on a connection that has passed some; fewer: it ends there."""
        if self.limit_bytes is not None:
            count = min(count, max(self.limit_bytes - passed, 0))
        if self._cut_in is not None:
            if self._cut_in < count:
                count, self._cut_in = self._cut_in, None
            else:
                self._cut_in -= count
        return count

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The bytes as they are sent."""
        step = self.slice_bytes or len(data)
        return (data[at : at + step] for at in range(0, len(data), step))

    def exchanged(self, tokens: list[tuple[bytes, bool]]) -> bytes:
        """Tokens of Redis' replies as bytes, each two values exchanged where that is wanted."""
        parts = [token for token, _ in tokens]
        values = [at for at, (token, bulk) in enumerate(tokens) if bulk and len(token) >= _MIN_SWAPPED_BYTES]
        if self.swap:
            for one, two in zip(values[::2], values[1::2], strict=False):
                parts[one], parts[two] = parts[two], parts[one]
                self.swapped += 2 * (parts[one] != parts[two])
            if len(values) % 2 and self._last not in (b"", parts[values[-1]]):
                parts[values[-1]] = self._last
                self.swapped += 1
        if values:
            self._last = tokens[values[-1]][0]
        return b"".join(parts)


class Proxy:
    """A listener on 127.0.0.1 that passes everything on to a port there, with `Faults` for either direction.

    A context manager; `start` and `stop` wait. ``redis`` says that what passes is Redis' protocol, needed for
    `Faults.swap`. ``certificate`` is a certificate and its key, in files: clients then have to speak TLS, the server
    behind need not know any.
    """

    def __init__(self, target: int, *, redis: bool = False, certificate: tuple[Path, Path] | None = None) -> None:
        self.target = target
        """The port that it passes on to; can be changed for new connections."""
        self.requests = Faults()
        """Of what the client sends."""
        self.replies = Faults()
        """Of what the server sends."""
        self.port = 0
        """Where it listens, kept over `refuse` and `accept`."""
        self.accepted = 0
        """Connections so far."""
        self._redis = redis
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(*certificate)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.WriteTransport] = set()
        self._carriers: set[asyncio.Task[object]] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self.accept()

    def stop(self) -> None:
        """Cut everything and end; safe to call twice."""
        if self._loop.is_closed():
            return
        self._do(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_S)
        self._loop.close()

    def refuse(self) -> None:
        """From now on new connections are refused; `cut` ends those that there are."""
        self._do(self._deafen)

    def accept(self) -> None:
        """Take connections (again)."""
        self._do(self._listen)

    def cut(self) -> None:
        """Reset all connections that there are."""
        self._do(self._cut)

    def heal(self) -> None:
        """No more faults in either direction, and new connections are taken; figures stay."""
        self.requests.heal()
        self.replies.heal()
        self.accept()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._open) // 2

    # -- on its own loop ------------------------------------------------------------------------------------------

    def _do(self, act: Callable[[], Coroutine[object, object, None]]) -> None:
        asyncio.run_coroutine_threadsafe(act(), self._loop).result(_JOIN_S)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._carry, "127.0.0.1", self.port, limit=_CHUNK_BYTES, ssl=self._tls
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def _deafen(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _cut(self) -> None:
        for transport in list(self._open):
            _end(transport, reset=True)

    async def _end(self) -> None:
        await self._deafen()
        await self._cut()
        if self._carriers:
            await asyncio.wait(self._carriers)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        carrier = asyncio.current_task()
        if carrier is not None:
            self._carriers.add(carrier)
            carrier.add_done_callback(self._carriers.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=_CHUNK_BYTES)
        except OSError:
            _end(writer.transport, reset=True)
            return
        ends = {writer.transport, far_writer.transport}
        self._open |= ends
        ways = [
            asyncio.ensure_future(_Way(self.requests, reader, far_writer, redis=False).carry()),
            asyncio.ensure_future(_Way(self.replies, far_reader, writer, redis=self._redis).carry()),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            reset = any(way.result() for way in done if not way.cancelled())
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._open -= ends
        for transport in ends:
            _end(transport, reset=reset)


class _Way:
    """One direction of one connection."""

    def __init__(
        self, faults: Faults, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, redis: bool
    ) -> None:
        self._faults = faults
        self._reader = reader
        self._writer = writer
        self._tokens = _Tokens() if redis else None
        self._passed = 0
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        _without_delay(writer.transport)

    async def carry(self) -> bool:
        """Until the connection ends; True where it is to end by a reset."""
        taking = asyncio.ensure_future(self._take())
        try:
            return await self._give()
        except OSError:
            return True
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _take(self) -> None:
        """Read, and note when each piece is due."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            try:
                data = await self._reader.read(_CHUNK_BYTES)
            except OSError:
                data = b""
            faults = self._faults
            late = faults.latency_s + random.random() * faults.jitter_s
            due = max(due, loop.time() + late)
            self._queue.put_nowait((due, data))
            if not data:
                return

    async def _give(self) -> bool:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self._queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not data:
                return False
            faults = self._faults
            if faults.black_hole:
                continue
            if self._tokens is not None:
                data = faults.exchanged(self._tokens.feed(data))
            for piece in faults.pieces(data):
                if not await self._send(piece):
                    return faults.reset

    async def _send(self, piece: bytes) -> bool:
        """False where the connection ends within this piece."""
        allowed = self._faults.allowed(len(piece), self._passed)
        self._passed += allowed
        if allowed:
            self._writer.write(piece[:allowed])
            await self._writer.drain()
            if self._faults.slice_bytes:
                await asyncio.sleep(0)
            if self._faults.bytes_per_s:
                await asyncio.sleep(allowed / self._faults.bytes_per_s)
        return allowed == len(piece)


class _Tokens:
    """Redis' replies (RESP2 and 3) cut into lines and values: whole ones only, the rest waits for more bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Tokens that are complete by now, and whether each is a value."""
        data = self._rest + data
        found, at = [], 0
        while (end := data.find(b"\r\n", at) + 2) >= 2:
            bulk = data[at : at + 1] in (b"$", b"=", b"!") and data[at + 1 : at + 2] not in (b"-", b"?")
            if bulk:
                end += int(data[at + 1 : end - 2]) + 2
                if end > len(data):
                    break
            found.append((data[at:end], bulk))
            at = end
        self._rest = data[at:]
        return found


def _without_delay(transport: asyncio.WriteTransport) -> None:
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _end(transport: asyncio.WriteTransport, *, reset: bool) -> None:
    if reset:
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()

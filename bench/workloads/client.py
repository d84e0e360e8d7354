"""A client in a process of its own: many connections kept open, each with one request after the other.

Without ``--rate`` every connection asks again as soon as it has its answer; with it the requests of all are due at a
steady rate, and a late answer counts from when its request was due. Prints one line of JSON.
"""

import argparse
import asyncio
import json
import resource
import sys
from time import perf_counter

ANSWER_S = 30.0  # after which a connection without an answer counts as an error
END = b"\r\n\r\n"
LENGTH = b"content-length: "


class Connection(asyncio.Protocol):
    """One connection; knows how long the answer is by its header."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[bool] | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = transport  # type: ignore[assignment]  # it is one for TCP

    def connection_lost(self, _: Exception | None) -> None:
        """The server has closed it."""
        self.lost = True
        self._settle(fine=False)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer, often all of it."""
        self._buffer += data
        head = self._buffer.find(END)
        if head < 0:
            return
        at = self._buffer.lower().find(LENGTH, 0, head + 2)
        size = int(self._buffer[at + len(LENGTH) : self._buffer.index(b"\r\n", at)])
        if len(self._buffer) >= head + len(END) + size:
            fine = self._buffer.startswith(b"HTTP/1.1 200")
            self._buffer = b""
            self._settle(fine=fine)

    def _settle(self, *, fine: bool) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(fine)

    async def ask(self) -> bool:
        """Whether a request got its 200."""
        if self.lost or self._transport is None:
            return False
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(self._request)
        try:
            return await asyncio.wait_for(self._answered, ANSWER_S)
        except TimeoutError:
            return False

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


class Load:
    """All connections, and what they have seen."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.seconds: list[float] = []
        self.errors = 0

    async def run(self) -> dict[str, float]:
        """Connect all, then ask for so long."""
        asked = self.asked
        request = f"GET {asked.path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        loop = asyncio.get_running_loop()
        connections = []
        for _ in range(asked.connections):
            _, connection = await loop.create_connection(lambda: Connection(request), "127.0.0.1", asked.port)
            connections.append(connection)
        began = perf_counter()
        busy = self._paced if asked.rate else self._eager
        await asyncio.gather(*(busy(connection, n, began) for n, connection in enumerate(connections)))
        took = perf_counter() - began
        for connection in connections:
            connection.close()
        ordered = sorted(self.seconds) or [float("nan")]
        return {
            "answers": len(self.seconds),
            "errors": self.errors,
            "rate": len(self.seconds) / took,
            "p50_ms": ordered[len(ordered) // 2] * 1000,
            "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
        }

    async def _eager(self, connection: Connection, _: int, began: float) -> None:
        while (now := perf_counter()) < began + self.asked.seconds:
            self._note(now, fine=await connection.ask())

    async def _paced(self, connection: Connection, number: int, began: float) -> None:
        pause = self.asked.connections / self.asked.rate
        due = began + number / self.asked.rate
        while due < began + self.asked.seconds:
            await asyncio.sleep(max(0.0, due - perf_counter()))
            self._note(due, fine=await connection.ask())
            due += pause

    def _note(self, since: float, *, fine: bool) -> None:
        self.seconds.append(perf_counter() - since)
        self.errors += not fine


def main() -> None:
    """Ask, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    sys.stdout.write(json.dumps(asyncio.run(Load(parser.parse_args()).run())) + "\n")


if __name__ == "__main__":
    main()

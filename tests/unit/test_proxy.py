"""The proxy: every fault it promises, between a real Redis and a plain socket."""

import socket
import time
from collections.abc import Iterator
from typing import Self

import pytest

from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import RedisServer

PATIENCE_S = 10.0
LARGE = b"x" * 200


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis of this module's own."""
    with RedisServer() as server:
        for name in ("a", "b"):
            server.ask("SET", name, name.encode() * 200)
        yield server


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    """A proxy before it."""
    with Proxy(redis.port, redis=True) as proxy:
        yield proxy


class Client:
    """A plain socket that asks and waits."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.settimeout(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, line: bytes, count: int) -> bytes:
        """The first so many bytes of the answer, fewer where the connection ends."""
        self.socket.sendall(line + b"\r\n")
        return self.rest(count)

    def rest(self, count: int) -> bytes:
        """So many bytes more."""
        found = b""
        while len(found) < count and (more := self.socket.recv(count - len(found))):
            found += more
        return found


def test_without_faults_everything_passes(proxy: Proxy) -> None:
    """Requests and replies arrive as they were sent, on as many connections as one likes."""
    with Client(proxy.port) as one, Client(proxy.port) as two:
        assert one.ask(b"GET a", 208) == b"$200\r\n" + b"a" * 200 + b"\r\n"
        assert two.ask(b"PING", 7) == b"+PONG\r\n"
        assert proxy.connections == 2
        assert proxy.accepted == 2


def test_latency_and_jitter_delay_and_keep_the_order(proxy: Proxy) -> None:
    """Replies come later by as much as was said, in the order of the requests."""
    with Client(proxy.port) as client:
        assert client.ask(b"PING", 7)
        proxy.replies.latency_s, proxy.replies.jitter_s = 0.1, 0.05
        start = time.monotonic()
        answers = b"".join(client.ask(b"ECHO %d" % i, 7) for i in range(2))
        assert answers == b"$1\r\n0\r\n$1\r\n1\r\n"
        assert time.monotonic() - start >= 0.2


def test_slices_and_bandwidth(proxy: Proxy) -> None:
    """Byte by byte, and slowly, the reply is the same."""
    proxy.replies.slice_bytes = 1
    with Client(proxy.port) as client:
        assert client.ask(b"GET a", 208) == b"$200\r\n" + b"a" * 200 + b"\r\n"
        proxy.replies.slice_bytes, proxy.replies.bytes_per_s = 50, 2080.0
        start = time.monotonic()
        assert len(client.ask(b"GET a", 208)) == 208
        assert client.ask(b"PING", 7) == b"+PONG\r\n"
        assert time.monotonic() - start >= 0.09


def test_a_black_hole_keeps_the_connection(proxy: Proxy) -> None:
    """What is asked is swallowed; healed, the same connection answers what is asked then."""
    with Client(proxy.port) as client:
        assert client.ask(b"PING", 7) == b"+PONG\r\n"
        proxy.requests.black_hole = True
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.ask(b"ECHO lost", 1)
        proxy.heal()
        client.socket.settimeout(PATIENCE_S)
        assert client.ask(b"ECHO found", 11) == b"$5\r\nfound\r\n"


def test_refused_and_taken_again(proxy: Proxy) -> None:
    """New connections are refused while open ones live; then the same port takes them again."""
    port = proxy.port
    with Client(port) as client:
        assert client.ask(b"PING", 7)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            Client(port)
        assert client.ask(b"PING", 7) == b"+PONG\r\n"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.rest(1)
        proxy.heal()
    assert proxy.port == port
    with Client(port) as client:
        assert client.ask(b"PING", 7) == b"+PONG\r\n"


@pytest.mark.parametrize("offset", [0, 1, 5, 100, 207])
def test_a_reply_is_cut_at_any_byte_once(proxy: Proxy, offset: int) -> None:
    """So many bytes arrive, then the connection ends; the next connection is whole."""
    with Client(proxy.port) as client:
        assert client.ask(b"PING", 7)
        proxy.replies.cut_in(offset, reset=False)
        assert client.ask(b"GET a", 208) == (b"$200\r\n" + b"a" * 200 + b"\r\n")[:offset]
        assert not proxy.replies.cut_is_due
    with Client(proxy.port) as client:
        assert len(client.ask(b"GET a", 208)) == 208


def test_every_connection_ends_after_its_limit(proxy: Proxy) -> None:
    """Each connection passes so many bytes of its own and is reset then."""
    proxy.replies.limit_bytes, proxy.replies.reset = 10, True
    for _ in range(2):
        with Client(proxy.port) as client:
            assert client.ask(b"PING", 7) == b"+PONG\r\n"
            assert client.ask(b"PING", 3) == b"+PO"
            with pytest.raises(ConnectionResetError):
                client.rest(5)


def test_two_replies_are_exchanged(proxy: Proxy) -> None:
    """Values of one answer change places; one that comes alone is replaced by another that was seen."""
    a, b = (b"$200\r\n" + name * 200 + b"\r\n" for name in (b"a", b"b"))
    with Client(proxy.port) as client:
        assert client.ask(b"GET a", 208) == a
        proxy.replies.swap = True
        assert client.ask(b"GET b", 208) == a
        assert client.ask(b"MGET a none b", 425) == b"*3\r\n" + b + b"$-1\r\n" + a
        assert proxy.replies.swapped == 3
        assert client.ask(b"HGETALL nobody", 4) == b"*0\r\n"
        proxy.heal()
        assert client.ask(b"GET b", 208) == b
        assert proxy.replies.swapped == 3


def test_a_dead_server_ends_its_clients(redis: RedisServer) -> None:
    """Where nobody listens behind it, a client is connected and reset."""
    with Proxy(1) as proxy, pytest.raises(ConnectionResetError), Client(proxy.port) as client:
        client.rest(1)


def test_stopping_twice_is_safe(proxy: Proxy) -> None:
    """Stopped, its port is free; stopped again, nothing happens."""
    proxy.stop()
    proxy.stop()
    with pytest.raises(ConnectionRefusedError):
        Client(proxy.port)

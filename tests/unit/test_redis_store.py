"""The Redis store on one server: what full, lost, frozen, foreign and encrypted servers do to it, and what it tells."""

import asyncio
import datetime
import ipaddress
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from genesis_cache.model.clock import Clock, SystemClock
from genesis_cache.model.notice import Position
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock
from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import RedisSentinel, RedisServer
from genesis_cache.testing.store_words import MB, address, kill, put
from genesis_cache.tiers.base import Kind, Remove
from genesis_cache.tiers.redis import sweeping
from genesis_cache.tiers.redis.names import MARKS, Names, slot_of
from genesis_cache.tiers.redis.store import redis_store
from genesis_cache.tiers.remote_base import Outage, RemoteStore

PATIENCE_S = 10.0
Opener = Callable[..., Any]


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Opener]:
    """Opens stores that are closed when the test ends."""
    stores: list[RemoteStore] = []

    async def open_store(url: str, *, capacity_bytes: int = 64 * MB, clock: Clock | None = None, **said: Any) -> Any:
        settings = CacheSettings(redis_url=url, **{"redis_connection_timeout": 5, **said})
        store = redis_store(settings, capacity_bytes, clock or SystemClock())()
        stores.append(store)
        await store.open()
        return store

    yield open_store
    for store in stores:
        await store.close()


async def comes_back(act: Callable[[], Any]) -> Any:
    """What a call gives after its outages."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await act()
            except Outage:
                await asyncio.sleep(0.02)


# -- scripts and books ------------------------------------------------------------------------------------------------


async def test_forgotten_scripts_are_brought_again(own_redis: RedisServer, opened: Opener) -> None:
    """A server that was told to forget its scripts goes on without an error."""
    store = await opened(own_redis.url)
    epoch = (await store.join(None)).position.epoch
    for verb in (lambda: store.commit([put("a", b"1")], epoch), lambda: store.lease(address("l"), b"1", 5)):
        own_redis.ask("SCRIPT", "FLUSH")
        assert await verb()
    own_redis.ask("SCRIPT", "FLUSH")
    assert (await store.join(None)).position.epoch == epoch


@pytest.mark.parametrize("part", ["control", "log", "floors", "marks"])
async def test_a_lost_book_begins_a_new_log(own_redis: RedisServer, opened: Opener, part: str) -> None:
    """Whichever part of the books was evicted or deleted: the next to join begins a new log, and fills are refused."""
    store = await opened(own_redis.url)
    joined = await store.join(None)
    await store.commit([put("a", b"1"), kill(Kind.TAG, "red")], joined.position.epoch)
    known = (await store.join(None)).position
    names = Names("default")
    lost = {"control": names.control, "log": names.log, "floors": names.floors, "marks": names.marks[0]}
    assert own_redis.ask("DEL", lost[part]) == 1
    position = (await store.join(known)).position
    assert position.epoch != known.epoch
    assert position.seq >= known.seq
    committed = await store.commit([put("b", b"stale", since=known.seq)], known.epoch)
    assert committed.receipts[0].refused
    assert await store.check() == []


async def test_lost_floors_are_noticed_by_the_next_change(own_redis: RedisServer, opened: Opener) -> None:
    """A change after the floors were evicted does not make the books look right again."""
    store = await opened(own_redis.url)
    known = (await store.join(None)).position
    await store.commit([kill(Kind.TAG, f"t{i}") for i in range(5)], known.epoch)
    own_redis.ask("DEL", Names("default").floors)
    committed = await store.commit([kill(Kind.TAG, "new")], known.epoch)
    assert committed.epoch != known.epoch
    assert [notice.name for notice in (await store.join(None)).floors] == ["new"]


@pytest.mark.parametrize("field", ["epoch", "seq", "start", "run", "replication", "floors"])
async def test_a_lost_field_of_the_books_begins_a_new_log(own_redis: RedisServer, opened: Opener, field: str) -> None:
    """Books that are not complete are not believed."""
    store = await opened(own_redis.url)
    known = (await store.join(None)).position
    own_redis.ask("HDEL", Names("default").control, field)
    assert await store.check() != []
    assert (await store.join(known)).position.epoch != known.epoch
    assert await store.check() == []


async def test_a_damaged_value_is_a_fault(own_redis: RedisServer, opened: Opener) -> None:
    """The examination of the books finds values without an end, cut short, or of nobody."""
    store = await opened(own_redis.url)
    epoch = (await store.join(None)).position.epoch
    await store.commit([put("a", b"1"), put("b", b"1")], epoch)
    key = Names("default").value_of(address("a").digest)
    own_redis.ask("PERSIST", key)
    assert ["no time to live" in fault for fault in await store.check()] == [True]
    own_redis.ask("SET", key, b"short", "PX", 5000)
    assert ["too short" in fault for fault in await store.check()] == [True]
    assert await store.get(address("a")) is None


async def test_something_else_under_a_key_is_a_miss(own_redis: RedisServer, opened: Opener) -> None:
    """What another program has put under the key of a value is no value, and no outage."""
    store = await opened(own_redis.url)
    await store.join(None)
    own_redis.ask("RPUSH", Names("default").value_of(address("a").digest), "1")
    assert await store.get(address("a")) is None
    assert await store.get_many([address("a")]) == [None]


async def test_every_value_has_an_end(own_redis: RedisServer, opened: Opener) -> None:
    """What never expires is kept for 30 days at most, so that no floor has to be kept for longer."""
    store = await opened(own_redis.url)
    epoch = (await store.join(None)).position.epoch
    await store.commit([put("a", b"1"), put("b", b"1", gone_at=SystemClock().wall() + 60)], epoch)
    names = Names("default")
    left = [own_redis.ask("PTTL", names.value_of(address(key).digest)) for key in "ab"]
    assert isinstance(left[0], int)
    assert isinstance(left[1], int)
    assert 29 * 86_400_000 < left[0] <= 30 * 86_400_000
    assert 50_000 < left[1] <= 60_000


async def test_a_value_larger_than_the_store_is_not_kept(own_redis: RedisServer, opened: Opener) -> None:
    """It is no error; what it would have replaced is gone, and others are told."""
    store = await opened(own_redis.url, capacity_bytes=MB)
    known = (await store.join(None)).position
    await store.commit([put("a", b"1")], known.epoch)
    committed = await store.commit([put("a", bytes(2 * MB))], known.epoch)
    assert committed.receipts[0].seq == known.seq + 2
    assert await store.get(address("a")) is None


async def test_old_floors_are_pruned(own_redis: RedisServer, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Floors older than any value go; of too many, the oldest give way to one CLEAR."""
    clock = FakeClock()
    store = await opened(own_redis.url, clock=clock)
    known = (await store.join(None)).position
    await store.commit([kill(Kind.TAG, "old")], known.epoch)
    clock.advance(32 * 86_400)
    await store.commit([kill(Kind.TAG, f"t{i}") for i in range(20)], known.epoch)
    await store.sweep(1.0)
    floors = (await store.join(None)).floors
    assert [notice.name for notice in floors] == [f"t{i}" for i in range(20)]
    monkeypatch.setattr(sweeping, "_MOST_FLOORS", 10)
    await store.sweep(1.0)
    joined = await store.join(None)
    assert [(notice.kind, notice.name) for notice in joined.floors] == [
        (Kind.CLEAR, ""), *((Kind.TAG, f"t{i}") for i in range(15, 20)),
    ]  # fmt: skip
    assert joined.floors[0].seq == joined.floors[1].seq - 1
    assert joined.position.epoch == known.epoch
    assert await store.check() == []


async def overfilled(store: Any, times: int) -> list[tuple[str, float]]:
    """Fill a store of 1 MB so many times over; the keys with their times to live, which differ by ever more."""
    epoch = (await store.join(None)).position.epoch
    dice = random.Random(4)
    lives = [(f"k{number}", 600 * 1.0005**number) for number in range(1000 * times)]
    dice.shuffle(lives)
    for at in range(0, len(lives), 500):
        changes = [put(key, dice.randbytes(900), gone_at=time.time() + life_s) for key, life_s in lives[at : at + 500]]
        await store.commit(changes, epoch)
    return lives


async def test_one_sweep_brings_ten_times_the_bound_within_it(own_redis: RedisServer, opened: Opener) -> None:
    """Whatever its budget; those that would expire first go, and meanwhile other processes are served."""
    store, other = await opened(own_redis.url, capacity_bytes=MB), await opened(own_redis.url)
    lives = await overfilled(store, 10)
    assert (await store.stats()).size_bytes > 9 * MB
    served = 0
    sweeping = asyncio.ensure_future(store.sweep(0.0))
    while not sweeping.done():
        await other.get(address("k1"))
        served += 1
    assert served > 20
    stats = await store.stats()
    assert 0.8 * MB < stats.size_bytes <= 1.1 * MB
    assert sweeping.result() == stats.evictions["size"] == len(lives) - stats.entries
    left = await store.get_many([address(key) for key, _ in lives])
    stayed = sorted(life_s for (_, life_s), found in zip(lives, left, strict=True) if found is not None)
    gone = sorted(life_s for (_, life_s), found in zip(lives, left, strict=True) if found is None)
    assert len(stayed) == stats.entries
    assert gone[-1] < stayed[0] * 2 ** (1 / 8), "times to live are told apart by a sixteenth of an octave"
    assert await store.sweep(0.0) == 0


async def test_a_sweep_that_fails_is_begun_anew(own_redis: RedisServer, opened: Opener) -> None:
    """Its server killed in the middle, it is an outage; the next sweep brings the size down."""
    store = await opened(own_redis.url, capacity_bytes=MB)
    await overfilled(store, 6)
    sweeping = asyncio.ensure_future(store.sweep(0.0))
    await asyncio.sleep(0.01)
    own_redis.kill()
    with pytest.raises(Outage):
        await sweeping
    own_redis.start()
    await comes_back(lambda: store.join(None))
    await overfilled(store, 6)
    assert await store.sweep(0.0) > 0
    assert (await store.stats()).size_bytes <= 1.1 * MB


async def test_a_sweep_within_the_bound_measures_a_part_at_a_time(
    own_redis: RedisServer, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No longer than it may, the next goes on there, and the last sets figures right that were wrong."""
    monkeypatch.setattr(sweeping, "_MEASURING_S", 0.0)
    store = await opened(own_redis.url)
    await overfilled(store, 3)
    before = await store.stats()
    own_redis.ask("HINCRBY", Names("default").control, "entries", 1000)
    sweeps = 0
    while (await store.stats()).entries != before.entries:
        assert await store.sweep(0.001) == 0
        sweeps += 1
    assert sweeps > 1


async def test_what_many_sweeps_have_added_up_evicts_nothing(
    own_redis: RedisServer, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted at different times is measured again in one go before anything has to go."""
    store = await opened(own_redis.url, capacity_bytes=2 * MB)
    lives = await overfilled(store, 1)
    monkeypatch.setattr(sweeping, "_MEASURING_S", 0.0)
    assert await store.sweep(0.001) == 0
    store._sweeper._bytes += 3 * MB  # what has gone since it was counted
    for _ in range(10):
        await store.sweep(0.001)
    assert (await store.stats()).entries == len(lives)
    assert (await store.stats()).evictions == {}


def test_slots_are_those_of_the_specification() -> None:
    """The slot of a key is what Redis says, and all books of a cache share one."""
    assert slot_of(b"123456789") == 12739
    assert slot_of(b"a{123456789}b") == 12739
    assert slot_of(b"foo{}{bar}") == slot_of(b"foo{}{bar}")
    names = Names("a b{c}é", 64)
    assert len({slot_of(key) for key in (names.control, names.log, names.floors, names.sweeper, names.nothing)}) == 1
    digest = address("a").digest
    shard = names.marks[names.shard_of(digest)]
    assert slot_of(shard) == slot_of(names.value_of(digest)) == slot_of(names.note_of(digest))
    assert len({slot_of(marks) for marks in names.marks}) > 60
    assert names.marks_bytes * 64 == 8 * (MARKS + 64)
    assert names.is_value(names.value_of(digest))
    assert not names.is_value(names.lease_of(digest))
    assert Names("x" * 200).control != Names("x" * 201).control
    assert len(Names("x" * 200).control) < 64


# -- servers that cannot serve ----------------------------------------------------------------------------------------


async def test_a_full_server_reads_and_forgets(start_redis: Opener, opened: Opener) -> None:
    """At maxmemory a set is an outage that says so; reads, removals and invalidations go on."""
    server = start_redis("--maxmemory-policy", "noeviction")
    store = await opened(server.url)
    epoch = (await store.join(None)).position.epoch
    await store.commit([put("a", b"1"), put("b", b"2"), put("c", b"3")], epoch)
    server.ask("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(Outage, match="maxmemory"):
        await store.commit([put("d", bytes(1000))], epoch)
    assert bytes(await store.get(address("a"))) == b"1"
    (receipt,) = (await store.commit([Remove(address("a"))], epoch)).receipts
    (tag,) = (await store.commit([kill(Kind.TAG, "red")], epoch)).receipts
    assert tag.seq == receipt.seq + 1
    assert await store.get(address("a")) is None
    with pytest.raises(Outage, match="maxmemory"):
        await store.commit([put("c", b"new"), Remove(address("b"))], epoch)
    assert await store.get_many([address("b"), address("c")]) == [None, None]  # what could be done was done
    assert await store.lease(address("a"), b"1", 5)
    await store.sweep(1.0)
    assert (await store.join(None)).position.epoch == epoch
    assert await store.check() == []


async def test_a_frozen_server_is_an_outage_and_comes_back(own_redis: RedisServer, opened: Opener) -> None:
    """No call waits for longer than the timeout, and none gets the late answer of another afterwards."""
    store = await opened(own_redis.url, redis_socket_timeout=0.3, redis_connection_timeout=0.3)
    epoch = (await store.join(None)).position.epoch
    await store.commit([put("a", b"1"), put("b", b"2")], epoch)
    own_redis.freeze()
    removal = [Remove(address("c"))]
    calls = (
        lambda: store.get(address("a")),
        lambda: store.get_many([address("a")]),
        lambda: store.commit(removal, epoch),
    )
    async with asyncio.timeout(PATIENCE_S):
        for call in calls:
            with pytest.raises(Outage, match="does not answer in time"):
                await call()
    own_redis.thaw()
    assert bytes(await comes_back(lambda: store.get(address("b")))) == b"2"


async def test_callers_beyond_the_bound_wait(own_redis: RedisServer, opened: Opener) -> None:
    """With two connections, fifty calls at once all get their answers, and the server sees two connections."""
    store = await opened(own_redis.url, redis_max_connections=2)
    epoch = (await store.join(None)).position.epoch
    await store.commit([put(f"k{i}", b"%d" % i) for i in range(50)], epoch)
    found = await asyncio.gather(*(store.get(address(f"k{i}")) for i in range(50)))
    assert [bytes(one) for one in found] == [b"%d" % i for i in range(50)]
    listed = own_redis.ask("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    assert listed.count(b"name=genesis-cache") == 2


async def test_a_password_is_asked_for_and_never_shown(start_redis: Opener, opened: Opener) -> None:
    """Without, and with a wrong one, the sentence says what to do; with the right one it works."""
    server = start_redis(password="hunter2")  # noqa: S106  # of a server of this test's own
    place = f"127.0.0.1:{server.port}"
    with pytest.raises(Outage, match="wants a password"):
        await opened(f"redis://{place}")
    with pytest.raises(Outage, match="refuses the user or password") as raised:
        await opened(f"redis://:hunter3@{place}")
    assert "hunter" not in str(raised.value)
    assert (await (await opened(server.url)).join(None)).position.epoch > 0


async def test_a_user_without_rights_is_told(start_redis: Opener, opened: Opener) -> None:
    """A command that the user may not run is an outage that says so, and the examination names the command."""
    server = start_redis()
    server.ask("ACL", "SETUSER", "poor", "on", ">pw", "~genesis:*", "+@all", "-eval", "-evalsha", "-memory")
    store = await opened(f"redis://poor:pw@127.0.0.1:{server.port}")
    with pytest.raises(Outage, match="ACL SETUSER"):
        await store.join(None)
    told = {one.subject: one for one in await store.diagnose()}
    assert "MEMORY, EVAL" in told["redis: permissions"].sentence


async def test_a_replica_is_refused(start_redis: Opener, opened: Opener) -> None:
    """A server that takes no changes is told apart at once."""
    server = start_redis()
    server.ask("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(Outage, match="replica"):
        await opened(server.url)


async def test_nobody_there(opened: Opener, own_redis: RedisServer) -> None:
    """A refused connection is one sentence with the place and the question to ask."""
    own_redis.kill()
    with pytest.raises(Outage, match=f"127.0.0.1:{own_redis.port} refuses connections"):
        await opened(own_redis.url)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "still loading"),
        (b"-ERR max number of clients reached\r\n", "maxclients"),
        (b"-ERR unknown command `HELLO`\r\n", "6.2"),
        (b"-NOPROTO unsupported protocol version\r\n", "6.2"),
        (b"-BUSY Redis is busy running a script.\r\n", "busy"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not Redis"),
        (b"", "closed the connection"),
    ],
)
async def test_what_a_server_says_first_is_understood(opened: Opener, reply: bytes, said: str) -> None:
    """Servers that are busy, full, too old, or something else entirely, each have their sentence."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(Outage, match=said):
            await opened(f"redis://127.0.0.1:{port}")


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str = "7.0.0") -> None:
    """Answer as a server does to HELLO, CLIENT SETNAME and two INFO."""
    info = f"redis_version:{version}\r\nrun_id:a\r\nrole:master\r\nmaster_replid:b\r\n".encode()
    bulk = b"$%d\r\n%b\r\n" % (len(info), info)
    for answer in (b"%1\r\n+proto\r\n:3\r\n", b"+OK\r\n", bulk * 2):
        await reader.read(4096)
        writer.write(answer)


async def test_an_old_server_is_told(opened: Opener) -> None:
    """Versions below 6.2 are refused with both numbers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer, "6.0.9")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Outage, match=r"version 6\.0\.9: 6\.2 or newer"):
            await opened(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_message_nobody_asked_for_is_no_reply(opened: Opener) -> None:
    """What a server pushes between a request and its reply is passed over."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        for value in (b"A", b"B"):
            await reader.read(4096)
            writer.write(b">2\r\n$10\r\ninvalidate\r\n_\r\n$9\r\n00000000%b\r\n" % value)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        store = await opened(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert [bytes(await store.get(address("a"))) for _ in range(2)] == [b"A", b"B"]


async def test_a_reply_nobody_asked_for_costs_its_connection(opened: Opener) -> None:
    """A server that answers once too often is not listened to: the next caller gets no answer of another."""
    served = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await greet(reader, writer)
        await reader.read(4096)
        writer.write(b"$9\r\n00000000A\r\n$9\r\n00000000B\r\n")
        await reader.read(4096)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        store = await opened(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert bytes(await store.get(address("a"))) == b"A"
        await asyncio.sleep(0.05)
        assert bytes(await store.get(address("a"))) == b"A"
        assert served == 2


# -- servers that were set back ---------------------------------------------------------------------------------------


async def test_a_server_that_was_set_back_is_not_believed(own_redis: RedisServer, opened: Opener) -> None:
    """Readers that meet a restored server before its log is joined get an outage, never what was replaced."""
    settings = CacheSettings(redis_url=own_redis.url, redis_connection_timeout=5)
    make = redis_store(settings, 64 * MB, SystemClock())
    reader, follower = make(), make()
    known = (await follower.join(None)).position
    await reader.commit([put("a", b"old"), put("b", b"old")], known.epoch)
    own_redis.ask("SAVE")
    await reader.commit([put("a", b"new"), Remove(address("b"))], known.epoch)
    seen: set[object] = set()
    is_over, is_refused = asyncio.Event(), asyncio.Event()

    async def hammer() -> None:
        while not is_over.is_set():
            try:
                found = await reader.get_many([address("a"), address("b")])
                seen.update(None if value is None else bytes(value) for value in found)
            except Outage as outage:
                if "joined first" in str(outage):
                    is_refused.set()
            await asyncio.sleep(0)

    readers = [asyncio.create_task(hammer()) for _ in range(8)]
    await asyncio.to_thread(lambda: (own_redis.kill(), own_redis.start()))
    async with asyncio.timeout(PATIENCE_S):
        await is_refused.wait()
    assert b"old" not in seen
    with pytest.raises(Outage, match="joined first"):
        await reader.commit([put("c", b"1")], known.epoch)
    assert await follower.follow(known, 0.0) is None
    is_over.set()
    await asyncio.gather(*readers)
    assert b"old" not in seen
    position = (await follower.join(known)).position
    assert position.epoch != known.epoch
    await reader.commit([put("a", b"newest")], position.epoch)
    assert bytes(await reader.get(address("a")) or b"") == b"newest"
    await reader.close()
    await follower.close()


# -- other ways to a server -------------------------------------------------------------------------------------------


async def test_a_unix_socket(start_redis: Opener, opened: Opener, tmp_path: Path) -> None:
    """A server on this host can be reached by its socket file."""
    path = tmp_path / "redis.sock"
    start_redis("--unixsocket", str(path))
    store = await opened(f"redis://{path}?db=2")
    epoch = (await store.join(None)).position.epoch
    await store.commit([put("a", b"1")], epoch)
    assert bytes(await store.get(address("a"))) == b"1"


async def test_tls_is_verified(start_redis: Opener, opened: Opener, tmp_path: Path) -> None:
    """A certificate that is not trusted is refused with a sentence; one of a named authority is taken."""
    certificate, key = _certificate(tmp_path)
    with Proxy(start_redis().port, certificate=(certificate, key)) as tls:
        with pytest.raises(Outage, match="not trusted"):
            await opened(f"rediss://127.0.0.1:{tls.port}")
        store = await opened(f"rediss://127.0.0.1:{tls.port}?ssl_ca_certs={certificate}")
        epoch = (await store.join(None)).position.epoch
        await store.commit([put("a", bytes(300_000))], epoch)
        assert bytes(await store.get(address("a"))) == bytes(300_000)


def test_tls_may_be_forgotten_after_its_loop_has_ended(start_redis: Opener, tmp_path: Path) -> None:
    """A loop that ends without a close leaves connections that are dropped without a warning, encrypted ones too."""
    certificate, key = _certificate(tmp_path)
    with Proxy(start_redis().port, certificate=(certificate, key)) as tls:
        settings = CacheSettings(redis_url=f"rediss://127.0.0.1:{tls.port}?ssl_ca_certs={certificate}")
        store = redis_store(settings, MB, SystemClock())()
        asyncio.run(store.open())
        store.forget()


async def test_after_a_failover_the_new_primary_has_a_new_log(own_sentinel: RedisSentinel, opened: Opener) -> None:
    """The new primary is found without a restart; its log is a new one, for the last lines of the old may be lost."""
    store = await opened(own_sentinel.url)
    known = (await store.join(None)).position
    await store.commit([put("a", b"1")], known.epoch)
    await asyncio.to_thread(own_sentinel.fail_over)
    assert await comes_back(lambda: store.follow(known, 0.0)) is None
    joined = await comes_back(lambda: store.join(known))
    assert joined.position.epoch != known.epoch
    assert (await store.commit([put("a", b"2")], joined.position.epoch)).receipts[0].seq > known.seq
    assert bytes(await store.get(address("a"))) == b"2"


async def test_a_primary_that_was_given_up_proves_nothing_though_it_lives(
    own_sentinel: RedisSentinel, opened: Opener
) -> None:
    """Whoever is still connected to it does not take its silence for news that there is none."""
    store = await opened(own_sentinel.url)
    known = (await store.join(None)).position
    assert await store.follow(known, 0.2) == []
    own_sentinel.sentinel.ask("SENTINEL", "FAILOVER", RedisSentinel.NAME)
    while _primary_of(own_sentinel) != own_sentinel.replica.port:  # noqa: ASYNC110  # a Sentinel tells by being asked
        await asyncio.sleep(0.02)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Outage, match="no longer the primary"):
            await _end_of_silence(store, known)
    joined = await comes_back(lambda: store.join(known))
    assert joined.position.epoch != known.epoch


async def _end_of_silence(store: Any, known: Position) -> None:
    """Follow a log on which nothing happens; a Sentinel of a busy machine may not answer the first time."""
    while await store.follow(known, 0.2) == []:
        pass


def _primary_of(group: RedisSentinel) -> int:
    place = group.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", RedisSentinel.NAME)
    assert isinstance(place, list)
    assert isinstance(place[1], bytes)
    return int(place[1])


async def test_sentinels_that_know_no_primary_are_told(own_sentinel: RedisSentinel, opened: Opener) -> None:
    """A wrong name of the primary is a sentence, not a timeout."""
    with pytest.raises(Outage, match="none of its Sentinels"):
        await opened(f"redis+sentinel://127.0.0.1:{own_sentinel.sentinel.port}/other")


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cache")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )  # fmt: skip
    certificate, private = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private

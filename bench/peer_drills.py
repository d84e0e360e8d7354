"""The drills of `bench.peer_faults`: for each fault, how each library is used, and what its answer means."""

# ruff: noqa: PLC0415  # a peer is imported where it is tried, so that a missing one leaves the others

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from genesis_cache.cache import Cache
from genesis_cache.testing.proxy import Proxy
from genesis_cache.testing.servers import RedisServer

Trial = Callable[[], Awaitable[str]]
Named = tuple[str, Trial]

LOAD_S = 0.1
LEASE_S = 1
LONG_LOAD_S = 1.5
CALLERS = 30
SHORT_TTL_S = 1
LONG_TTL_S = 60
OLD, NEW = "v1", "v2"
BUS_S = 3.0  # three times CACHE_MAX_STALENESS
ASK_S = 2.0


class Drill(msgspec.Struct, frozen=True):
    """One fault."""

    title: str
    how: str
    answer: str
    trials: Callable[[RedisServer, Proxy], Sequence[Named]]


class Origin:
    """A row in a database, and a slow query of it."""

    def __init__(self, seconds: float = LOAD_S) -> None:
        self.row: Any = OLD
        self.calls = 0
        self.seconds = seconds
        self.reading = asyncio.Event()

    async def load(self) -> Any:
        """What the row was when the query began."""
        self.calls += 1
        row = self.row
        self.reading.set()
        await asyncio.sleep(self.seconds)
        return row


# -- an invalidation during a load -------------------------------------------------------------------------------------

Prepared = tuple[Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]
"""How a value is asked for, and how it is invalidated."""


async def _raced(prepare: Callable[[Origin], Awaitable[Prepared]]) -> str:
    origin = Origin()
    ask, invalidate = await prepare(origin)
    load = asyncio.ensure_future(ask())
    await origin.reading.wait()
    origin.row = NEW
    await invalidate()
    await load
    found = await ask()
    return "right: the new value" if found == NEW else "**the old value, until its ttl ends**"


def invalidated_during_load() -> Drill:
    """The race that every loader has with every delete."""
    return Drill(
        "A key is invalidated while it is being loaded",
        "A load reads the old row; the row changes; the key is deleted; the load ends. What does the next read give?",
        "the next read",
        lambda server, proxy: [  # noqa: ARG005  # one form for all
            ("**genesis_cache**", lambda: _raced(_ours)),
            ("**genesis_cache** over Redis", lambda: _raced(lambda origin: _ours(origin, server.url))),
            ("cashews `@cache`, `delete`", lambda: _raced(_cashews)),
            ("aiocache `@cached`, `cache.delete`", lambda: _raced(_aiocache)),
            ("dogpile.cache `get_or_create`, `delete`", lambda: _raced(_dogpile)),
            ("dogpile.cache `get_or_create`, `invalidate`", lambda: _raced(_dogpile_region)),
            ("fastapi-cache2 `@cache`, `clear`", lambda: _raced(_fastapi_cache)),
            ("async-lru `@alru_cache`, `cache_invalidate`", lambda: _raced(_async_lru)),
        ],
    )


def tag_invalidated_during_load() -> Drill:
    """The same with a tag."""
    return Drill(
        "A tag is invalidated while a value that bears it is being loaded",
        "The same, by a tag. Libraries without tags are left out.",
        "the next read",
        lambda server, proxy: [  # noqa: ARG005  # one form for all
            ("**genesis_cache**", lambda: _raced(_ours_tagged)),
            ("**genesis_cache** over Redis", lambda: _raced(lambda origin: _ours_tagged(origin, server.url))),
            ("cashews `@cache(tags=...)`, `delete_tags`", lambda: _raced(_cashews_tagged)),
        ],
    )


async def _ours(origin: Origin, *urls: str) -> Prepared:
    cache = Cache.from_url("memory://", *urls, name="drill")
    await cache.open()
    return (lambda: cache.get_or_set("k", origin.load)), (lambda: cache.delete("k"))


async def _ours_tagged(origin: Origin, *urls: str) -> Prepared:
    cache = Cache.from_url("memory://", *urls, name="drill")
    await cache.open()
    return (lambda: cache.get_or_set("k", origin.load, tags=["t"])), (lambda: cache.delete_by_tag("t"))


async def _cashews(origin: Origin) -> Prepared:
    from cashews import Cache as Cashews

    cache = Cashews()
    cache.setup("mem://")
    return cache(ttl=LONG_TTL_S, key="k")(origin.load), (lambda: cache.delete("k"))


async def _cashews_tagged(origin: Origin) -> Prepared:
    from cashews import Cache as Cashews

    cache = Cashews()
    cache.setup("mem://")
    return cache(ttl=LONG_TTL_S, key="k", tags=["t"])(origin.load), (lambda: cache.delete_tags("t"))


async def _aiocache(origin: Origin) -> Prepared:
    from aiocache import cached

    function = cached(ttl=LONG_TTL_S, key="k")(origin.load)
    return function, (lambda: function.cache.delete("k"))


async def _dogpile(origin: Origin) -> Prepared:
    region, ask = _region(origin)
    return ask, (lambda: asyncio.to_thread(region.delete, "k"))


async def _dogpile_region(origin: Origin) -> Prepared:
    region, ask = _region(origin)
    return ask, (lambda: asyncio.to_thread(region.invalidate))


def _region(origin: Origin) -> tuple[Any, Callable[[], Awaitable[Any]]]:
    """A synchronous library: calls run in threads, the loader on the loop."""
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=LONG_TTL_S)
    loop = asyncio.get_running_loop()

    def create() -> Any:
        return asyncio.run_coroutine_threadsafe(origin.load(), loop).result()

    return region, lambda: asyncio.to_thread(region.get_or_create, "k", create)


async def _fastapi_cache(origin: Origin) -> Prepared:
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    FastAPICache.reset()
    prefix = f"drill-{id(origin)}"  # its memory is one for the whole process
    FastAPICache.init(InMemoryBackend(), prefix=prefix)

    @cache(expire=LONG_TTL_S, key_builder=lambda *_args, **_options: f"{prefix}:k")
    async def ask() -> Any:
        return await origin.load()

    return ask, (lambda: FastAPICache.clear(key=f"{prefix}:k"))


async def _async_lru(origin: Origin) -> Prepared:
    from async_lru import alru_cache

    function = alru_cache(maxsize=8, ttl=LONG_TTL_S)(origin.load)

    async def invalidate() -> None:
        function.cache_invalidate()

    return function, invalidate


# -- a tag with mixed ttls ---------------------------------------------------------------------------------------------


def mixed_ttls() -> Drill:
    """A tag that dies with its shortest-lived bearer is no tag."""
    return Drill(
        "A tag whose bearers have different ttls",
        f"Over Redis, one value of a tag lives {LONG_TTL_S} s, then another {SHORT_TTL_S} s. When the second has"
        " expired, the tag is invalidated. Is the first gone?",
        "the first value",
        lambda server, proxy: [  # noqa: ARG005  # one form for all
            ("**genesis_cache** over Redis", lambda: _mixed_ours(server)),
            ("cashews over Redis", lambda: _mixed_cashews(server)),
        ],
    )


async def _mixed_ours(server: RedisServer) -> str:
    async with Cache.from_url("memory://", server.url, name="drill") as cache:
        await cache.set("long", OLD, ttl=LONG_TTL_S, tags=["t"])
        await cache.set("short", OLD, ttl=SHORT_TTL_S, tags=["t"])
        await asyncio.sleep(SHORT_TTL_S + 0.3)
        await cache.delete_by_tag("t")
        return _gone(await cache.get("long"))


async def _mixed_cashews(server: RedisServer) -> str:
    from cashews import Cache as Cashews

    cache = Cashews()
    cache.setup(server.url)
    cache.register_tag("t", "long")
    cache.register_tag("t", "short")
    await cache.set("long", OLD, expire=LONG_TTL_S, tags=["t"])
    await cache.set("short", OLD, expire=SHORT_TTL_S, tags=["t"])
    await asyncio.sleep(SHORT_TTL_S + 0.3)
    await cache.delete_tags("t")
    found = await cache.get("long")
    await cache.close()
    return _gone(found)


def _gone(found: object) -> str:
    return "right: gone" if found is None else "**still served**"


# -- a silent bus ------------------------------------------------------------------------------------------------------


def silent_bus() -> Drill:
    """Near copies, and the news that should end them does not come."""
    return Drill(
        "The bus is silent",
        "A reader holds a value in memory, over Redis. Its connections are taken down in two ways, then another"
        f" process changes the value; {BUS_S:g} s later the reader is asked. *Killed*: the server closes all its"
        " connections once (`CLIENT KILL`), and it may connect again. *Swallowed*: its packets go nowhere and"
        " nothing is closed, as behind a firewall that forgot the connection. *None*: nothing is done to it."
        " Libraries whose memory does not hear of other processes at all are left out.",
        "none / killed / swallowed",
        lambda server, proxy: [
            ("**genesis_cache**, `bypass`", lambda: _buses(server, proxy, _OursReader, "bypass")),
            ("**genesis_cache**, `serve` (default)", lambda: _buses(server, proxy, _OursReader, "serve")),
            ("cashews `client_side=True`", lambda: _buses(server, proxy, _CashewsReader, "")),
            ("cashews `client_side=True`, `?protocol=2`", lambda: _buses(server, proxy, _CashewsReader, "?protocol=2")),
        ],
    )


async def _buses(server: RedisServer, proxy: Proxy, reader: "type[_Reader]", how: str) -> str:
    answers = []
    for fault in ("none", "killed", "swallowed"):
        server.ask("FLUSHALL")
        proxy.heal()
        answers.append(await reader(server, proxy, how).drill(fault))
    return " / ".join(answers)


class _Reader:
    """A process that reads through a proxy, and one that writes past it."""

    def __init__(self, server: RedisServer, proxy: Proxy, how: str) -> None:
        self.server, self.proxy, self.how = server, proxy, how

    async def drill(self, fault: str) -> str:
        """What the reader says of a value that another has changed."""
        async with contextlib.AsyncExitStack() as stack:
            await self.open_writer(stack)
            await self.write(OLD)
            others = self._clients()
            await self.open_reader(stack)
            for _ in range(2):
                await self.read()
            await asyncio.sleep(0.5)
            if await self.read() != OLD:
                return "does not read at all"
            if fault == "killed":
                for client in self._clients() - others:
                    self.server.ask("CLIENT", "KILL", "ID", client)
            elif fault == "swallowed":
                self.proxy.requests.black_hole = self.proxy.replies.black_hole = True
            await self.write(NEW)
            await asyncio.sleep(BUS_S)
            found = await self._ask()
            if found is None:  # its first attempt on a new connection
                await asyncio.sleep(ASK_S / 4)
                found = await self._ask()
            known = await self.knows()
            self.proxy.heal()
        return _said(found, known)

    def _clients(self) -> set[str]:
        told = self.server.ask("CLIENT", "LIST")
        text = told.decode() if isinstance(told, bytes) else ""
        return set(re.findall(r"^id=(\d+)", text, re.MULTILINE))

    async def _ask(self) -> object:
        try:
            async with asyncio.timeout(ASK_S):
                return await self.read()
        except TimeoutError:
            return TimeoutError
        except Exception as error:  # noqa: BLE001  # that is its answer
            return type(error)

    async def open_writer(self, stack: contextlib.AsyncExitStack) -> None:
        raise NotImplementedError

    async def open_reader(self, stack: contextlib.AsyncExitStack) -> None:
        raise NotImplementedError

    async def write(self, value: str) -> None:
        raise NotImplementedError

    async def read(self) -> object:
        raise NotImplementedError

    async def knows(self) -> bool:
        """Whether it says that it does not hear."""
        return False


def _said(found: object, known: bool) -> str:  # noqa: FBT001  # two findings side by side
    if found == NEW:
        return "right: the new value"
    if found is None:
        return "right: no value" + (", and says why" if known else "")
    if found == OLD:
        return "the old value, **and says so**" if known else "**the old value, and does not know**"
    return f"{getattr(found, '__name__', found)}"


class _OursReader(_Reader):
    async def open_writer(self, stack: contextlib.AsyncExitStack) -> None:
        self._writer = await stack.enter_async_context(self._cache(self.server.url))

    async def open_reader(self, stack: contextlib.AsyncExitStack) -> None:
        self._reader = await stack.enter_async_context(self._cache(self.server.url_at(self.proxy.port)))

    def _cache(self, url: str) -> Cache:
        return Cache.from_url("memory://", url, name="drill", redis_socket_timeout=1.0, on_partition=self.how)

    async def write(self, value: str) -> None:
        await self._writer.set("k", value)

    async def read(self) -> object:
        return await self._reader.get("k")

    async def knows(self) -> bool:
        return not (await self._reader.health()).is_well


class _CashewsReader(_Reader):
    async def open_writer(self, stack: contextlib.AsyncExitStack) -> None:
        self._writer = await self._cache(self.server.url, stack)

    async def open_reader(self, stack: contextlib.AsyncExitStack) -> None:
        self._reader = await self._cache(self.server.url_at(self.proxy.port), stack)

    async def _cache(self, url: str, stack: contextlib.AsyncExitStack) -> Any:
        from cashews import Cache as Cashews

        cache = Cashews()
        cache.setup(f"{url}{self.how}", client_side=True, socket_timeout=1)
        await cache.init()
        stack.push_async_callback(cache.close)
        return cache

    async def write(self, value: str) -> None:
        await self._writer.set("k", value, expire=LONG_TTL_S)

    async def read(self) -> object:
        return await self._reader.get("k")


# -- a cancelled leader ------------------------------------------------------------------------------------------------


def cancelled_leader() -> Drill:
    """The first of several callers of one load hangs up."""
    return Drill(
        "The first of two callers of one load is cancelled",
        "Two requests wait for one load of a key, and the first one's client hangs up. Libraries that do not let"
        " callers share a load are left out.",
        "the second caller",
        lambda server, proxy: [  # noqa: ARG005  # one form for all
            ("**genesis_cache**", lambda: _cancelled(_ours)),
            ("cashews `@cache` (`lock=True`)", lambda: _cancelled(_cashews_locked)),
            ("aiocache `@cached_stampede`", lambda: _cancelled(_aiocache_stampede)),
            ("async-lru `@alru_cache`", lambda: _cancelled(_async_lru)),
            ("cachebox `@cached`", lambda: _cancelled(_cachebox)),
            ("moka-py `@cached(wait_concurrent=True)`", lambda: _cancelled(_moka)),
        ],
    )


async def _cancelled(prepare: Callable[[Origin], Awaitable[Prepared]]) -> str:
    origin = Origin()
    ask, _ = await prepare(origin)
    first = asyncio.ensure_future(ask())
    await origin.reading.wait()
    second = asyncio.ensure_future(ask())
    await asyncio.sleep(LOAD_S / 4)
    first.cancel()
    await asyncio.wait({first, second})
    if second.cancelled() or isinstance(second.exception(), asyncio.CancelledError):
        return "**is cancelled too**"
    return "right: gets the value" + (f", after {origin.calls} loads" if origin.calls > 1 else "")


async def _nobody() -> None:
    """Nothing is invalidated here."""


async def _cashews_locked(origin: Origin) -> Prepared:
    from cashews import Cache as Cashews

    cache = Cashews()
    cache.setup("mem://")
    return cache(ttl=LONG_TTL_S, key="k", lock=True)(origin.load), _nobody


async def _aiocache_stampede(origin: Origin) -> Prepared:
    from aiocache import cached_stampede

    return cached_stampede(ttl=LONG_TTL_S, key="k", lease=LEASE_S)(origin.load), _nobody


async def _cachebox(origin: Origin) -> Prepared:
    from cachebox import TTLCache, cached

    async def load() -> Any:
        return await origin.load()

    return cached(TTLCache(8, LONG_TTL_S))(load), _nobody


async def _moka(origin: Origin) -> Prepared:
    from moka_py import cached

    async def load() -> Any:
        return await origin.load()

    return cached(maxsize=8, ttl=LONG_TTL_S, wait_concurrent=True)(load), _nobody


# -- a load that outlasts its lease ------------------------------------------------------------------------------------


def outlasted_lease() -> Drill:
    """A protection from stampedes that ends when it is needed most."""
    return Drill(
        "A load that takes longer than its lease",
        f"{CALLERS} callers of one cold key whose load takes {LONG_LOAD_S:g} s; libraries whose lock has a time are"
        f" given {LEASE_S} s.",
        "loads",
        lambda server, proxy: [  # noqa: ARG005  # one form for all
            ("**genesis_cache**", lambda: _crowd(_ours)),
            ("**genesis_cache** over Redis", lambda: _crowd(lambda origin: _ours(origin, server.url))),
            ("cashews `@cache(lock=True)`", lambda: _crowd(_cashews_locked)),
            (f"aiocache `@cached_stampede(lease={LEASE_S})`", lambda: _crowd(_aiocache_stampede)),
            ("dogpile.cache `get_or_create`", lambda: _crowd(_dogpile)),
            ("async-lru `@alru_cache`", lambda: _crowd(_async_lru)),
            ("fastapi-cache2 `@cache`", lambda: _crowd(_fastapi_cache)),
        ],
    )


async def _crowd(prepare: Callable[[Origin], Awaitable[Prepared]]) -> str:
    origin = Origin(LONG_LOAD_S)
    ask, _ = await prepare(origin)
    await asyncio.gather(*(ask() for _ in range(CALLERS)))
    return "right: 1" if origin.calls == 1 else f"**{origin.calls}**"


# -- nothing found -----------------------------------------------------------------------------------------------------


def nothing_found() -> Drill:
    """``None`` is a value."""
    return Drill(
        "The database has no such row",
        "The loader returns `None`, three times in a row.",
        "loads",
        lambda server, proxy: [  # noqa: ARG005  # one form for all
            ("**genesis_cache**", lambda: _nones(_ours)),
            ("cashews `@cache`", lambda: _nones(_cashews)),
            ("aiocache `@cached`", lambda: _nones(_aiocache)),
            ("dogpile.cache `get_or_create`", lambda: _nones(_dogpile)),
            ("fastapi-cache2 `@cache`", lambda: _nones(_fastapi_cache)),
            ("async-lru `@alru_cache`", lambda: _nones(_async_lru)),
        ],
    )


async def _nones(prepare: Callable[[Origin], Awaitable[Prepared]]) -> str:
    origin = Origin(0.0)
    origin.row = None
    ask, _ = await prepare(origin)
    for _ in range(3):
        await ask()
    return "right: 1" if origin.calls == 1 else f"**{origin.calls}**"

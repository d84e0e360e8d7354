"""A `RemoteStore` in PostgreSQL 13 or newer: envelopes, the invalidation log and leases in one database, by asyncpg.

A read is one prepared statement and one round trip, for one key or for many. A batch of changes is one call of a
function on the server: one transaction, in which the row lock of the cache's books gives the order of the log.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence

import asyncpg

from genesis_cache.model.clock import Clock
from genesis_cache.model.errors import SettingsError
from genesis_cache.model.finding import Finding
from genesis_cache.model.keys import Address
from genesis_cache.model.notice import Notice, Position
from genesis_cache.model.settings import CacheSettings
from genesis_cache.tiers.base import Buffer, Change, Found, Kept, Receipt, StoreStats
from genesis_cache.tiers.postgres import examining
from genesis_cache.tiers.postgres.batch import MAX_ENVELOPE, Batch, batches
from genesis_cache.tiers.postgres.faults import Failures, outage_of
from genesis_cache.tiers.postgres.links import Connection, Links, OwnLinks, PoolLinks, connector, settle
from genesis_cache.tiers.postgres.log import Log, floor_of, signed
from genesis_cache.tiers.postgres.marks import Marks
from genesis_cache.tiers.postgres.place import Place, place_of
from genesis_cache.tiers.postgres.session import Session
from genesis_cache.tiers.postgres.statements import MOST_FLOORS
from genesis_cache.tiers.postgres.sweeping import Sweeping
from genesis_cache.tiers.remote_base import Committed, Joined, Outage, RemoteStore
from genesis_cache.tiers.remote_known import Known, Replaced

_SCAN_STEP = 32  # envelopes fetched at a time
_WHO = "SELECT extract(epoch FROM pg_postmaster_start_time())::text"  # each start makes it another server
_JOINS = 3  # attempts at books that are another's, or gone


def postgres_store(settings: CacheSettings, capacity_bytes: int, clock: Clock) -> Callable[[], RemoteStore]:
    """What makes a store of ``settings.database_url`` for an event loop; nothing is connected yet.

    ``capacity_bytes`` bounds the rows, within a tenth after each sweep. `SettingsError` for a URL that cannot be right.
    """
    place = _place(settings)
    marks = Marks()
    connect = connector(place, settings.redis_connection_timeout, settings.redis_socket_timeout)

    known = Known()

    def make() -> RemoteStore:
        admission = Admission(connect, known, settings.redis_socket_timeout)
        links = OwnLinks(admission.connect)
        return PostgresStore(place, links, settings, capacity_bytes, clock, marks, admission)

    return make


def postgres_store_over(
    pool: asyncpg.Pool, settings: CacheSettings, capacity_bytes: int, clock: Clock
) -> Callable[[], RemoteStore]:
    """As `postgres_store`, over a pool of the caller's; call it on the event loop that the pool belongs to.

    A pool serves one event loop. On others, such as that of the thread which follows the log, the store connects by
    ``settings.database_url``, which must name the same database. The pool is never closed here.
    """
    place = _place(settings)
    marks = Marks()
    home = asyncio.get_running_loop()
    connect = connector(place, settings.redis_connection_timeout, settings.redis_socket_timeout)
    known = Known()

    def make() -> RemoteStore:
        admission = Admission(connect, known, settings.redis_socket_timeout)
        is_home = asyncio.get_running_loop() is home
        links: Links = PoolLinks(pool, settings.redis_socket_timeout) if is_home else OwnLinks(admission.connect)
        return PostgresStore(place, links, settings, capacity_bytes, clock, marks, admission)

    return make


def _place(settings: CacheSettings) -> Place:
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL is not set: set it to postgresql://user:password@host:5432/database")
    return place_of(settings.database_url)


class Admission:
    """Has a store use new connections only to the server that the log was joined on.

    A server that was restarted from a backup, or took the place of another, shows what once was there.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], known: Known, timeout_s: float) -> None:
        self._connect = connect
        self._known = known
        self._timeout_s = timeout_s
        self._lets_all = 0
        self.met_others = False
        """Whether there may be connections to others than that server."""

    @property
    def is_doubted(self) -> bool:
        """Whether somebody has met another server since the log was joined."""
        return self._known.is_doubted

    @contextlib.contextmanager
    def of_all(self) -> Iterator[None]:
        """While whatever server there is may be met: to find out whether it can be used, and to join its log."""
        self._lets_all += 1
        try:
            yield
        finally:
            self._lets_all -= 1

    async def connect(self) -> Connection:
        """A connection; `Replaced` if it is to another server."""
        connection = await self._connect()
        try:
            self._known.admit(await connection.fetchval(_WHO, timeout=self._timeout_s))
        except Replaced:
            if not self._lets_all:
                connection.terminate()
                raise
            self.met_others = True
        except BaseException:
            connection.terminate()
            raise
        return connection

    def note(self, who: str) -> None:
        """The log has been joined on this server, as the caller knows one turn of the loop later."""
        self.met_others = False
        asyncio.get_running_loop().call_soon(self._known.note, frozenset((who,)))


class PostgresStore:
    """One event loop's connections to a PostgreSQL server, and a cache there. Made by `postgres_store`."""

    def __init__(
        self,
        place: Place,
        links: Links,
        settings: CacheSettings,
        capacity_bytes: int,
        clock: Clock,
        marks: Marks,
        admission: Admission,
    ) -> None:
        self.origin = secrets.randbits(63) or 1
        """This handle's number in the notices it writes."""
        self._capacity = capacity_bytes
        self._widest = min(capacity_bytes, MAX_ENVELOPE)
        self._wall = clock.wall
        self._links = links
        self._marks = marks
        self._admission = admission
        self._timeout_s = settings.redis_socket_timeout
        self._connect_s = settings.redis_connection_timeout
        self._session = Session(place, settings.cache_name, links, clock, marks, self._timeout_s)
        self._log = Log(self._session, self._connect_s)
        self._sweeping = Sweeping(self._session, capacity_bytes, settings.cache_load_deadline)

    # -- opening ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """As `RemoteStore.open`."""
        with self._admission.of_all():
            await self._session.open(self._connect_s)
        if self._admission.met_others:
            self._links.purge()  # it can be used, but not before its log is joined

    async def close(self) -> None:
        """As `RemoteStore.close`."""
        await self._log.close()
        await self._links.close()

    def forget(self) -> None:
        """As `RemoteStore.forget`."""
        self._log.forget()
        self._session.forget()
        self.origin = secrets.randbits(63) or 1

    # -- reading ------------------------------------------------------------------------------------------------

    async def get(self, address: Address) -> Buffer | None:
        """As `RemoteStore.get`."""
        session, digest = self._session, address.digest
        connection = self._links.idle() if session.is_ready else None
        if connection is None:
            found = await session.ask(lambda some: some.fetchval(session.sql.get, digest, self._wall()))
        else:
            try:
                found = await connection.fetchval(session.sql.get, digest, self._wall(), timeout=self._timeout_s)
            except BaseException as error:
                settle(self._links, connection, error)
                if not isinstance(error, Failures) or isinstance(error, TimeoutError):
                    raise self._raised(error) from error
                found = await session.ask(lambda some: some.fetchval(session.sql.get, digest, self._wall()))
            else:
                self._links.give(connection)
        if found is not None:
            self._marks.add(digest)
        return found  # type: ignore[no-any-return]  # the column holds nothing but bytes

    async def get_many(self, addresses: Sequence[Address]) -> list[Buffer | None]:
        """As `RemoteStore.get_many`."""
        digests = [address.digest for address in addresses]
        rows = await self._session.ask(
            lambda connection: connection.fetch(self._session.sql.get_many, digests, self._wall())
        )
        found = dict(rows)
        for digest in found:
            self._marks.add(digest)
        return [found.get(digest) for digest in digests]

    async def kept(self, address: Address) -> Kept | None:
        """As `RemoteStore.kept`."""
        sql, digest = self._session.sql, address.digest
        row = await self._session.ask(lambda connection: connection.fetchrow(sql.kept, digest, self._wall()))
        if row is None or len(row[1]) >= MOST_FLOORS:
            return None
        return Kept(row[0], [floor_of(name, 0) for name in row[1]])

    # -- writing ------------------------------------------------------------------------------------------------

    async def commit(self, changes: Sequence[Change], epoch: int) -> Committed:
        """As `RemoteStore.commit`; one transaction for each thousand changes or 8 MB."""
        receipts: list[Receipt] = []
        known = self._log.known[0] or epoch
        for batch in batches(changes, self._wall(), self.origin, self._widest):
            known, some = await self._apply(batch, epoch)
            receipts += some
        return Committed(known, receipts)

    async def _apply(self, batch: Batch, epoch: int) -> tuple[int, list[Receipt]]:
        session, log = self._session, self._log
        arguments = batch.arguments()

        async def apply(connection: Connection) -> tuple[int | None, int, list[int]]:
            sql = session.sql
            row: tuple[int | None, int, list[int]] = await connection.fetchrow(
                sql.apply, self._wall(), signed(epoch), *log.known, sql.channel, *arguments
            )
            return row

        for _ in range(_JOINS):
            now_epoch, seq, refused = await session.ask(apply, again=False)
            if now_epoch is not None:
                receipts = batch.receipts(seq, refused)
                log.learn(now_epoch, max((receipt.seq for receipt in receipts), default=0) or seq)
                return now_epoch, receipts
            await log.join(Position(*log.known))
        raise Outage("the books of the cache in PostgreSQL are made anew all the time: does something delete them?")

    # -- leases -------------------------------------------------------------------------------------------------

    async def lease(self, address: Address, token: bytes, ttl_s: float) -> bool:
        """As `RemoteStore.lease`."""
        taken = await self._session.ask(
            lambda connection: connection.fetchval(self._session.sql.lease, address.digest, token, ttl_s)
        )
        return bool(taken)

    async def release(self, address: Address, token: bytes) -> None:
        """As `RemoteStore.release`."""
        await self._session.ask(lambda connection: connection.execute(self._session.sql.release, address.digest, token))

    # -- the log ------------------------------------------------------------------------------------------------

    async def join(self, known: Position | None) -> Joined:
        """As `RemoteStore.join`."""
        with self._admission.of_all():
            who = await self._session.ask(
                lambda connection: connection.fetchval(_WHO)
            )  # before: it may be another then
            joined = await self._log.join(known)
        self._admission.note(who)
        return joined

    async def follow(self, after: Position, wait_s: float) -> list[Notice] | None:
        """As `RemoteStore.follow`."""
        notices = await self._log.follow(after, wait_s)
        return None if self._admission.is_doubted else notices

    # -- the rest -----------------------------------------------------------------------------------------------

    async def sweep(self, budget_s: float) -> int:
        """As `RemoteStore.sweep`; eviction by size may take longer than the budget, because the bound must hold."""
        return await self._sweeping.sweep(budget_s)

    async def scan(self, limit: int) -> list[Found]:
        """As `RemoteStore.scan`."""
        found: list[Found] = []
        after = b""
        while len(found) < limit:
            step = min(_SCAN_STEP, limit - len(found))
            rows = await self._session.ask(
                lambda connection, after=after, step=step: connection.fetch(  # type: ignore[misc]  # asyncpg has no types
                    self._session.sql.scan, after, self._wall(), step
                )
            )
            found += [Found(envelope, read or digest in self._marks.seen) for digest, envelope, read in rows]
            if len(rows) < step:
                break
            after = rows[-1][0]
        return found

    async def stats(self) -> StoreStats:
        """As `RemoteStore.stats`: from the books, exact at every moment."""
        books = await self._session.ask(lambda connection: connection.fetchrow(self._session.sql.books))
        if books is None:
            return StoreStats(capacity_bytes=self._capacity)
        return StoreStats(
            entries=books["entries"],
            size_bytes=books["bytes"],
            capacity_bytes=self._capacity,
            evictions={"size": books["evicted_size"], "ttl": books["evicted_ttl"], "damaged": 0},
        )

    async def check(self) -> list[str]:
        """As `RemoteStore.check`."""
        return await examining.check(self._session)

    async def diagnose(self) -> list[Finding]:
        """As `RemoteStore.diagnose`."""
        return await examining.diagnose(self._session, self._capacity, is_listening=self._log.is_listening)

    def _raised(self, error: BaseException) -> BaseException:
        """A client's failure as an outage; a cancellation as it is."""
        return outage_of(error, self._session.place.url) if isinstance(error, Failures) else error

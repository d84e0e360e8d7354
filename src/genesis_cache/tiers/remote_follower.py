"""The thread that follows a server's log: on an event loop and connections of its own, so that no caller holds it up.

It also renews leases, refreshes the figures, sweeps when asked, writes what event loops left behind, and tries a server
that is down until it works again.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from genesis_cache.codecs.envelope import FORMAT, HEADER, LEAD_BYTES, MAGIC, NO_KEY, with_checksum
from genesis_cache.model.clock import Clock
from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.tiers.base import Change, Put, StoreStats
from genesis_cache.tiers.commit_queue import tell_loop
from genesis_cache.tiers.remote_base import RemoteStore
from genesis_cache.tiers.remote_commits import Commits
from genesis_cache.tiers.remote_health import Health, Unanswered
from genesis_cache.tiers.remote_leases import Lease, LeaseDesk, Leases
from genesis_cache.tiers.remote_link import Link
from genesis_cache.tiers.remote_log import RemoteLog

FIGURES_EVERY_S = 2.0

_NEWS_PAUSE_S = 0.002  # between two looks at a busy log, so that this thread does not keep the others from running
_RETRY_PAUSE_S = 0.01  # at least, between two looks at the breaker, and before a lost connection is made again
_LOSSES = 3  # of the connection in a row, after it had worked, that are no outage yet
_SILENCE_S = 2.0  # beyond what a request for news may wait by itself: then its connection is given up
_PROBE_LIFE_S = 10.0

_T = TypeVar("_T")
_Asked = Callable[[RemoteStore], Awaitable[_T]]
_logger = logging.getLogger("genesis_cache")

PROBE = address_of(scope_of(""), "probe")
"""The address that shows whether a server can be read from and written to."""


class Follower:
    """The thread of one tier; refers to nothing of the tier but what is given, so that the tier can be collected."""

    def __init__(
        self,
        make: Callable[[], RemoteStore],
        log: RemoteLog,
        health: Health,
        leases: Leases,
        clock: Clock,
        *,
        name: str,
        wait_s: float,
        timeout_s: float,
    ) -> None:
        self.news: Callable[[], object] = _nothing
        """Called on the thread when the log has something new."""
        self.stats = StoreStats()
        """The figures as last known."""
        self.first: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when the log was joined for the first time, or could not be."""
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when the thread has let go of everything."""
        self._log = log
        self._health = health
        self._leases = leases
        self._clock = clock
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._is_stale = False  # whether the log has to be joined again
        self._losses = _LOSSES  # in a row; a server that never was there needs no second look
        self._is_joined = False  # whether the connection has worked
        self._is_gapless = True  # whether what was missed may still be followed
        self._loop = asyncio.new_event_loop()
        self._link = Link(self._loop, make)
        self._commits = Commits(self._link, health, log, timeout_s)
        self._commits.other_log = self.join_again
        self._desk = LeaseDesk(self._link, health, leases, log, timeout_s, timeout_s)
        self._main: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[int] | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    # -- from any thread ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, let go of everything, end. Returns at once; `ended` tells when."""
        self._is_stopped = True
        tell_loop(self._loop, self._cancel)

    def join(self, seconds: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(seconds)

    def forget(self) -> None:
        """In a forked child: the thread is not there, and its connections are the parent's."""
        self._link.forget()

    def join_again(self) -> None:
        """The log is not the one that is known: find out which it is."""
        self._is_stale = True

    def after(self, seconds: float, act: Callable[..., object], *args: object) -> None:
        """Have the thread act later."""
        tell_loop(self._loop, self._loop.call_later, seconds, act, *args)

    def adopt(self, changes: Sequence[Change]) -> None:
        """Write what an event loop that has ended left behind."""
        tell_loop(self._loop, self._commits.put, changes)

    def release(self, lease: Lease) -> None:
        """Give a lease back."""
        tell_loop(self._loop, self._desk.release, lease)

    async def ask(self, asked: "_Asked[_T]", limit_s: float) -> _T:
        """What the server answers on the thread's own connections; `Unanswered` past the limit."""
        return await self._wait_for(self._asked(asked), limit_s)

    async def sweep(self, budget_s: float, limit_s: float) -> int:
        """Sweep the server, on the thread; how many entries went. Whoever asks while that lasts joins it.

        `Unanswered` past the limit: nobody waits for longer, and the sweep goes on to its end.
        """
        return await self._wait_for(self._swept(budget_s), limit_s)

    async def _wait_for(self, work: Coroutine[object, object, _T], limit_s: float) -> _T:
        if self._is_stopped:
            work.close()
            raise Unanswered("the tier is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise Unanswered(f"no answer within {limit_s:g} s") from None

    async def _asked(self, asked: "_Asked[_T]") -> _T:
        return await asked(await self._link.ready())

    async def _swept(self, budget_s: float) -> int:
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep(budget_s))
        sweeping = self._sweeping
        await asyncio.wait({sweeping})  # whoever asked may leave
        return 0 if sweeping.cancelled() else sweeping.result()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        finally:
            _done(self.first)
            _done(self.ended)

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    async def _live(self) -> None:
        self._main = asyncio.create_task(self._follow())
        upkeep: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._keep_leases()), asyncio.create_task(self._keep_figures()),
        ]  # fmt: skip
        if self._is_stopped:
            self._main.cancel()
        await asyncio.wait({self._main})
        self._log.lost()
        for task in upkeep:
            task.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
            upkeep.append(self._sweeping)
        await asyncio.gather(self._main, *upkeep, return_exceptions=True)
        await self._commits.close()
        await self._link.close()

    async def _follow(self) -> None:
        """Join the log and hear it, for ever; after a failure, when the breaker lets an attempt through."""
        while True:
            while not self._health.may_try_read():  # noqa: ASYNC110  # time decides, and nobody tells when
                await asyncio.sleep(max(self._health.retry_in_s(), _RETRY_PAUSE_S))
            try:
                await self._join()
                await self._hear()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next attempt may work
                self._log.lost()
                self._losses += 1
                if self._losses > _LOSSES or (isinstance(error, Unanswered) and not self._is_joined):
                    self._health.read_failed(error)
                else:
                    await asyncio.sleep(_RETRY_PAUSE_S)
            _done(self.first)

    async def _join(self) -> None:
        self._is_stale = self._is_joined = False
        async with _answering("join its log", self._timeout_s):
            store = await self._link.ready()
            sent_at = self._clock.now()
            joined = await store.join(self._log.known)
            self._log.joined(joined, sent_at, is_gapless=self._is_gapless)
            self._is_gapless = True
            if self._health.reads_down:
                await store.get(PROBE)
            if not self.first.done():
                self.stats = await store.stats()  # who opens a tier to see what it holds shall not see nothing
        self._is_joined = True
        self._health.read_worked()
        _done(self.first)
        self._tell()

    async def _hear(self) -> None:
        """Follow the log until it has to be joined again; raises what the server, or its silence, raises."""
        store, log, health = self._link.store, self._log, self._health
        while not self._is_stale and (known := log.known) is not None:
            sent_at = self._clock.now()
            async with _answering("say what is new", self._wait_s + min(self._timeout_s, _SILENCE_S)):
                news = await store.follow(known, self._wait_s)
            if news is None:
                self._is_gapless = False
                return
            log.heard(news, sent_at)
            self._losses = 0
            if news:
                self._tell()
                await asyncio.sleep(_NEWS_PAUSE_S)
            if health.reads_down and health.may_try_read():
                await self._try_read(store)
            elif health.writes_down and health.may_try_write():
                await self._try_write(store)

    async def _try_read(self, store: RemoteStore) -> None:
        try:
            async with _answering("read", self._timeout_s):
                await store.get(PROBE)
        except Exception as error:  # noqa: BLE001  # whatever it is, it does not work yet
            self._health.read_failed(error)
        else:
            self._health.read_worked()

    async def _try_write(self, store: RemoteStore) -> None:
        """Write a small value, as a fill: that takes no sequence and tells nobody."""
        epoch = 0 if self._log.known is None else self._log.known.epoch
        put = Put(PROBE, _probe_envelope(), self._clock.wall() + _PROBE_LIFE_S, self._log.seq())
        try:
            async with _answering("write", self._timeout_s):
                await store.commit([put], epoch)
        except Exception as error:  # noqa: BLE001  # whatever it is, it does not work yet
            self._health.write_failed(error)
        else:
            self._health.write_worked()

    def _tell(self) -> None:
        try:
            self.news()
        except Exception:
            _logger.exception("a callback for news of a log failed")

    # -- upkeep -------------------------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        """Renew what is held, three times in the life of a lease."""
        while True:
            await asyncio.sleep(self._leases.lease_s / 3)
            for lease in self._leases.held():
                if not self._health.is_shut:
                    await self._renew(lease)

    async def _renew(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await self._link.ready()
                if not await store.lease(lease.address, lease.token, self._leases.lease_s):
                    self._leases.drop(lease)
                elif not self._leases.is_held(lease):  # it was given back meanwhile, and this took it anew
                    await store.release(lease.address, lease.token)
        except Exception:  # noqa: BLE001  # tried again in time
            self._health.errors += 1

    async def _sweep(self, budget_s: float) -> int:
        """As `RemoteStore.sweep`, however long that takes; 0 where it failed, and the next begins anew."""
        try:
            store = await self._link.ready()
            removed = await store.sweep(budget_s)
        except Exception:  # noqa: BLE001  # whatever it is, callers never see it
            self._health.errors += 1
            return 0
        await self.refresh()
        return removed

    async def _keep_figures(self) -> None:
        while True:
            if not self._health.is_shut and self._link.is_open:
                await self.refresh()
            await asyncio.sleep(FIGURES_EVERY_S)

    async def refresh(self) -> None:
        """Ask for the figures, on the thread's own event loop."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self.stats = await self._link.store.stats()
        except Exception:  # noqa: BLE001  # the last known are shown
            self._health.errors += 1


@contextlib.asynccontextmanager
async def _answering(what: str, limit_s: float) -> AsyncIterator[None]:
    """`Unanswered` past the limit: the server did not do what it was asked to."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise Unanswered(f"the server did not {what} within {limit_s:g} s") from None


def _probe_envelope() -> bytes:
    """A record without a value, sound in itself, that nobody asks for."""
    names = PROBE.scope.prefix + PROBE.key.encode()
    lengths = (len(names), 0, 0, 0)
    header = HEADER.pack(MAGIC, 0, FORMAT, 0, 0, 1, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, PROBE.digest, NO_KEY, *lengths)
    return with_checksum(header[LEAD_BYTES:] + names, b"")


def _done(future: "concurrent.futures.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _nothing() -> None:
    """Nobody asked to be told."""

"""The tier over a server: reads and changes travel on the caller's own event loop, the log is heard on a thread.

No caller waits for a server that does not answer: a late reply costs one reader its budget, and nobody else anything;
a server that is down is tried by the thread until it works, with traffic or without.
"""

import asyncio
import atexit
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from genesis_cache.model.clock import Clock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.model.keys import Address
from genesis_cache.model.notice import Notice, Position
from genesis_cache.tiers.base import Answer, Change, Found, Kept, StoreStats
from genesis_cache.tiers.breaker import Circuit
from genesis_cache.tiers.commit_queue import Receipts, Waiting, settle, tell_loop
from genesis_cache.tiers.remote_base import RemoteStore
from genesis_cache.tiers.remote_follower import Follower
from genesis_cache.tiers.remote_health import Health, Unanswered, sentence
from genesis_cache.tiers.remote_leases import Leases
from genesis_cache.tiers.remote_line import Line
from genesis_cache.tiers.remote_log import RemoteLog
from genesis_cache.tiers.remote_reads import MAX_BATCH, Faults

LEASE_S = 5.0
"""How long a server keeps the lease of a process that has died."""
LONGEST_LOAD_S = 310.0
"""How long a lease is renewed at most."""
FOLLOW_S = 0.25
"""How long one request waits for news of the log; while there are none, so often is it proven that there are none."""

_SILENT_S = 1.0  # without a reply, and it is told
_SCAN_S = 30.0
_EXIT_PATIENCE_S = 2.0  # for what is still to be written when the interpreter exits


class RemoteTier:
    """A `Tier` over a server; ``make`` gives a `RemoteStore` for one event loop.

    ``kind`` is ``redis`` or ``database``; ``budget_s`` what a reader waits at most, ``timeout_s`` what a call may take
    at all. ``lease_s``, ``follow_s`` and ``longest_load_s``: see `LEASE_S`, `FOLLOW_S` and `LONGEST_LOAD_S`. The bound
    of ``max_connections`` is for the calls of one event loop that are made one by one; it is the store that keeps it.

    ``on_down`` (called with the reason), ``on_up`` and ``on_news`` may be set; they are called on whatever thread met
    the change.
    """

    def __init__(
        self,
        make: Callable[[], RemoteStore],
        *,
        kind: str,
        capacity_bytes: int,
        clock: Clock,
        budget_s: float,
        timeout_s: float,
        lease_s: float = LEASE_S,
        follow_s: float = FOLLOW_S,
        longest_load_s: float = LONGEST_LOAD_S,
        max_connections: int = 50,
    ) -> None:
        self.kind = kind
        self.is_shared = True
        self.keeps_budget = True
        self.on_down: Callable[[str], object] = _nothing_down
        self.on_up: Callable[[], object] = _nothing
        self.on_news: Callable[[], object] = _nothing
        self._make = make
        self._clock = clock
        self._capacity_bytes = capacity_bytes
        self._budget_s = budget_s
        self._timeout_s = timeout_s
        self._follow_s = follow_s
        self._max_connections = max_connections
        self._health = Health(kind, clock)
        self._faults = Faults()
        self._leases = Leases(clock, lease_s, longest_load_s)
        self._stats = StoreStats(capacity_bytes=capacity_bytes)
        self._wanted = False
        self._start_afresh()
        _tiers.add(self)

    def _start_afresh(self) -> None:
        """What belongs to this process alone: locks, event loops, the thread, the copy of the log."""
        self._guard = threading.Lock()
        self._log = RemoteLog()
        self._line: Line | None = None
        self._lines: dict[asyncio.AbstractEventLoop, Line] = {}
        self._follower: Follower | None = None
        self._finalizer: weakref.finalize[..., RemoteTier] | None = None
        tell, suspected = weakref.WeakMethod(self._tell), weakref.WeakMethod(self._suspected)
        self._health.tell = lambda reason: _call(tell, reason)
        self._health.suspected = lambda: _call(suspected)

    def _after_fork(self) -> None:
        """In the child: the server is not told, and the first use begins anew."""
        if self._finalizer is not None:
            self._finalizer.detach()
        for line in self._lines.values():
            line.forget()
        if self._follower is not None:
            self._follower.forget()
        _inherited.append((self._follower, self._lines))
        self._leases.forget()
        self._health.forget()
        self._start_afresh()

    # -- opening ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """As `Tier.open`; waits for the server for no longer than a call may take."""
        self._wanted = True
        line = self._line_here()
        follower = self._following()
        if not await _within(follower.first, self._timeout_s):
            self._health.read_failed(Unanswered(f"the {self.kind} server did not answer within {self._timeout_s:g} s"))
        elif not self._health.reads_down:
            await line.warm(self._timeout_s)
        self._health.start()

    async def close(self) -> None:
        """As `Tier.close`; a later `open` opens it again."""
        if not self._wanted:
            return
        self._wanted = False
        self._health.no_more_reads()
        if self._finalizer is not None:
            self._finalizer.detach()
        with self._guard:
            lines, self._lines, self._line = self._lines, {}, None
            follower, self._follower = self._follower, None
        here = asyncio.get_running_loop()
        try:
            await asyncio.gather(*(self._close_line(line, here) for line in lines.values()))
        finally:  # even where this is cancelled
            if follower is not None:
                follower.stop()
        try:
            if follower is not None:  # it writes what event loops that have ended left behind
                await _within(follower.ended, 2 * self._timeout_s)
        finally:
            self._health.stop()
            self._log = RemoteLog()

    async def _close_line(self, line: Line, here: asyncio.AbstractEventLoop) -> None:
        """Close an event loop's connections on that loop, if it still runs."""
        if line.loop is here:
            await line.close(self._timeout_s)
        elif line.loop.is_running():
            closing = line.close(self._timeout_s)
            try:
                ended = asyncio.run_coroutine_threadsafe(closing, line.loop)
            except RuntimeError:  # it ended just now
                closing.close()
                line.abandon()
            else:
                await _within(ended, 2 * self._timeout_s)
        else:
            line.abandon()

    def _line_here(self) -> Line:
        """What the running event loop has to do with the server."""
        loop = asyncio.get_running_loop()
        line = self._line
        if line is None or line.loop is not loop:
            with self._guard:
                line = self._lines.get(loop) or self._new_line(loop)
                self._line = line
        return line

    def _new_line(self, loop: asyncio.AbstractEventLoop) -> Line:
        follower = self._following_locked()
        for other in [other for other in self._lines if other.is_closed()]:
            self._lines.pop(other).abandon()
        line = self._lines[loop] = Line(
            self._make,
            self._health,
            self._log,
            self._leases,
            self._faults,
            budget_s=self._budget_s,
            timeout_s=self._timeout_s,
            max_connections=self._max_connections,
        )
        line.commits.heir = follower.adopt
        line.commits.other_log = follower.join_again
        return line

    def _following(self) -> Follower:
        with self._guard:
            return self._following_locked()

    def _following_locked(self) -> Follower:
        """The thread; started here in a child of a fork too, and after `close` by whoever still asks."""
        follower = self._follower
        if follower is None:
            follower = self._follower = Follower(
                self._make,
                self._log,
                self._health,
                self._leases,
                self._clock,
                name=f"genesis-cache-{self.kind}-log",
                wait_s=self._follow_s,
                timeout_s=self._timeout_s,
            )
            news = weakref.WeakMethod(self._news)
            follower.news = lambda: _call(news)
            self._finalizer = weakref.finalize(self, _let_go, follower, self._lines)
            self._finalizer.atexit = False
            follower.start()
        return follower

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, address: Address) -> asyncio.Future[Answer] | None:
        """As `Tier.get`; None too where no event loop is there to wait."""
        if self._health.is_shut:
            return _after_a_turn() if self._health.is_suspect else None
        line = self._line
        if line is None or line.loop is not _running_loop():
            if _running_loop() is None:
                return None
            line = self._line_here()
        return line.reads.get(address)

    async def get_many(self, addresses: Sequence[Address]) -> list[Answer]:
        """As `Tier.get_many`; each batch has a budget of its own, and after one that is late no other is sent."""
        found: list[Answer] = []
        for at in range(0, len(addresses), MAX_BATCH):
            if self._health.is_shut:
                await asyncio.sleep(0)  # as after a single read
                return found + [None] * (len(addresses) - at)
            reads = self._line_here().reads
            found += [await one for one in [reads.get(address) for address in addresses[at : at + MAX_BATCH]]]
        return found

    async def kept(self, address: Address) -> Kept | None:
        """As `Keeper.kept`."""
        if self._health.is_shut:
            return None
        return await self._line_here().kept(address, self._budget_s, self._timeout_s)

    # -- writing ------------------------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> Waiting:
        """As `Tier.commit`; cancelling the awaitable takes nothing back."""
        if self._wanted:
            return self._line_here().commits.put(changes)
        owed: Waiting = asyncio.get_running_loop().create_future()
        owed.set_result(None)
        return owed

    def take_over(self, changes: Sequence[Change]) -> None:
        """As `Tier.take_over`: the tier's own thread writes them."""
        if self._wanted:
            self._following().adopt(changes)

    def commit_now(self, changes: Sequence[Change]) -> Receipts:  # noqa: ARG002  # no server answers without waiting
        """As `Tier.commit_now`: never possible."""
        return None

    # -- the log and the leases ---------------------------------------------------------------------------------

    @property
    def heard_at(self) -> float | None:
        """When the last request was sent whose answer proved that nothing of the log is missing here.

        Monotonic seconds of the clock; None before the first.
        """
        return self._log.heard_at

    def position(self) -> Position | None:
        """As `Tier.position`: as last heard, though nothing may be heard at the moment; None before the first join."""
        position = self._log.known
        if position is None:
            self._revive()
        else:
            self._log.believed = position.epoch
        return position

    def seq(self) -> int:
        """As `Tier.seq`."""
        return self._log.seq()

    def notices(self, after: Position) -> list[Notice] | None:
        """As `Tier.notices`."""
        return self._log.notices(after)

    def floors(self) -> list[Notice]:
        """As `Tier.floors`."""
        return self._log.floors()

    def _revive(self) -> None:
        """In a child of a fork: begin to hear."""
        if self._wanted and self._follower is None:
            self._following()

    def lease(self, address: Address) -> bool | Awaitable[bool]:
        """As `Tier.lease`; True too where the server does not answer within the budget."""
        if self._health.is_shut or self._health.writes_down or _running_loop() is None:
            return True
        return self._line_here().desk.lease(address)

    def release(self, address: Address) -> None:
        """As `Tier.release`; nobody waits for it."""
        lease = self._leases.end(address)
        if lease is None or not self._wanted:
            return
        if _running_loop() is None:
            self._following().release(lease)
        else:
            self._line_here().desk.release(lease)

    # -- upkeep and figures -------------------------------------------------------------------------------------

    async def sweep(self, budget_s: float) -> int:
        """As `Tier.sweep`; 0 where the server cannot be swept now.

        A sweep that lasts longer than a call may, because the size has to come down, goes on behind its caller.
        """
        if not self._wanted or self._health.reads_down:
            return 0
        try:
            return await self._following().sweep(budget_s, budget_s + self._timeout_s)
        except Unanswered:  # it goes on
            return 0
        except Exception:  # noqa: BLE001  # the thread is ending
            self._health.errors += 1
            return 0

    async def scan(self, limit: int) -> list[Found]:
        """As `Tier.scan`."""
        if not self._wanted or self._health.reads_down:
            return []
        try:
            return await self._following().ask(lambda store: store.scan(limit), _SCAN_S)
        except Exception:  # noqa: BLE001  # whatever it is, callers never see it
            self._health.errors += 1
            return []

    def stats(self) -> StoreStats:
        """As `Tier.stats`: of two seconds ago at most while the server answers."""
        stats = self._stats if self._follower is None else self._follower.stats
        self._stats = stats
        return msgspec.structs.replace(
            stats,
            damaged=stats.damaged + self.damaged + self.swapped,
            capacity_bytes=stats.capacity_bytes or self._capacity_bytes,
        )

    @property
    def damaged(self) -> int:
        """Replies that were no whole envelopes."""
        return self._faults.damaged

    @property
    def swapped(self) -> int:
        """Replies that belonged to another address; each made the tier connect anew."""
        return self._faults.swapped

    @property
    def errors(self) -> int:
        """How often the server failed."""
        return self._health.errors

    async def diagnose(self) -> list[Finding]:
        """As `Tier.diagnose`."""
        if self._wanted:
            try:
                return await self._following().ask(lambda store: store.diagnose(), 2 * self._timeout_s)
            except Exception as error:  # noqa: BLE001  # that is the finding
                reason = sentence(error)
        else:
            reason = f"the {self.kind} tier is not open"
        fix = "mend what the sentence says; the cache tries again by itself"
        return [Finding(f"{self.kind}: use", Severity.FAULT, reason, fix)]

    def check(self) -> list[str]:
        """As `Tier.check`: the books that this process keeps; call it while nothing is being written."""
        return [fault for line in self._lines.values() for fault in line.commits.check()] + self._log.check()

    # -- up and down --------------------------------------------------------------------------------------------

    @property
    def down(self) -> str | None:
        """As `Tier.down`; where only writes fail it says so, and reads go on."""
        return self._health.reason

    @property
    def circuit(self) -> Circuit:
        """The state of the worse of its two breakers."""
        return self._health.circuit

    def _tell(self, reason: str | None) -> None:
        if reason is None:
            self.on_up()
        else:
            self.on_down(reason)

    def _news(self) -> None:
        self.on_news()

    def _suspected(self) -> None:
        """A reply is late: if none comes for long, say so, even if nobody is there any more to wait for it."""
        follower, number = self._follower, self._health.suspicions
        if follower is not None:
            follower.after(_SILENT_S, self._health.silent, number, _SILENT_S)
            follower.after(self._timeout_s + _SILENT_S, self._health.expired, number, self._timeout_s)

    def _finish(self) -> None:
        """At the interpreter's exit: write what is left, in the time that there is."""
        for line in self._lines.values():
            if not line.loop.is_running():
                line.abandon()
            elif line.loop is not _running_loop():
                _close_there(line)
        if self._follower is not None:
            self._follower.stop()
            self._follower.join(_EXIT_PATIENCE_S)


async def _within(done: "concurrent.futures.Future[None]", seconds: float) -> bool:
    """Whether something on another thread was done in so many seconds."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    done.add_done_callback(lambda _: tell_loop(loop, settle, told, None))
    await asyncio.wait({told}, timeout=seconds)
    return done.done()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call(method: Callable[[], Callable[..., object] | None], *args: object) -> None:
    """Call a method, unless its object is gone."""
    if (bound := method()) is not None:
        bound(*args)


def _let_go(follower: Follower, lines: dict[asyncio.AbstractEventLoop, Line]) -> None:
    """The tier was collected without being closed."""
    for loop, line in lines.items():
        if loop.is_running():
            _close_there(line)
        else:
            line.abandon()
    follower.stop()


def _close_there(line: Line) -> "concurrent.futures.Future[None] | None":
    """Have the connections of an event loop closed on that loop, which runs on another thread."""
    closing = line.close(_EXIT_PATIENCE_S)
    try:
        leaving = asyncio.run_coroutine_threadsafe(closing, line.loop)
    except RuntimeError:  # it ended just now
        closing.close()
        line.abandon()
        return None
    _leaving.add(leaving)
    leaving.add_done_callback(_leaving.discard)
    return leaving


def _after_a_turn() -> asyncio.Future[Answer] | None:
    """Nothing, after a turn of the event loop: who reads in a loop of his own must not keep a late reply from it."""
    loop = _running_loop()
    if loop is None:
        return None
    answer: asyncio.Future[Answer] = loop.create_future()
    loop.call_soon(settle, answer, None)
    return answer


def _nothing_down(_reason: str) -> None:
    """Nobody asked to be told."""


def _nothing() -> None:
    """Nobody asked to be told."""


_tiers: "weakref.WeakSet[RemoteTier]" = weakref.WeakSet()
_leaving: "set[concurrent.futures.Future[None]]" = set()  # connections that are being closed on other threads
_inherited: list[object] = []  # event loops and connections of a parent, which must not be closed here


def _after_fork_in_child() -> None:
    for tier in list(_tiers):
        tier._after_fork()  # noqa: SLF001  # the same module


@atexit.register
def _at_exit() -> None:
    for tier in list(_tiers):
        tier._finish()  # noqa: SLF001  # the same module
    concurrent.futures.wait(list(_leaving), _EXIT_PATIENCE_S)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

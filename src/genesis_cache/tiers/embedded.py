"""The tier over an embedded store: reads on the calling thread, changes of all callers in shared batches on one thread.

Whatever waits when the writing thread becomes free goes to the store as one batch (group commit), so that 64 changes of
one loop tick cost one lock and one flush. Failures of reading and of writing are judged apart: a full or read-only
store goes on serving what it has.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Protocol, TypeVar, runtime_checkable

from genesis_cache.model.clock import Clock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.model.keys import Address
from genesis_cache.model.missing import MISSING, Missing
from genesis_cache.tiers.base import (
    Buffer,
    Change,
    Found,
    Kind,
    Notice,
    Position,
    Store,
    StoreError,
    StoreStats,
)
from genesis_cache.tiers.breaker import Breaker, Circuit
from genesis_cache.tiers.commit_queue import (
    CommitQueue,
    Lane,
    Order,
    Receipts,
    SyncReply,
    Waiting,
    deliver,
    fail,
    settle,
    tell_loop,
)
from genesis_cache.tiers.embedded_diagnosis import examine
from genesis_cache.tiers.worker import Worker

_MAX_INLINE_MANY = 128  # reads done at once on the calling thread
_EXIT_PATIENCE_S = 5.0  # for a write under way when the interpreter exits

_T = TypeVar("_T")
_Reading = asyncio.Future[Buffer | None]
_logger = logging.getLogger("genesis_cache")


@runtime_checkable
class SizedReads(Protocol):
    """What a store has whose reads copy: a read that stops at a size, so that the large ones can go to a thread."""

    def get_within(self, address: Address, max_bytes: int) -> Buffer | Missing | None:
        """As `Store.get`, but MISSING where the envelope has more than ``max_bytes``."""


class StoreTier:
    """A `Tier` over a synchronous `Store`.

    ``kind`` is ``disk`` or ``database``. A store with `SizedReads` is read on the calling thread up to
    ``inline_bytes`` and on a thread of the tier beyond; one without is taken to read without copying. With
    ``inline_reads`` False every read goes to the thread. ``capacity_bytes`` is told where the store knows none.

    ``on_down`` (called with the reason) and ``on_up`` may be set; each is called once for each change of state, on
    whatever thread met it.
    """

    def __init__(
        self,
        store: Store,
        *,
        kind: str,
        capacity_bytes: int,
        clock: Clock,
        inline_bytes: int = 65536,
        inline_reads: bool = True,
    ) -> None:
        self.kind = kind
        self.is_shared = False
        self.keeps_budget = False
        self.heard_at: float | None = None  # its log is looked at, not followed
        self.store = store
        self.on_down: Callable[[str], object] = _nothing_down
        self.on_up: Callable[[], object] = _nothing
        self.on_news: Callable[[], object] = _nothing
        self.errors = 0
        """How often the store failed."""
        self._clock = clock
        self._inline_bytes = inline_bytes
        self._last_stats = StoreStats(capacity_bytes=capacity_bytes)
        self._last_seq = 0
        self._read: Callable[[Address], Buffer | _Reading | None] = store.get
        if not inline_reads:
            self._read = self._read_behind
        elif isinstance(store, SizedReads):
            self._get_within = store.get_within
            self._read = self._read_sized
        self._wanted = False  # whether it should be open
        self._opened = False  # whether it is, in this process
        self._reading = False  # whether a read needs no further thought
        self._forked = False  # whether it was open in the parent and is not yet here
        self._reads, self._writes = Breaker(), Breaker()
        self._was_down = False
        self._start_afresh()
        _tiers.add(self)

    def _start_afresh(self) -> None:
        """What a child of a fork cannot inherit: locks, threads, and what waits in the parent's queue."""
        self._telling = threading.Lock()
        self._turn = threading.Lock()  # held by whoever writes to the store
        self._queue = CommitQueue()
        self._writer = Worker(f"genesis-cache-{self.kind}-writes")
        self._reader = Worker(f"genesis-cache-{self.kind}-reads")
        self._finalizer = weakref.finalize(self, _stop, self._writer, self._reader)
        self._finalizer.atexit = False

    def _after_fork(self) -> None:
        """In the child: the first use opens the store again, not this, which runs while locks are still held."""
        self._finalizer.detach()
        self._start_afresh()
        self._forked = self._wanted and self._opened
        self._opened = self._reading = False

    # -- opening ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """As `Tier.open`."""
        self._wanted = True
        await self._call(self._writer, self._open_store)

    async def close(self) -> None:
        """As `Tier.close`; a later `open` opens it again."""
        self._wanted = self._reading = False
        await self._call(self._writer, self._close_store)
        _stop(self._writer, self._reader)

    def _open_store(self) -> bool:
        with self._turn:
            return self._reopen()

    def _is_ready(self) -> bool:
        """Whether the store is open; in a forked child the first to ask opens it, for its parent had it in order."""
        return self._opened or (self._forked and self._open_store())

    def _reopen(self) -> bool:
        """Open the store in this process; call it with the turn held, or alone."""
        if self._opened or not self._wanted:
            return self._opened
        self._forked = False
        try:
            self.store.open()
        except Exception as error:  # noqa: BLE001  # whatever it is, callers never see it
            self._reads.failed(self._clock.now(), _sentence(error))
            self._failed(self._writes, error)
            return False
        self._opened = self._reading = True
        self._reads.worked()
        self._worked(self._writes)
        return True

    def _close_store(self) -> None:
        self._drain()
        with self._turn:
            self._opened = self._reading = False
            with self._noting(None):
                self.store.close()

    def _finish(self) -> None:
        """At the interpreter's exit: write what is queued, then let go."""
        if not self._opened or not self._turn.acquire(timeout=_EXIT_PATIENCE_S):
            return
        try:
            while orders := self._queue.take():
                self._apply(orders)
            self._wanted = self._opened = self._reading = False
            with contextlib.suppress(Exception):
                self.store.close()
        finally:
            self._turn.release()

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, address: Address) -> Buffer | _Reading | None:
        """As `Tier.get`."""
        if self._reading:
            try:
                return self._read(address)
            except Exception as error:  # noqa: BLE001  # whatever it is, callers never see it
                self._failed(self._reads, error)
                return None
        return self._ask(partial(self._read, address), None)

    async def get_many(self, addresses: Sequence[Address]) -> list[Buffer | None]:
        """As `Tier.get_many`; many are read on a thread of the tier."""
        if len(addresses) > _MAX_INLINE_MANY:
            return await self._call(self._reader, lambda: [self._get_here(address) for address in addresses])
        found = [self.get(address) for address in addresses]
        return [await one if isinstance(one, asyncio.Future) else one for one in found]

    def _read_sized(self, address: Address) -> Buffer | _Reading | None:
        found = self._get_within(address, self._inline_bytes)
        return found if found is not MISSING else self._read_behind(address)

    def _read_behind(self, address: Address) -> Buffer | _Reading | None:
        """The envelope read by the reading thread, or here where no event loop is there to wait."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self.store.get(address)
        future: asyncio.Future[Buffer | None] = loop.create_future()
        self._reader.post(lambda: tell_loop(loop, settle, future, self._get_here(address)))
        return future

    def _get_here(self, address: Address) -> Buffer | None:
        return self._ask(lambda: self.store.get(address), None)

    def _ask(self, ask: Callable[[], _T], otherwise: _T) -> _T:
        """What the store answers, or something else where reads are down and it is not yet time to try again."""
        if not self._reading and not self._may_try():
            return otherwise
        try:
            answer = ask()
        except Exception as error:  # noqa: BLE001  # whatever it is, callers never see it
            self._failed(self._reads, error)
            return otherwise
        if not self._reading and self._opened:
            self._reading = True
            self._worked(self._reads)
        return answer

    def _may_try(self) -> bool:
        if not self._wanted or not self._reads.allows(self._clock.now()):
            return False
        if not self._is_ready():
            self._writer.post(self._open_store)  # takes too long to be done here
        return self._opened

    # -- writing ------------------------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> Waiting:
        """As `Tier.commit`; cancelling the awaitable takes nothing back."""
        loop = asyncio.get_running_loop()
        future: Waiting = loop.create_future()
        lane = self._queue.lane_of(loop)
        if not self._takes_changes() or not self._queue.put(changes, lane, future):
            future.set_result(None)
        elif not lane.is_waking:
            lane.is_waking = True
            loop.call_soon(self._wake, lane)
        return future

    def take_over(self, changes: Sequence[Change]) -> None:
        """As `Tier.take_over`."""
        if self._takes_changes() and self._queue.put(changes, None, SyncReply()):
            self._writer.post(self._drain)

    def commit_sync(self, changes: Sequence[Change]) -> Receipts:
        """As `commit` for a thread without an event loop: waits, and writes by itself where nothing is queued."""
        if not self._queue and self._turn.acquire(blocking=False):
            try:
                if not self._queue and self._wanted:
                    return self._commit(changes)
            finally:
                self._turn.release()
        reply = SyncReply()
        if not self._takes_changes() or not self._queue.put(changes, None, reply):
            return None
        self._writer.post(self._drain)
        return reply.wait()

    def commit_now(self, changes: Sequence[Change]) -> Receipts:
        """As `Tier.commit_now`: never before what is queued."""
        if self._queue or not self._is_ready() or self._writes.state is not Circuit.CLOSED:
            return None
        if not self._turn.acquire(blocking=False):
            return None
        try:
            return None if self._queue else self.store.try_commit(changes)
        except Exception as error:  # noqa: BLE001  # whatever it is, callers never see it
            self._failed(self._writes, error)
            return None
        finally:
            self._turn.release()

    def _takes_changes(self) -> bool:
        return self._wanted and not self._writes.is_shut(self._clock.now())

    def _wake(self, lane: Lane) -> None:
        """At the end of a loop tick: have written what the tick asked for."""
        lane.is_waking = False
        self._writer.post(self._drain)

    def _drain(self) -> None:
        """Write until nothing waits; what comes while a batch is written makes the next batch."""
        while self._queue:
            with self._turn:
                orders = self._queue.take()
                replies = self._apply(orders)
            deliver(orders, replies)

    def _apply(self, orders: list[Order]) -> list[Receipts]:
        """Write orders as one batch; where that fails in a way no store should, each by itself."""
        if len(orders) == 1:
            return [self._commit(orders[0][0])]
        try:
            receipts = self._commit(list(chain.from_iterable(order[0] for order in orders)), strict=True)
        except Exception:  # noqa: BLE001  # one order may be the cause, and the others shall not bear it
            return self._apply_singly(orders)
        if receipts is None:
            return [None] * len(orders)
        rest = iter(receipts)
        return [list(islice(rest, len(order[0]))) for order in orders]

    def _apply_singly(self, orders: list[Order]) -> list[Receipts]:
        """Write each order by itself; only if none can be written is the store to blame."""
        replies: list[Receipts] = []
        failure: Exception | None = None
        for order in orders:
            try:
                replies.append(self._commit(order[0], strict=True))
            except Exception as error:  # noqa: BLE001  # this order is owed, the next may be sound
                self.errors += 1
                failure = error
                replies.append(None)
        if failure is not None and not any(replies):
            self._failed(self._writes, failure)
        return replies

    def _commit(self, changes: Sequence[Change], *, strict: bool = False) -> Receipts:
        """Write changes with the turn held; None where they are owed. ``strict`` lets through what is no StoreError."""
        if not self._writes.allows(self._clock.now()) or not self._reopen():
            return None
        try:
            receipts = self.store.commit(changes)
        except Exception as error:  # whatever it is, callers never see it
            if strict and not isinstance(error, StoreError):
                raise
            self._failed(self._writes, error)
            return None
        if self._writes.state is not Circuit.CLOSED:
            self._worked(self._writes)
        return receipts

    # -- the log and the leases ---------------------------------------------------------------------------------

    def position(self) -> Position | None:
        """As `Tier.position`."""
        position = self._ask(self.store.position, None)
        if position is not None:
            self._last_seq = position.seq
        return position

    def seq(self) -> int:
        """As `Tier.seq`."""
        position = self.position()
        return 0 if position is None else position.seq

    def notices(self, after: Position) -> list[Notice] | None:
        """As `Tier.notices`; None (forget all) too where the log cannot be read."""
        return self._ask(lambda: self.store.notices(after), None)

    def floors(self) -> list[Notice]:
        """As `Tier.floors`; where they cannot be read, one that kills everything up to the last known sequence."""
        floors: list[Notice] | None = self._ask(self.store.floors, None)
        if floors is not None:
            return floors
        return [Notice(Kind.CLEAR, "", None, "", self._last_seq)] if self._last_seq else []

    def lease(self, address: Address) -> bool:
        """As `Tier.lease`."""
        if not self._is_ready():
            return True
        with self._noting(None):
            return self.store.lease(address)
        return True

    def release(self, address: Address) -> None:
        """As `Tier.release`."""
        if self._opened:
            with self._noting(None):
                self.store.release(address)

    # -- upkeep and figures -------------------------------------------------------------------------------------

    async def sweep(self, budget_s: float) -> int:
        """As `Tier.sweep`."""
        return await self._call(self._writer, lambda: self._sweep(budget_s))

    def _sweep(self, budget_s: float) -> int:
        with self._turn:
            if not self._writes.allows(self._clock.now()) or not self._reopen():
                return 0
            with self._noting(self._writes):
                removed = self.store.sweep(budget_s)
                self._worked(self._writes)
                return removed
            return 0

    async def scan(self, limit: int) -> list[Found]:
        """As `Tier.scan`."""
        return await self._call(
            self._reader, lambda: self._ask(lambda: list(islice(self.store.scan(), limit)), list[Found]())
        )

    def stats(self) -> StoreStats:
        """As `Tier.stats`."""
        if self._is_ready():
            with self._noting(None):
                stats = self.store.stats()
                if stats.capacity_bytes is None:
                    stats.capacity_bytes = self._last_stats.capacity_bytes
                self._last_stats = stats
        return self._last_stats

    async def diagnose(self) -> list[Finding]:
        """As `Tier.diagnose`."""
        if (reason := self.down) is not None:
            fix = "mend what the sentence says; the cache tries again by itself"
            return [Finding(f"{self.kind}: use", Severity.FAULT, reason, fix)]
        return await self._call(self._reader, lambda: examine(self.kind, self.store, self.stats(), self._clock.wall()))

    def check(self) -> list[str]:
        """As `Tier.check`, with the queue's books; call it while nothing is being written."""
        faults = self._queue.check()
        return faults + self.store.check() if self._opened else faults

    # -- up and down --------------------------------------------------------------------------------------------

    @property
    def down(self) -> str | None:
        """As `Tier.down`; where only writes fail it says so, and reads go on."""
        if not self._wanted:
            return f"the {self.kind} tier is not open"
        if self._reads.reason is not None:
            return self._reads.reason
        if self._writes.reason is not None:
            return f"only reads work: {self._writes.reason}"
        return None

    @property
    def circuit(self) -> Circuit:
        """The state of the worse of its two breakers."""
        states = self._reads.state, self._writes.state
        return next((state for state in (Circuit.OPEN, Circuit.HALF_OPEN) if state in states), Circuit.CLOSED)

    @contextlib.contextmanager
    def _noting(self, breaker: Breaker | None) -> Iterator[None]:
        """Let no failure out; count it, and tell a breaker."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever it is, callers never see it
            if breaker is None:
                self.errors += 1
            else:
                self._failed(breaker, error)

    def _failed(self, breaker: Breaker, error: Exception) -> None:
        self.errors += 1
        if breaker is self._reads:
            self._reading = False
        breaker.failed(self._clock.now(), _sentence(error))
        self._tell()

    def _worked(self, breaker: Breaker) -> None:
        if breaker.worked():
            self._tell()

    def _tell(self) -> None:
        """Call back if the tier went down or came up since it was last told."""
        with self._telling:
            reason = self.down
            if (reason is not None) == self._was_down:
                return
            self._was_down = reason is not None
        try:
            self.on_up() if reason is None else self.on_down(reason)
        except Exception:
            _logger.exception("a callback for the state of the %s tier failed", self.kind)

    async def _call(self, worker: Worker, act: Callable[[], _T]) -> _T:
        """What an act gives, or raises, on a thread of the tier."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def run() -> None:
            try:
                result = act()
            except Exception as error:  # noqa: BLE001  # raised where it is awaited
                tell_loop(loop, fail, future, error)
            else:
                tell_loop(loop, settle, future, result)

        worker.post(run)
        return await future


def _nothing_down(_reason: str) -> None:
    """Nobody asked to be told."""


def _nothing() -> None:
    """Nobody asked to be told."""


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"


def _stop(*workers: Worker) -> None:
    for worker in workers:
        worker.stop()


_tiers: weakref.WeakSet[StoreTier] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for tier in list(_tiers):
        tier._after_fork()  # noqa: SLF001  # the same module


@atexit.register
def _at_exit() -> None:
    for tier in list(_tiers):
        tier._finish()  # noqa: SLF001  # the same module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

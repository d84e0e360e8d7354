"""Changes of one event loop: those of a tick, and what comes while a batch is under way, are written as one batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, islice

from genesis_cache.tiers.base import Change, Put, StoreError
from genesis_cache.tiers.commit_queue import MAX_QUEUED_BYTES, Receipts, Waiting
from genesis_cache.tiers.remote_base import Committed, RemoteStore
from genesis_cache.tiers.remote_health import Health, Unanswered
from genesis_cache.tiers.remote_link import Link
from genesis_cache.tiers.remote_log import RemoteLog

MAX_BATCH = 4096
"""Changes given to a store at once."""

_CHANGE_BYTES = 256  # what a change takes in the queue beside its envelope


class _Order:
    """Changes of one caller, and where their receipts go."""

    __slots__ = ("changes", "due", "has_put", "reply", "weight")

    def __init__(self, changes: Sequence[Change], due: float, reply: Waiting) -> None:
        sizes = [len(change.envelope) for change in changes if type(change) is Put]
        self.changes = changes
        self.due = due
        self.has_put = bool(sizes)
        self.weight = _CHANGE_BYTES * len(changes) + sum(sizes)
        self.reply = reply


class Commits:
    """What one event loop writes to a server."""

    def __init__(self, link: Link, health: Health, log: RemoteLog, timeout_s: float) -> None:
        self._link = link
        self._health = health
        self._log = log
        self.other_log: Callable[[], object] = _nothing
        """Called where a commit met a log that is not the one known here."""
        self.heir: Callable[[Sequence[Change]], object] = _lose
        """Called with what was not written yet when the event loop ended."""
        self._timeout_s = timeout_s
        self._queue: deque[_Order] = deque()
        self._flying: list[_Order] = []
        self._bytes = 0  # of the queue and of what is under way
        self._task: asyncio.Task[None] | None = None
        self._call_due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, changes: Sequence[Change]) -> Waiting:
        """Queue changes; a future of the caller's own with their receipts, or None where they are owed."""
        loop = self._link.loop
        reply: Waiting = loop.create_future()
        order = _Order(changes, loop.time() + self._timeout_s, reply)
        if not self._takes(order):
            reply.set_result(None)
            return reply
        self._bytes += order.weight
        self._queue.append(order)
        if self._task is None or self._task.done():  # done without a first step, if it was cancelled before
            self._task = loop.create_task(self._run())
        if self._timer is None:
            self._timer = loop.call_at(order.due, self._expire)
        return reply

    def _takes(self, order: _Order) -> bool:
        health = self._health
        if not order.has_put:
            return health.writes_removals
        if not health.writes_all or self._bytes + order.weight > MAX_QUEUED_BYTES:
            return False
        return not health.is_suspect or not _are_fills(order.changes)

    async def _run(self) -> None:
        """Write one batch; its first step comes after all that this tick still asks for."""
        orders = self._flying = self._take()
        self._call_due = self._link.loop.time() + self._timeout_s
        store = self._link.store
        replies: Sequence[Receipts] = ()
        try:
            if orders:
                replies = await self._write(orders)
        except asyncio.CancelledError:
            if self._call_due:  # the event loop ends
                self._bequeath(orders)
                raise
        except Exception as error:  # noqa: BLE001  # whatever it is, callers never see it
            if store is self._link.store:
                self._health.write_failed(error)
        finally:
            self._end(orders, replies)

    def _take(self) -> list[_Order]:
        """The next orders, as many as make a batch; those that a server that is down would not take are owed."""
        orders: list[_Order] = []
        count = 0
        health = self._health
        while self._queue and count < MAX_BATCH:
            order = self._queue.popleft()
            if health.writes_all or (not order.has_put and health.writes_removals):
                count += len(order.changes)
                orders.append(order)
            else:
                self._finish(order, None)
        return orders

    async def _write(self, orders: list[_Order]) -> Sequence[Receipts]:
        link = self._link
        store = link.store if link.is_open else await link.ready()
        try:
            return await self._commit(store, orders)
        except StoreError:
            raise
        except Exception:
            if len(orders) == 1:
                raise
        return await self._singly(store, orders)

    async def _singly(self, store: RemoteStore, orders: list[_Order]) -> Sequence[Receipts]:
        """Each order by itself, for one may be what cannot be written; only if none can is the server to blame."""
        replies: list[Receipts] = []
        failure: Exception | None = None
        for order in orders:
            try:
                replies += await self._commit(store, [order])
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  # this order is owed, the next may be sound
                failure = error
                replies.append(None)
        if failure is not None:
            self._health.errors += 1
            if not any(replies):
                raise failure
        return replies

    async def _commit(self, store: RemoteStore, orders: list[_Order]) -> list[Receipts]:
        changes = orders[0].changes if len(orders) == 1 else list(chain.from_iterable(one.changes for one in orders))
        committed = await store.commit(changes, self._log.epoch)
        self._note(committed, has_put=any(order.has_put for order in orders))
        rest = iter(committed.receipts)
        return [list(islice(rest, len(order.changes))) for order in orders]

    def _note(self, committed: Committed, *, has_put: bool) -> None:
        if not self._log.receipted(committed):
            self.other_log()
        if has_put and self._health.writes_down:
            self._health.write_worked()

    def _end(self, orders: list[_Order], replies: Sequence[Receipts]) -> None:
        self._flying = []
        self._task = None
        for n, order in enumerate(orders):
            self._finish(order, replies[n] if replies else None)
        if self._queue:
            self._task = self._link.loop.create_task(self._run())
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, order: _Order, receipts: Receipts) -> None:
        self._bytes -= order.weight
        if not order.reply.done():
            order.reply.set_result(receipts)

    # -- deadlines ----------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        """Nobody waits longer than the timeout, and no call to the server is waited for longer than that."""
        now = self._link.loop.time()
        self._timer = None
        while self._queue and self._queue[0].due <= now:
            self._finish(self._queue.popleft(), None)
        for order in self._flying:
            if order.due <= now and not order.reply.done():
                order.reply.set_result(None)
        if self._flying and self._call_due <= now:
            self._give_up()
        dues = [order.due for order in self._flying if not order.reply.done()][:1]
        dues += [order.due for order in islice(self._queue, 1)]
        if self._flying and self._call_due:
            dues.append(self._call_due)
        if dues:
            self._timer = self._link.loop.call_at(min(dues), self._expire)

    def _give_up(self) -> None:
        """What became of the batch is not known; its connection is dropped."""
        self._call_due = 0.0
        if self._task is not None:
            self._task.cancel()
        self._health.write_failed(Unanswered(f"no answer to a change within {self._timeout_s:g} s"))

    async def close(self) -> None:
        """Write what is queued, for at most the timeout."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    def abandon(self) -> None:
        """The event loop has ended: somebody else shall write what it did not."""
        self._bequeath(self._flying)
        self._bytes = 0

    def _bequeath(self, orders: list[_Order]) -> None:
        """What is under way goes too, for nobody will hear what became of it; done twice it does no harm."""
        changes = [change for order in (*orders, *self._queue) for change in order.changes]
        while self._queue:
            self._bytes -= self._queue.popleft().weight
        if changes:
            self.heir(changes)

    def check(self) -> list[str]:
        """A sentence if the bytes on the books are not those that wait."""
        waiting = sum(order.weight for order in (*self._queue, *self._flying))
        return [] if waiting == self._bytes else [f"{waiting} bytes wait to be written, the books say {self._bytes}"]


def _nothing() -> None:
    """Nobody asked to be called."""


def _lose(_changes: Sequence[Change]) -> None:
    """Nobody asked for them."""


def _are_fills(changes: Sequence[Change]) -> bool:
    """Whether nothing but loads' results would be lost."""
    return all(type(change) is Put and change.since is not None for change in changes)

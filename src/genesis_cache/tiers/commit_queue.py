"""What waits to be written: changes of many event loops and threads, with where each one's receipts go."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from genesis_cache.tiers.base import Change, Put, Receipt

MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Beyond so many bytes that wait to be written, a batch with a Put is owed at once."""

_CHANGE_BYTES = 256  # what a change takes in the queue beside its envelope
_MAX_BATCH = 4096  # changes given to the store at once

_T = TypeVar("_T")

Receipts = list[Receipt] | None
"""None: the changes are owed."""
Waiting = asyncio.Future[Receipts]


class Lane:
    """One event loop's way into the queue and back: one wake-up a tick, one delivery a batch."""

    __slots__ = ("is_waking", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_waking = False


class SyncReply:
    """Where a thread without an event loop waits for its receipts."""

    __slots__ = ("_done", "_receipts")

    def __init__(self) -> None:
        self._done = threading.Event()
        self._receipts: Receipts = None

    def tell(self, receipts: Receipts) -> None:
        """Let the waiting thread go on."""
        self._receipts = receipts
        self._done.set()

    def wait(self) -> Receipts:
        """The receipts, when they are there."""
        self._done.wait()
        return self._receipts


Order = tuple[Sequence[Change], int, Lane | None, Waiting | SyncReply]
"""Changes, what they weigh in bytes, and where their receipts go."""


class CommitQueue:
    """Orders in the order they came, bounded by the bytes of their envelopes. Safe from any thread."""

    def __init__(self) -> None:
        self._orders: deque[Order] = deque()
        self._guard = threading.Lock()
        self._bytes = 0
        self._lane: Lane | None = None
        self._lanes: dict[asyncio.AbstractEventLoop, Lane] = {}

    def __bool__(self) -> bool:
        return bool(self._orders)

    def lane_of(self, loop: asyncio.AbstractEventLoop) -> Lane:
        """The lane of an event loop; the one used last is found at once."""
        lane = self._lane
        if lane is None or lane.loop is not loop:
            with self._guard:
                lane = self._lane = self._lanes.get(loop) or self._new_lane(loop)
        return lane

    def put(self, changes: Sequence[Change], lane: Lane | None, reply: Waiting | SyncReply) -> bool:
        """Append an order; False where the queue is full and the order has a Put: invalidations are always taken."""
        envelopes = [len(change.envelope) for change in changes if type(change) is Put]
        weight = _CHANGE_BYTES * len(changes) + sum(envelopes)
        with self._guard:
            if envelopes and self._bytes + weight > MAX_QUEUED_BYTES:
                return False
            self._bytes += weight
            self._orders.append((changes, weight, lane, reply))
        return True

    def take(self) -> list[Order]:
        """The next orders, as many as make a batch."""
        orders: list[Order] = []
        count = 0
        with self._guard:
            while self._orders and count < _MAX_BATCH:
                order = self._orders.popleft()
                self._bytes -= order[1]
                count += len(order[0])
                orders.append(order)
        return orders

    def check(self) -> list[str]:
        """A sentence if the bytes on the books are not those that wait."""
        with self._guard:
            waiting = sum(order[1] for order in self._orders)
            known = self._bytes
        return [] if waiting == known else [f"{waiting} bytes wait to be written, the books say {known}"]

    def _new_lane(self, loop: asyncio.AbstractEventLoop) -> Lane:
        self._lanes = {one: its for one, its in self._lanes.items() if not one.is_closed()}
        lane = self._lanes[loop] = Lane(loop)
        return lane


def deliver(orders: Sequence[Order], replies: Sequence[Receipts]) -> None:
    """Hand out receipts: one call to each event loop, whatever the number of its callers."""
    by_lane: dict[Lane, list[tuple[Waiting, Receipts]]] = {}
    for (_, _, lane, reply), receipts in zip(orders, replies, strict=True):
        if isinstance(reply, SyncReply):
            reply.tell(receipts)
        elif lane is not None:
            by_lane.setdefault(lane, []).append((reply, receipts))
    for lane, pairs in by_lane.items():
        tell_loop(lane.loop, _settle_all, pairs)


def tell_loop(loop: asyncio.AbstractEventLoop, act: Callable[..., object], *args: object) -> None:
    """Have an event loop act from another thread, unless it is closed and nobody waits."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(act, *args)


def settle(future: "asyncio.Future[_T]", result: _T) -> None:
    """Give a future its result, unless who waited has left."""
    if not future.done():
        future.set_result(result)


def fail(future: "asyncio.Future[object]", error: Exception) -> None:
    """Give a future its error, unless who waited has left."""
    if not future.done():
        future.set_exception(error)


def _settle_all(pairs: Sequence[tuple[Waiting, Receipts]]) -> None:
    for future, receipts in pairs:
        if not future.done():
            future.set_result(receipts)

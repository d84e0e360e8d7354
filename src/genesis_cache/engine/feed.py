"""Feed: what a streaming load has brought so far, for everyone who reads it while it runs.

One copy of each item, however many read: a reader has only a number. All items are kept, because whoever comes later
reads from the start and because they are what is stored in the end, up to a bound in bytes. Beyond it the stream can no
longer be stored; the last items up to the bound are kept, and the load goes no faster than the fastest of its readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from genesis_cache.model.errors import CacheError
from genesis_cache.model.missing import MISSING
from genesis_cache.model.weigh import weigh

if TYPE_CHECKING:
    from genesis_cache.engine.flight import Flight

MOST_BYTES = 64 * 2**20
"""Of one stream's items, the bookkeeping of each included."""


class Feed:
    """The items of one run. Written by its load; read from any event loop or thread."""

    __slots__ = (
        "_bytes", "_items", "_listeners", "_lock", "_most_bytes", "_wanted", "_weights",
        "count", "flight", "is_complete", "is_whole", "readers",
    )  # fmt: skip

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        """The load that writes it."""
        self._most_bytes = MOST_BYTES
        self._bytes = 0
        self._items: dict[int, object] = {}
        self._weights: deque[int] = deque()
        self._listeners: dict[asyncio.Future[Any], asyncio.AbstractEventLoop] = {}
        self._wanted: asyncio.Future[None] | None = None
        self._lock = threading.Lock()
        self.count = 0
        """How many items have come."""
        self.readers = 0
        self.is_complete = False
        """Whether the source has ended well."""
        self.is_whole = True
        """Whether all items are kept."""

    # -- the load's side ---------------------------------------------------------------------------------------------

    def put(self, item: object) -> None:
        """The next item, for all who read."""
        weight = weigh("", item)
        self._items[self.count] = item
        self._weights.append(weight)
        self._bytes += weight
        self.count += 1
        self.is_whole = self.is_whole and self._bytes <= self._most_bytes
        listeners, self._listeners = self._listeners, {}
        here = asyncio.get_running_loop()
        for future, loop in list(listeners.items()):
            if loop is here:
                _settle(future, self)
            else:
                with contextlib.suppress(RuntimeError):  # it is closed: nobody reads there
                    loop.call_soon_threadsafe(_settle, future, self)

    async def room(self) -> None:
        """Beyond the bound: wait for a reader that has read all there is, then let go of the oldest items.

        CacheError where nobody reads any more, because then it is run for nothing.
        """
        while not self._listeners:
            self._wanted = future = asyncio.get_running_loop().create_future()
            if not self.flight.waiting:
                msg = f"the stream is too long to be stored ({self.too_long}), and nobody reads it any more"
                raise CacheError(msg)
            if not self._listeners:
                await future
        while self._bytes > self._most_bytes and len(self._weights) > 1:
            del self._items[self.count - len(self._weights)]
            self._bytes -= self._weights.popleft()

    def value(self) -> tuple[object, ...]:
        """All items, to be stored; CacheError where they were too many."""
        self.is_complete = True
        if not self.is_whole:
            msg = f"the stream was too long to be stored: {self.too_long}"
            raise CacheError(msg)
        return tuple(self._items.values())

    @property
    def too_long(self) -> str:
        """The bound, in words."""
        return f"its items take more than {self._most_bytes / 2**20:g} MiB"

    # -- the readers' side -------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """One reader more. Whoever enters must `leave`."""
        with self._lock:
            self.readers += 1

    def leave(self) -> None:
        """One reader less."""
        with self._lock:
            self.readers -= 1
        self._wake()

    def listen(self, future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop, number: int) -> None:
        """Settle the future with this feed when item ``number`` has come."""
        self._listeners[future] = loop
        self._wake()
        if self.count > number:
            _settle(future, self)

    def ignore(self, future: asyncio.Future[Any]) -> None:
        """Nobody waits for the future any more."""
        self._listeners.pop(future, None)
        self._wake()

    def item(self, number: int) -> object:
        """An item that has come; CacheError where its reader was so slow that it was let go."""
        item = self._items.get(number, MISSING)
        if item is MISSING:
            msg = f"this reader fell behind a stream that is too long to be kept whole: {self.too_long}"
            raise CacheError(msg)
        return item

    def _wake(self) -> None:
        future = self._wanted
        if future is not None and not future.done():
            with contextlib.suppress(RuntimeError):  # it is closed, and the load with it
                future.get_loop().call_soon_threadsafe(_settle, future, None)


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)

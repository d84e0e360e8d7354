"""Least recently used, exact: every hit moves its entry to the end of one queue."""

from collections.abc import Iterator
from typing import ClassVar

from genesis_cache.model.entry import Entry
from genesis_cache.policies.eviction.base import Directory
from genesis_cache.policies.eviction.queue import Queue


class LruPolicy:
    """One queue in order of the last use."""

    needs_touch: ClassVar[bool] = True

    def __init__(self, directory: Directory, *, by_weight: bool) -> None:
        del by_weight  # the oldest goes first whatever it weighs
        self._queue = Queue(directory)

    @property
    def size(self) -> int:
        """How many entries it orders."""
        return self._queue.size

    def insert(self, entry: Entry) -> None:
        """To the end."""
        self._queue.push(entry)

    def replace(self, old: Entry, new: Entry) -> None:
        """A change is a use."""
        self._queue.replace(old, new)
        self._queue.renew(new)

    def remove(self, entry: Entry) -> None:
        """Out of the queue."""
        self._queue.remove(entry)

    def touch(self, entry: Entry) -> None:
        """To the end."""
        self._queue.renew(entry)

    def evict(self, incoming: int) -> Entry:
        """The entry that has not been used for longest."""
        del incoming
        return self._queue.take()

    def grow(self, entries: int) -> None:
        """Nothing depends on it."""

    def pieces(self) -> Iterator[list[Entry]]:
        """From the least to the most recently used."""
        return self._queue.pieces()

    def check(self) -> list[str]:
        """The queue's books."""
        return self._queue.check()

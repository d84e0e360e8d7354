"""Least frequently used, exact: a queue for each number of uses, counted as long as an entry is held.

K. Shah, A. Mitra, D. Matani, "An O(1) algorithm for implementing the LFU cache eviction scheme" (2010). Among entries
of as many uses the one that reached that number first goes first.
"""

from collections.abc import Iterator
from typing import ClassVar

from genesis_cache.model.entry import Entry
from genesis_cache.policies.eviction.base import Directory
from genesis_cache.policies.eviction.queue import Queue

_CHUNK = 64  # records: most queues are short
_MOST_USES = 1 << 32


class LfuPolicy:
    """Queues by number of uses, which an entry's ``home`` tells."""

    needs_touch: ClassVar[bool] = True

    def __init__(self, directory: Directory, *, by_weight: bool) -> None:
        del by_weight  # the least used goes first whatever it weighs
        self._directory = directory
        self._queues: dict[int, Queue] = {}
        self._fewest = 1
        self.size = 0

    def insert(self, entry: Entry) -> None:
        """Used once."""
        self._push(entry, 1)
        self._fewest = 1
        self.size += 1

    def replace(self, old: Entry, new: Entry) -> None:
        """A change is a use."""
        self._queues[old.home % _MOST_USES].replace(old, new)
        self.touch(new)

    def remove(self, entry: Entry) -> None:
        """Out of its queue; its count is forgotten."""
        self._pull(entry)
        self.size -= 1

    def touch(self, entry: Entry) -> None:
        """To the queue of one use more."""
        self._push(entry, self._pull(entry) + 1)

    def evict(self, incoming: int) -> Entry:
        """An entry with the fewest uses."""
        del incoming
        if not self.size:
            raise IndexError("no entry is left to evict")
        if self._fewest not in self._queues:
            self._fewest = min(self._queues)
        queue = self._queues[self._fewest]
        entry = queue.take()
        if not queue.size:
            del self._queues[self._fewest]
        self.size -= 1
        return entry

    def grow(self, entries: int) -> None:
        """Nothing depends on it."""

    def pieces(self) -> Iterator[list[Entry]]:
        """Queue by queue, in no order of uses."""
        for queue in list(self._queues.values()):
            yield from queue.pieces()

    def check(self) -> list[str]:
        """Each queue's books and their sums."""
        faults = [fault for queue in self._queues.values() for fault in queue.check()]
        if sum(queue.size for queue in self._queues.values()) != self.size:
            faults.append(f"the queues do not add up to {self.size} entries")
        return faults

    def _pull(self, entry: Entry) -> int:
        uses = entry.home % _MOST_USES
        queue = self._queues[uses]
        queue.remove(entry)
        if not queue.size:
            del self._queues[uses]
        return uses

    def _push(self, entry: Entry, uses: int) -> None:
        queue = self._queues.get(uses)
        if queue is None:
            queue = self._queues[uses] = Queue(self._directory, uses, tags=_MOST_USES, chunk=_CHUNK)
        queue.push(entry)

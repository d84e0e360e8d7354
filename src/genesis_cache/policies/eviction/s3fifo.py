"""S3-FIFO: a small and a main queue, and ghosts of what the small one let go.

J. Yang, Y. Zhang, Z. Qiu, Y. Yue, R. Vinayak, "FIFO queues are all you need for cache eviction", SOSP 2023, with one
mark in place of a count to three: an entry that was used while in the small queue goes to the main one.
"""

from collections.abc import Iterator
from typing import ClassVar

from genesis_cache.model.entry import Entry
from genesis_cache.policies.eviction.base import Directory, digest_of
from genesis_cache.policies.eviction.ghosts import Ghosts
from genesis_cache.policies.eviction.queue import TAGS, Queue

SMALL_SHARE = 0.1  # of all entries or bytes
MOVES = 64  # entries looked at for one eviction
_GHOST = 1


class S3FifoPolicy:
    """Small queue, main queue, ghosts."""

    needs_touch: ClassVar[bool] = False

    def __init__(self, directory: Directory, *, by_weight: bool) -> None:
        del by_weight  # told with each eviction
        self._queues = [Queue(directory, tag) for tag in range(2)]
        self._small, self._main = self._queues
        self._ghosts = Ghosts()
        self.count = 0
        self.weight = 0

    def insert(self, entry: Entry) -> None:
        """Into the small queue, or into the main one if the small one let it go lately."""
        entry.mark = False
        known = self._ghosts.take(digest_of(entry)) == _GHOST
        (self._main if known else self._small).push(entry)
        self.count += 1
        self.weight += entry.weight
        if self.count > 2 * self._ghosts.size:
            self._ghosts.resize(self.count)

    def replace(self, old: Entry, new: Entry) -> None:
        """Same place; the change counts as a use."""
        new.mark = True
        self._queues[old.home % TAGS].replace(old, new)
        self.weight += new.weight - old.weight

    def remove(self, entry: Entry) -> None:
        """Out of its queue."""
        self._queues[entry.home % TAGS].remove(entry)
        self.count -= 1
        self.weight -= entry.weight

    def touch(self, entry: Entry) -> None:
        """A mark says it all."""
        entry.mark = True

    def evict(self, incoming: int, *, by_weight: bool) -> Entry:
        """The small queue's oldest unmarked entry while that queue is above its share, else the main one's."""
        del incoming
        entry = self._chosen(by_weight=by_weight)
        self.count -= 1
        self.weight -= entry.weight
        return entry

    def pieces(self) -> Iterator[list[Entry]]:
        """Small, then main."""
        for queue in self._queues:
            yield from queue.pieces()

    def check(self) -> list[str]:
        """Each queue's books and their sums."""
        faults = [fault for queue in self._queues for fault in queue.check()]
        if sum(queue.count for queue in self._queues) != self.count:
            faults.append(f"the queues do not add up to {self.count} entries")
        if sum(queue.weight for queue in self._queues) != self.weight:
            faults.append(f"the queues do not add up to a weight of {self.weight}")
        return faults

    def _chosen(self, *, by_weight: bool) -> Entry:
        for _ in range(MOVES):
            small = self._small_is_over(by_weight=by_weight)
            entry = (self._small if small else self._main).take()
            if not entry.mark:
                if small:
                    self._ghosts.add(digest_of(entry), _GHOST)
                return entry
            entry.mark = False
            self._main.push(entry)
        return (self._main if self._main.count else self._small).take()

    def _small_is_over(self, *, by_weight: bool) -> bool:
        if not self._main.count:
            return True
        if by_weight:
            return self._small.weight > SMALL_SHARE * self.weight
        return self._small.count > SMALL_SHARE * self.count

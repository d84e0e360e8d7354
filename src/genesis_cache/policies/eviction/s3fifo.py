"""S3-FIFO: a small and a main queue, and ghosts of what the small one let go.

J. Yang, Y. Zhang, Z. Qiu, Y. Yue, R. Vinayak, "FIFO queues are all you need for cache eviction", SOSP 2023, with one
mark in place of a count to three: an entry that was used while in the small queue goes to the main one.
"""

from collections.abc import Iterator
from typing import ClassVar

from genesis_cache.model.entry import Entry
from genesis_cache.policies.eviction.base import Directory, digest_of
from genesis_cache.policies.eviction.ghosts import REJECTED, Ghosts
from genesis_cache.policies.eviction.queue import TAGS, Queue

SMALL_SHARE = 0.1  # of all entries or bytes
MOVES = 64  # entries looked at for one eviction


class S3FifoPolicy:
    """Small queue, main queue, ghosts."""

    needs_touch: ClassVar[bool] = False

    def __init__(self, directory: Directory, *, by_weight: bool) -> None:
        self._queues = [Queue(directory, tag, by_weight=by_weight) for tag in range(2)]
        self._small, self._main = self._queues
        self._ghosts = Ghosts()

    @property
    def size(self) -> int:
        """How many entries it orders, or their weight if it was made ``by_weight``."""
        return self._small.size + self._main.size

    def insert(self, entry: Entry) -> None:
        """Into the small queue, or into the main one if the small one let it go lately."""
        entry.mark = False
        known = self._ghosts.take(digest_of(entry)) is not None
        (self._main if known else self._small).push(entry)

    def replace(self, old: Entry, new: Entry) -> None:
        """Same place; the change counts as a use."""
        new.mark = True
        self._queues[old.home % TAGS].replace(old, new)

    def remove(self, entry: Entry) -> None:
        """Out of its queue."""
        self._queues[entry.home % TAGS].remove(entry)

    def touch(self, entry: Entry) -> None:
        """A mark says it all."""
        entry.mark = True

    def evict(self, incoming: int) -> Entry:
        """The small queue's oldest unmarked entry while that queue is above its share, else the main one's."""
        del incoming
        return self._chosen()

    def grow(self, entries: int) -> None:
        """Adapt the ghosts."""
        self._ghosts.grow(entries)

    def pieces(self) -> Iterator[list[Entry]]:
        """Small, then main."""
        for queue in self._queues:
            yield from queue.pieces()

    def check(self) -> list[str]:
        """Each queue's books and their sums."""
        return [fault for queue in self._queues for fault in queue.check()]

    def _chosen(self) -> Entry:
        small, main = self._small, self._main
        for _ in range(MOVES):
            from_small = not main.size or small.size > SMALL_SHARE * (small.size + main.size)
            entry = (small if from_small else main).take()
            if not entry.mark:
                if from_small:
                    self._ghosts.add(digest_of(entry), REJECTED)
                return entry
            entry.mark = False
            main.push(entry)
        return (main if main.size else small).take()

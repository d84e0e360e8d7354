"""W-TinyLFU with a window of fixed size, told of hits by marks.

G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM Transactions on Storage
13 (2017). New entries pass through a small window; what leaves it must have been asked for more often than the entry
that would have to go from the main part. The main part is segmented (R. Karedla, J. Love, B. Wherry, "Caching
strategies to improve disk system performance", Computer 27 (1994)). Where the limit is in bytes, uses per byte are
compared.
"""

from collections.abc import Iterator
from typing import ClassVar

from genesis_cache.model.entry import Entry
from genesis_cache.policies.eviction.base import Directory, digest_of
from genesis_cache.policies.eviction.queue import TAGS, Queue
from genesis_cache.policies.eviction.sketch import Sketch

WINDOW_SHARE = 0.01  # of all entries or bytes
PROTECTED_SHARE = 0.8  # of the main part
MOVES = 32  # entries looked at for one eviction, per queue


class TinyLfuPolicy:
    """Window, probation and protected queues; a sketch decides who is admitted from the window."""

    needs_touch: ClassVar[bool] = False

    def __init__(self, directory: Directory, *, by_weight: bool) -> None:
        self._by_weight = by_weight
        self._queues = [Queue(directory, tag) for tag in range(3)]
        self._window, self._probation, self._protected = self._queues
        self._sketch = Sketch()
        self._share = WINDOW_SHARE
        self._sized = 0
        self.count = 0
        self.weight = 0

    def insert(self, entry: Entry) -> None:
        """Into the window, whose overflow goes on probation while there is room."""
        entry.mark = False
        digest = digest_of(entry)
        self._sketch.add(digest)
        self._place(digest).push(entry)
        self.count += 1
        self.weight += entry.weight
        if self.count > self._sized:
            self._grow()
        for _ in range(MOVES):
            if self._window.count <= 1 or self._overflow(0) <= 0:
                break
            self._probation.push(self._candidate())

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
        """The loser between the window's oldest and the main part's oldest entry without a mark."""
        self._by_weight = by_weight
        if not self.count:
            raise IndexError("no entry is left to evict")
        if self._window.count and self._overflow(incoming) > 0:
            loser = self._contest()
        else:
            loser = self._main_loser()
        self.count -= 1
        self.weight -= loser.weight
        return loser

    def pieces(self) -> Iterator[list[Entry]]:
        """Window, probation, protected."""
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

    def _place(self, _digest: int) -> Queue:
        return self._window

    def _lost_window(self, entry: Entry) -> None:
        """An entry was evicted from the window."""

    def _lost_main(self, entry: Entry) -> None:
        """An entry was evicted from the main part."""

    def _grow(self) -> None:
        self._sized = max(self.count * 5 // 4, 16)
        self._sketch.grow(self._sized)

    def _overflow(self, incoming: int) -> float:
        """By how much the window is above its share, or will be."""
        if self._by_weight:
            return self._window.weight + incoming - self._share * self.weight
        return self._window.count + (incoming > 0) - max(self._share * self.count, 1)

    def _main_loser(self) -> Entry:
        if self._victim() is None:
            return self._candidate()
        victim = self._probation.take()
        self._lost_main(victim)
        return victim

    def _contest(self) -> Entry:
        candidate = self._candidate()
        victim = self._victim()
        if victim is None:
            self._lost_window(candidate)
            return candidate
        theirs, ours = self._uses(candidate), self._uses(victim)
        if self._by_weight:
            theirs, ours = theirs * victim.weight, ours * candidate.weight
        if theirs <= ours:
            self._lost_window(candidate)
            return candidate
        self._probation.take()
        self._probation.push(candidate)
        self._lost_main(victim)
        return victim

    def _uses(self, entry: Entry) -> int:
        return self._sketch.count(digest_of(entry))

    def _candidate(self) -> Entry:
        """Out of the window: its oldest entry without a mark; marked ones start again."""
        return self._unmarked(self._window)

    def _victim(self) -> Entry | None:
        """The oldest entry on probation without a mark, which stays there; marked ones become protected."""
        probation, protected = self._probation, self._protected
        for _ in range(MOVES):
            entry = probation.peek()
            if entry is None:
                if not protected.count:
                    return None
                probation.push(self._unmarked(protected))
                continue
            if not entry.mark:
                return entry
            probation.take()
            self._notice(entry)
            protected.push(entry)
            if self._protects_too_much():
                probation.push(self._unmarked(protected))
        return probation.peek()

    def _protects_too_much(self) -> bool:
        if self._by_weight:
            return self._protected.weight > PROTECTED_SHARE * (self.weight - self._window.weight)
        return self._protected.count > PROTECTED_SHARE * (self.count - self._window.count)

    def _unmarked(self, queue: Queue) -> Entry:
        """Out of a queue: its oldest entry without a mark; marked ones go to its end."""
        for _ in range(MOVES):
            entry = queue.take()
            if not entry.mark:
                return entry
            self._notice(entry)
            queue.push(entry)
        return queue.take()

    def _notice(self, entry: Entry) -> None:
        entry.mark = False
        self._sketch.add(digest_of(entry))

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
from genesis_cache.policies.eviction.ghosts import LOST, REJECTED, Ghosts, NoGhosts
from genesis_cache.policies.eviction.queue import TAGS, Queue
from genesis_cache.policies.eviction.sketch import Sketch

WINDOW_SHARE = 0.01  # of all entries or weight
PROTECTED_SHARE = 0.8  # of the main part
MOVES = 32  # entries of one queue that are looked at for one eviction


class TinyLfuPolicy:
    """Window, probation and protected queues; a sketch decides who is admitted from the window."""

    needs_touch: ClassVar[bool] = False

    def __init__(self, directory: Directory, *, by_weight: bool) -> None:
        self._by_weight = by_weight
        self._queues = [Queue(directory, tag, by_weight=by_weight) for tag in range(3)]
        self._window, self._probation, self._protected = self._queues
        self._sketch = Sketch()
        self._ghosts: Ghosts = NoGhosts()
        self._share = WINDOW_SHARE
        self.size = 0

    def insert(self, entry: Entry) -> None:
        """Into the window, whose overflow goes on probation while there is room."""
        entry.mark = False
        digest = hash(entry.key) ^ entry.space
        self._sketch.add(digest)
        ghost = self._ghosts.take(digest)
        window = self._window
        (window if ghost is None else self._place(ghost)).push(entry)
        size = entry.weight if self._by_weight else 1
        self.size += size
        if window.size > self._share * self.size + size:
            self._shrink_window(size)

    def replace(self, old: Entry, new: Entry) -> None:
        """Same place; the change counts as a use."""
        new.mark = True
        self._queues[old.home % TAGS].replace(old, new)
        if self._by_weight:
            self.size += new.weight - old.weight

    def remove(self, entry: Entry) -> None:
        """Out of its queue."""
        self._queues[entry.home % TAGS].remove(entry)
        self.size -= entry.weight if self._by_weight else 1

    def touch(self, entry: Entry) -> None:
        """A mark says it all."""
        entry.mark = True

    def evict(self, incoming: int) -> Entry:
        """The loser between the window's oldest and the main part's oldest entry without a mark."""
        window, probation = self._window, self._probation
        if not self._by_weight:
            incoming = 1
        loser = None
        if window.size + incoming > self._share * self.size and window.size:
            loser = window.take_unmarked() or self._unmarked(window)
        victim = probation.peek()
        if victim is None or victim.mark or self._protected.size > PROTECTED_SHARE * (self.size - window.size):
            victim = self._victim()
        if victim is not None and (loser is None or self._beats(loser, victim)):
            probation.skip(victim)
            if loser is not None:
                probation.push(loser)
            loser = victim
            self._ghosts.add(hash(loser.key) ^ loser.space, LOST)
        elif loser is not None:
            self._ghosts.add(hash(loser.key) ^ loser.space, REJECTED)
        else:
            raise IndexError("no entry is left to evict")
        self.size -= loser.weight if self._by_weight else 1
        return loser

    def grow(self, entries: int) -> None:
        """Adapt the sketch."""
        self._sketch.grow(entries)

    def pieces(self) -> Iterator[list[Entry]]:
        """Window, probation, protected."""
        for queue in self._queues:
            yield from queue.pieces()

    def check(self) -> list[str]:
        """Each queue's books and their sum."""
        faults = [fault for queue in self._queues for fault in queue.check()]
        held = sum(queue.size for queue in self._queues)
        if held != self.size:
            faults.append(f"a policy's size is {self.size}, but its queues make {held}")
        return faults

    def _place(self, ghost: int) -> Queue:
        """Where an entry begins that was here before."""
        del ghost
        return self._window

    def _shrink_window(self, slack: int) -> None:
        """Put the window's oldest on probation while it is above its share by more than what has just come in."""
        for _ in range(MOVES):
            if self._window.size <= self._share * self.size + slack:
                break
            entry = self._window.take()
            if entry.mark:
                self._notice(entry)
                self._protected.push(entry)
            else:
                self._probation.push(entry)

    def _beats(self, candidate: Entry, victim: Entry) -> bool:
        theirs, ours = hash(candidate.key) ^ candidate.space, hash(victim.key) ^ victim.space
        if self._by_weight:
            return self._sketch.count(theirs) * victim.weight > self._sketch.count(ours) * candidate.weight
        return self._sketch.prefers(theirs, ours)

    def _victim(self) -> Entry | None:
        """The oldest entry on probation without a mark, which stays there; marked ones become protected."""
        for _ in range(MOVES):
            entry = self._on_probation()
            if entry is None or not entry.mark:
                return entry
            self._probation.skip(entry)
            self._notice(entry)
            self._protected.push(entry)
        return self._on_probation()

    def _on_probation(self) -> Entry | None:
        """The oldest entry on probation, once the protected part has given back what is above its share."""
        protected = self._protected
        while protected.size > PROTECTED_SHARE * (self.size - self._window.size):
            self._probation.push(self._unmarked(protected))
        return self._probation.peek()

    def _unmarked(self, queue: Queue) -> Entry:
        """Out of a queue: its oldest entry without a mark; marked ones go to its end."""
        entry = queue.take()
        for _ in range(MOVES):
            if not entry.mark:
                break
            self._notice(entry)
            queue.push(entry)
            entry = queue.take()
        return entry

    def _notice(self, entry: Entry) -> None:
        entry.mark = False
        self._sketch.add(digest_of(entry))

"""What an eviction policy is: it keeps the order in which entries may leave, and nothing else.

A hit tells a policy as little as possible: the reader sets ``entry.mark`` and goes on, and the policy reads the marks
when it needs room ("lazy promotion": Yang et al., FIFO can be better than LRU, HotOS 2023). Policies whose definition
needs the order of all hits say so by ``needs_touch``.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import ClassVar, Protocol

from genesis_cache.model.entry import Entry

Key = str | tuple[str, str]
Find = Callable[[Key], Entry | None]
"""Looks a key up in one table."""


class Directory:
    """What the queues of one tier share: the look-up of each table by number, and the numbers of their chunks."""

    __slots__ = ("finds", "homes")

    def __init__(self) -> None:
        self.finds: list[Find] = []
        self.homes = count(1)


def digest_of(entry: Entry) -> int:
    """A hash of key and space for sketches and ghosts, signed 64 bits; differs from process to process."""
    return hash(entry.key) ^ entry.space


class EvictionPolicy(Protocol):
    """Orders the entries of one priority. Not thread-safe: the tier calls it under its lock.

    A policy is made with ``by_weight`` where the limit is in bytes only; its shares then are of the weight in place of
    the number of entries.
    """

    needs_touch: ClassVar[bool]
    """Whether each hit must be told by `touch`; if not, a hit sets ``entry.mark`` and calls nothing."""

    def __init__(self, directory: Directory, *, by_weight: bool) -> None: ...

    @property
    def size(self) -> int:
        """How many entries it orders, or their weight if it was made ``by_weight``; 0 if there is none."""

    def grow(self, entries: int) -> None:
        """Hear that there are up to so many entries, before there are; at each quarter more or so."""

    def insert(self, entry: Entry) -> None:
        """Take in an entry whose key it does not hold; sets ``entry.home``."""

    def replace(self, old: Entry, new: Entry) -> None:
        """Let a new entry of the same key take the old one's place; counts as a use."""

    def remove(self, entry: Entry) -> None:
        """Forget an entry that leaves for a reason of its own (deleted, expired)."""

    def touch(self, entry: Entry) -> None:
        """Hear of a hit; only called where `needs_touch` says so."""

    def evict(self, incoming: int) -> Entry:
        """Choose the entry to leave and forget it; `IndexError` where there is none.

        ``incoming`` is the weight of the entry that wants the room.
        """

    def pieces(self) -> Iterator[list[Entry]]:
        """All entries, at most 512 at a time; of what moves while one walks, some may be missed or met twice."""

    def check(self) -> list[str]:
        """Verify its counts against what its queues hold; a sentence for each fault."""

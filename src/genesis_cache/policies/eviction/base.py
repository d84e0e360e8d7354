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


_TABLE_SALT = 0x9E3779B97F4A7C15


def table_number(entry: Entry) -> int:
    """Which table holds it: its space's own for a plain key, the next one for an owned ``(owner, key)``."""
    return entry.space + (type(entry.key) is not str)


def digest_of(entry: Entry) -> int:
    """A hash of key and table for sketches and ghosts; differs from process to process."""
    key = entry.key
    if type(key) is str:
        return hash(key) ^ entry.space * _TABLE_SALT
    return hash(key) ^ (entry.space + 1) * _TABLE_SALT


class EvictionPolicy(Protocol):
    """Orders the entries of one priority. Not thread-safe: the tier calls it under its lock."""

    needs_touch: ClassVar[bool]
    """Whether each hit must be told by `touch`; if not, a hit sets ``entry.mark`` and calls nothing."""

    def __init__(self, directory: Directory, *, by_weight: bool) -> None: ...

    @property
    def count(self) -> int:
        """How many entries it orders."""

    @property
    def weight(self) -> int:
        """The sum of their weights, in units of 16 bytes."""

    def insert(self, entry: Entry) -> None:
        """Take in an entry whose key it does not hold; sets ``entry.home``."""

    def replace(self, old: Entry, new: Entry) -> None:
        """Let a new entry of the same key take the old one's place; counts as a use."""

    def remove(self, entry: Entry) -> None:
        """Forget an entry that leaves for a reason of its own (deleted, expired)."""

    def touch(self, entry: Entry) -> None:
        """Hear of a hit; only called where `needs_touch` says so."""

    def evict(self, incoming: int, *, by_weight: bool) -> Entry:
        """Choose the entry to leave and forget it; `IndexError` where there is none.

        ``incoming`` is the weight of the entry that wants the room, ``by_weight`` says which limit it would break:
        bytes (True) or entries (False).
        """

    def pieces(self) -> Iterator[list[Entry]]:
        """All entries, at most 512 at a time; of what moves while one walks, some may be missed or met twice."""

    def check(self) -> list[str]:
        """Verify counts and weights against what the queues hold; a sentence for each fault."""

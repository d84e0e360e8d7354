"""Negatives: what loads have found out of keys that is no value: an error worth keeping, or that there is nothing.

Kept in this process alone. A negative is forgotten by whatever changes its key (the write that creates the thing above
all, heard from another process too), by any value that arrives, and by its time; tags, patterns and clears kill it by
its sequence, as they kill entries. Pure: time is passed in.
"""

from collections.abc import Hashable
from sys import maxsize

import msgspec

MAX_NEGATIVES = 16_384  # beyond it the oldest go: they only cost a load


class Negative(msgspec.Struct, frozen=True):
    """One finding: what it is, until when it holds (monotonic seconds), and what can kill it."""

    finding: object
    since: float
    until: float
    seq: int
    """The log's sequence read before the load that found it."""
    tags: tuple[str, ...] = ()


class Negatives:
    """The findings by key; a key is whatever `Fills` calls one."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[Hashable, Negative] = {}

    def keep(self, key: Hashable, negative: Negative) -> None:
        """Remember a finding in place of an older one of its key."""
        self._held.pop(key, None)
        self._held[key] = negative
        if len(self._held) > MAX_NEGATIVES:
            self._held.pop(next(iter(self._held)), None)

    def look(self, key: Hashable, now: float) -> Negative | None:
        """The finding of a key while its time lasts."""
        negative = self._held.get(key)
        if negative is None or now < negative.until:
            return negative
        self._held.pop(key, None)
        return None

    def forget(self, key: Hashable, seq: int = maxsize) -> None:
        """The key was changed at this sequence: what was found out before it no longer counts."""
        negative = self._held.get(key)
        if negative is not None and negative.seq < seq:
            self._held.pop(key, None)

    def clear(self) -> None:
        """Everything may have changed."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)

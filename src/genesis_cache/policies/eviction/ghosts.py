"""Keys that left lately, remembered by 32 bits of their hash: no key is kept alive, nothing is allocated.

The shadow lists of W. Megiddo, D. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, in the form
of tables with an age in each slot, in which old ghosts are written over.
"""

from mmap import ACCESS_COPY, mmap

REJECTED, LOST = 0, 1
"""The two lists: what was not admitted, and what was evicted after it had been."""

_SLOTS_PER_GHOST = 2
_MAPPED = 1 << 14  # slots of 8 bytes from which a list is mapped: untouched pages cost neither time nor memory
_LEAST_SLOTS = 8
_CLOCK_MASK = 0xFFFFFFFF
_PRINT_MASK = 0xFFFFFFFF00000000


class Ghosts:
    """Two lists of departed keys; each forgets a key when ``size`` more have come to it."""

    __slots__ = ("_clocks", "_lists", "_mask", "_size")

    def __init__(self) -> None:
        self._clocks = [0, 0]
        self._size = 1
        self._mask = _LEAST_SLOTS - 1
        self._lists = [_slots(_LEAST_SLOTS), _slots(_LEAST_SLOTS)]

    def add(self, digest: int, which: int) -> None:
        """Remember a key in a list."""
        clock = self._clocks[which] = self._clocks[which] + 1
        self._lists[which][digest & self._mask] = digest & _PRINT_MASK | clock & _CLOCK_MASK

    def take(self, digest: int) -> int | None:
        """Which list remembers the key, which is then forgotten; None for neither."""
        at = digest & self._mask
        rejected, lost = self._lists
        if not (rejected[at] ^ digest) & _PRINT_MASK:
            return self._taken(at, REJECTED)
        if not (lost[at] ^ digest) & _PRINT_MASK:
            return self._taken(at, LOST)
        return None

    def grow(self, size: int) -> None:
        """Let each list remember so many keys; lists for which there is no room are begun anew."""
        self._size = max(size, 1)
        wanted = self._size * _SLOTS_PER_GHOST
        if wanted > self._mask + 1:
            slots = 1 << (wanted - 1).bit_length()
            self._mask = slots - 1
            self._lists = [_slots(slots), _slots(slots)]

    def _taken(self, at: int, which: int) -> int | None:
        slots = self._lists[which]
        age = (self._clocks[which] - slots[at]) & _CLOCK_MASK
        slots[at] = 0
        return which if age < self._size else None


class NoGhosts(Ghosts):
    """Remembers nothing."""

    def add(self, digest: int, which: int) -> None:
        """Forget it at once."""

    def take(self, digest: int) -> int | None:
        """Never there."""
        del digest
        return None

    def grow(self, size: int) -> None:
        """Stay empty."""


def _slots(number: int) -> "memoryview[int]":
    if number < _MAPPED:
        return memoryview(bytearray(8 * number)).cast("Q")
    return memoryview(mmap(-1, 8 * number, access=ACCESS_COPY)).cast("Q")  # a copy: not shared with forked children

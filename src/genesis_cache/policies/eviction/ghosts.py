"""Keys that left lately, remembered by 32 bits of their hash: no key is kept alive, nothing is allocated.

The shadow lists of W. Megiddo, D. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, in the form
of a table with an age in each slot, in which old ghosts are written over.
"""

REJECTED, LOST = 1, 2
"""The two lists: what was not admitted, and what was evicted after it had been."""

_SLOTS_PER_GHOST = 2
_LEAST_SLOTS = 8
_CLOCK_MASK = 0xFFFFFFFF
_PRINT_MASK = 0xFFFFFFFF00000000


class Ghosts:
    """Two lists of departed keys; each forgets a key when ``size`` more have come to it."""

    __slots__ = ("_clocks", "_lists", "_mask", "_size")

    def __init__(self) -> None:
        self._size = 0
        self.grow(1)

    def add(self, digest: int, which: int) -> None:
        """Remember a key in a list."""
        clock = self._clocks[which] + 1
        self._clocks[which] = clock
        self._lists[which][digest & self._mask] = digest & _PRINT_MASK | clock & _CLOCK_MASK

    def take(self, digest: int) -> int:
        """Which list remembers the key, which is then forgotten; 0 for neither."""
        at = digest & self._mask
        if not (self._lists[REJECTED][at] ^ digest) & _PRINT_MASK:
            return self._taken(at, REJECTED)
        if not (self._lists[LOST][at] ^ digest) & _PRINT_MASK:
            return self._taken(at, LOST)
        return 0

    def grow(self, size: int) -> None:
        """Let each list remember so many keys; lists for which there is no room are begun anew."""
        wanted = max(size, 1) * _SLOTS_PER_GHOST
        if not self._size or wanted > self._mask + 1:
            slots = max(1 << (wanted - 1).bit_length(), _LEAST_SLOTS)
            self._mask = slots - 1
            self._clocks = [0, 0, 0]
            # bytearrays are made of untouched memory, so that a large one costs nothing until it fills
            self._lists = [memoryview(bytearray(8 * slots)).cast("Q") for _ in range(3)]
        self._size = max(size, 1)

    def _taken(self, at: int, which: int) -> int:
        slots = self._lists[which]
        age = (self._clocks[which] - slots[at]) & _CLOCK_MASK
        slots[at] = 0
        return which if age < self._size else 0


class NoGhosts(Ghosts):
    """Remembers nothing."""

    def add(self, digest: int, which: int) -> None:
        """Forget it at once."""

    def take(self, digest: int) -> int:
        """Never there."""
        del digest
        return 0

    def grow(self, size: int) -> None:
        """Stay empty."""

"""Keys that left lately, remembered by 32 bits of their hash: no key is kept alive, nothing is allocated.

The shadow lists of W. Megiddo, D. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, in the form
of a table with an age in each slot, in which old ghosts are written over.
"""

REJECTED, LOST = 1, 2
"""The two lists: what was not admitted, and what was evicted after it had been."""

_SLOTS_PER_GHOST = 4
_LEAST_SLOTS = 64
_CLOCK_BITS = 30
_CLOCK_MASK = (1 << _CLOCK_BITS) - 1
_PRINT_MASK = 0xFFFFFFFF00000000


class Ghosts:
    """Two lists of departed keys; each forgets a key when ``size`` more have come to it."""

    __slots__ = ("_clocks", "_mask", "_size", "_slots")

    def __init__(self) -> None:
        self._clocks = [0, 0, 0]
        self._size = 1
        self._mask = _LEAST_SLOTS - 1
        self._slots = memoryview(bytearray(8 * _LEAST_SLOTS)).cast("Q")

    def add(self, digest: int, which: int) -> None:
        """Remember a key in a list."""
        clock = self._clocks[which] + 1
        self._clocks[which] = clock
        self._slots[digest & self._mask] = digest & _PRINT_MASK | which << _CLOCK_BITS | clock & _CLOCK_MASK

    def take(self, digest: int) -> int:
        """Which list remembers the key, which is then forgotten; 0 for neither."""
        at = digest & self._mask
        slot = self._slots[at]
        if not slot or (slot ^ digest) & _PRINT_MASK:
            return 0
        self._slots[at] = 0
        which = slot >> _CLOCK_BITS & 3
        age = (self._clocks[which] - slot) & _CLOCK_MASK
        return which if age < self._size else 0

    def grow(self, size: int) -> None:
        """Let each list remember so many keys; a table that has become too small is begun anew."""
        self._size = max(size, 1)
        if self._size * 2 * _SLOTS_PER_GHOST > 2 * len(self._slots):
            slots = 1 << (self._size * 2 * _SLOTS_PER_GHOST - 1).bit_length()
            self._slots = memoryview(bytearray(8 * slots)).cast("Q")
            self._mask = slots - 1


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

"""Keys that left lately, remembered by 32 bits of their hash: no key is kept alive, nothing is allocated.

The shadow lists of W. Megiddo, D. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, in the form
of a table with an age in each slot, in which old ghosts are written over.
"""

_SLOTS_PER_GHOST = 4
_TIME_BITS = 30
_TIME_MASK = (1 << _TIME_BITS) - 1


class Ghosts:
    """Two lists of departed keys, 1 and 2; each forgets a key when ``size`` more have come to it."""

    __slots__ = ("_clocks", "_mask", "_slots", "size")

    def __init__(self) -> None:
        self._clocks = [0, 0, 0]
        self._mask = 0
        self._slots = memoryview(bytearray(8)).cast("Q")
        self.resize(1)

    def resize(self, size: int) -> None:
        """Remember so many keys in each list; growing the table forgets those that were there."""
        self.size = max(size, 1)
        wanted = 2 * self.size * _SLOTS_PER_GHOST
        if wanted > 2 * len(self._slots) or len(self._slots) < 64:
            slots = 1 << max(wanted - 1, 63).bit_length()
            self._slots = memoryview(bytearray(8 * slots)).cast("Q")
            self._mask = slots - 1

    def add(self, digest: int, which: int) -> None:
        """Remember a key in list 1 or 2."""
        clock = self._clocks[which] + 1
        self._clocks[which] = clock
        self._slots[digest & self._mask] = (digest & 0xFFFFFFFF00000000) | which << _TIME_BITS | clock & _TIME_MASK

    def take(self, digest: int) -> int:
        """Which list remembers the key, 1 or 2, and forget it; 0 for neither."""
        at = digest & self._mask
        slot = self._slots[at]
        if not slot or (slot ^ digest) & 0xFFFFFFFF00000000:
            return 0
        self._slots[at] = 0
        which = slot >> _TIME_BITS & 3
        age = (self._clocks[which] - slot) & _TIME_MASK
        return which if age < self.size else 0

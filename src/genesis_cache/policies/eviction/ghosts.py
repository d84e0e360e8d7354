"""Keys that left lately, remembered by 32 bits of their hash: no key is kept alive, nothing is allocated.

The shadow lists of W. Megiddo, D. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, in the form
of tables with an age in each slot, in which old ghosts are written over.
"""

_SLOTS_PER_GHOST = 2
_SEGMENT_BITS = 12
_SEGMENT = 1 << _SEGMENT_BITS  # slots of 8 bytes that are allocated at a time
_LEAST_SLOTS = 8
_CLOCK_MASK = 0xFFFFFFFF
_PRINT_MASK = 0xFFFFFFFF00000000


class GhostList:
    """Departed keys; one is forgotten when ``size`` more have come."""

    __slots__ = ("_clock", "_mask", "_segments", "_size")

    def __init__(self) -> None:
        self._clock = 0
        self._size = 1
        self._mask = _LEAST_SLOTS - 1
        self._segments: list[memoryview[int] | None] = [_slots(_LEAST_SLOTS)]

    def add(self, digest: int) -> None:
        """Remember a key."""
        self._clock += 1
        at = digest & self._mask
        segment = self._segments[at >> _SEGMENT_BITS]
        if segment is None:
            segment = self._segments[at >> _SEGMENT_BITS] = _slots(_SEGMENT)
        segment[at & _SEGMENT - 1] = digest & _PRINT_MASK | self._clock & _CLOCK_MASK

    def take(self, digest: int) -> bool:
        """Whether the key is remembered; it is then forgotten."""
        at = digest & self._mask
        segment = self._segments[at >> _SEGMENT_BITS]
        if segment is None:
            return False
        at &= _SEGMENT - 1
        slot = segment[at]
        if (slot ^ digest) & _PRINT_MASK or not slot:
            return False
        segment[at] = 0
        return (self._clock - slot) & _CLOCK_MASK < self._size

    def grow(self, size: int) -> None:
        """Remember so many keys; a list for which there is no room is begun anew."""
        self._size = max(size, 1)
        wanted = self._size * _SLOTS_PER_GHOST
        if wanted > self._mask + 1:
            slots = 1 << (wanted - 1).bit_length()
            self._mask = slots - 1
            self._segments = [None] * (slots >> _SEGMENT_BITS) if slots > _SEGMENT else [_slots(slots)]


def _slots(number: int) -> "memoryview[int]":
    return memoryview(bytearray(8 * number)).cast("Q")


class NoGhosts(GhostList):
    """Remembers nothing."""

    def add(self, digest: int) -> None:
        """Forget it at once."""

    def take(self, digest: int) -> bool:
        """Never there."""
        del digest
        return False

    def grow(self, size: int) -> None:
        """Stay empty."""

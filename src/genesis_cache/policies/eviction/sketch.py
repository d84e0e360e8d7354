"""How often keys were asked for lately: a counter for each of the keys that are seen most, told apart by a fingerprint.

A slot counts one key and forgets it when others that share the slot have outnumbered it (the majority vote of
J. Misra, D. Gries, "Finding repeated elements", Science of Computer Programming 2 (1982), in each slot; with
fingerprints as in T. Yang et al., "HeavyKeeper: an accurate algorithm for finding top-k elephant flows", IEEE/ACM ToN 27
(2019)). In the same memory this tells frequencies better than a count-min sketch does, with one look in place of two.
Ageing by halving is that of G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy",
ACM TOS 13 (2017), done by `bytes.translate` a slice at a time.
"""

TOP = 15
AGE_PERIOD = 15  # counts per entry between two halvings
SLOTS_PER_ENTRY = 4  # at least; two bytes each
_LEAST_SLOTS = 64
_LEAST_PERIOD = 16 * AGE_PERIOD
_HALVES = bytes(value // 2 for value in range(256))
_SLICE = 1 << 16  # slots halved at a time: about 0.1 ms
_PRINT_SHIFT = 40  # the slot is told by the lowest bits of the digest


class Sketch:
    """Counts by 64-bit digest. `grow` is told how many entries there are."""

    __slots__ = ("_added", "_counts", "_halving", "_mask", "_period", "_prints")

    def __init__(self) -> None:
        self._counts = bytearray(_LEAST_SLOTS)
        self._prints = bytearray(_LEAST_SLOTS)
        self._mask = _LEAST_SLOTS - 1
        self._period = _LEAST_PERIOD
        self._added = 0
        self._halving = -1  # start of the next slice to halve, -1: none

    def add(self, digest: int) -> None:
        """Count one use."""
        at = digest & self._mask
        counts = self._counts
        count = counts[at]
        if self._prints[at] == digest >> _PRINT_SHIFT & 255:
            if count < TOP:
                counts[at] = count + 1
        elif count > 1:
            counts[at] = count - 1
        else:
            self._prints[at] = digest >> _PRINT_SHIFT & 255
            counts[at] = 1
        self._added += 1
        if self._added >= self._period or self._halving >= 0:
            self._age()

    def count(self, digest: int) -> int:
        """Uses lately, 0 to 15."""
        at = digest & self._mask
        return self._counts[at] if self._prints[at] == digest >> _PRINT_SHIFT & 255 else 0

    def prefers(self, candidate: int, victim: int) -> bool:
        """Whether the first of two was used more often."""
        mask, counts, prints = self._mask, self._counts, self._prints
        at = candidate & mask
        if prints[at] != candidate >> _PRINT_SHIFT & 255:
            return False
        uses = counts[at]
        at = victim & mask
        return prints[at] != victim >> _PRINT_SHIFT & 255 or uses > counts[at]

    def grow(self, entries: int) -> None:
        """Make room for so many entries; what was counted stays."""
        while self._mask < entries * SLOTS_PER_ENTRY - 1:
            self._counts *= 2
            self._prints *= 2
            self._mask = len(self._counts) - 1
        self._period = max(entries * AGE_PERIOD, _LEAST_PERIOD)

    def _age(self) -> None:
        if self._halving < 0:
            self._added = 0
            self._halving = 0
        end = self._halving + _SLICE
        self._counts[self._halving : end] = self._counts[self._halving : end].translate(_HALVES)
        self._halving = end if end < len(self._counts) else -1

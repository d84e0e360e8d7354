"""How often keys were asked for lately: a counter for each of the keys that are seen most, told apart by a fingerprint.

A slot counts one key and forgets it when others that share the slot have outnumbered it (the majority vote of
J. Misra, D. Gries, "Finding repeated elements", Science of Computer Programming 2 (1982), in each slot; with
fingerprints as in T. Yang et al., "HeavyKeeper: an accurate algorithm for finding top-k elephant flows", IEEE/ACM
Transactions on Networking 27 (2019)). In the same memory this tells frequencies better than a count-min sketch does,
with one look in place of two. Ageing by halving is that of G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly
efficient cache admission policy", ACM TOS 13 (2017), done by `bytes.translate`.
"""

TOP = 15
AGE_PERIOD = 15  # counts per entry between two halvings
SLOTS_PER_ENTRY = 8  # at least; two bytes each
_SEGMENT_BITS = 16
_SEGMENT = 1 << _SEGMENT_BITS  # slots copied or halved at a time: about 0.05 ms
_LEAST_SLOTS = 64
_LEAST_PERIOD = 16 * AGE_PERIOD
_HALVES = bytes(value // 2 for value in range(256))
_PRINT_SHIFT = 40  # the slot is told by the lowest bits of the digest


class Sketch:
    """Counts by 64-bit digest. `grow` is told how many entries there are.

    The slots lie in segments, so that nothing large is copied at once: a table that doubles shows each segment twice,
    and each use that is counted then parts one pair. Halving goes segment by segment too.
    """

    __slots__ = ("_added", "_counts", "_due", "_halving", "_mask", "_parting", "_period", "_prints")

    def __init__(self) -> None:
        self._counts = [bytearray(_LEAST_SLOTS)]
        self._prints = [bytearray(_LEAST_SLOTS)]
        self._mask = _LEAST_SLOTS - 1
        self._period = _LEAST_PERIOD
        self._added = 0
        self._due = self._period  # how many must have been added for something to be due
        self._halving = 0  # segments that are still to be halved
        self._parting = 0  # segments, from the last one down, that still are the same as one below

    def add(self, digest: int) -> None:
        """Count one use."""
        at = digest & self._mask
        print_ = digest >> _PRINT_SHIFT & 255
        counts, prints = self._counts[at >> _SEGMENT_BITS], self._prints[at >> _SEGMENT_BITS]
        at &= _SEGMENT - 1
        count = counts[at]
        if prints[at] == print_:
            if count < TOP:
                counts[at] = count + 1
        elif count > 1:
            counts[at] = count - 1
        else:
            prints[at] = print_
            counts[at] = 1
        self._added += 1
        if self._added >= self._due:
            self._work()

    def count(self, digest: int) -> int:
        """Uses lately, 0 to 15."""
        at = digest & self._mask
        segment = at >> _SEGMENT_BITS
        at &= _SEGMENT - 1
        return self._counts[segment][at] if self._prints[segment][at] == digest >> _PRINT_SHIFT & 255 else 0

    def prefers(self, candidate: int, victim: int) -> bool:
        """Whether the first of two was used more often."""
        at = candidate & self._mask
        segment = at >> _SEGMENT_BITS
        at &= _SEGMENT - 1
        uses = self._counts[segment][at]
        if self._prints[segment][at] != candidate >> _PRINT_SHIFT & 255:
            return False
        at = victim & self._mask
        segment = at >> _SEGMENT_BITS
        at &= _SEGMENT - 1
        return uses > self._counts[segment][at] or self._prints[segment][at] != victim >> _PRINT_SHIFT & 255

    def grow(self, entries: int) -> None:
        """Make room for so many entries; what was counted stays."""
        while self._mask < entries * SLOTS_PER_ENTRY - 1:
            self._double()
        self._period = max(entries * AGE_PERIOD, _LEAST_PERIOD)
        self._due = 0

    def _double(self) -> None:
        while self._parting:
            self._part()
        if self._mask + 1 < _SEGMENT:
            self._counts[0] *= 2
            self._prints[0] *= 2
        else:
            self._parting = len(self._counts)
            self._counts *= 2
            self._prints *= 2
        self._mask = 2 * self._mask + 1

    def _work(self) -> None:
        """Do a piece of what is due."""
        if self._parting:
            self._part()
        elif self._halving:
            self._halving -= 1
            self._counts[self._halving] = self._counts[self._halving].translate(_HALVES)
        elif self._added >= self._period:
            self._added = 0
            self._halving = len(self._counts)
        self._due = 0 if self._parting or self._halving else self._period

    def _part(self) -> None:
        self._parting -= 1
        last = len(self._counts) // 2 + self._parting
        self._counts[last] = self._counts[last][:]
        self._prints[last] = self._prints[last][:]

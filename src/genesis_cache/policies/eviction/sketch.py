"""How often a key was asked for lately: a count-min sketch of two rows, aged by halving.

G. Cormode, S. Muthukrishnan, "An improved data stream summary: the count-min sketch", J. Algorithms 55 (2005); the
ageing is that of G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM TOS 13
(2017). Counters are bytes that stop at 15; a row is halved by `bytes.translate`, a slice at a time.
"""

HALVES = bytes(value // 2 for value in range(256))
TOP = 15
SLICE = 1 << 16  # bytes halved at a time: about 0.1 ms
COUNTERS_PER_ENTRY = 4  # in each row
AGE_PERIOD = 15  # counts per entry between two halvings
_ROW_SHIFT = 32


class Sketch:
    """Counts by 64-bit hash. `grow` is told how many entries there are."""

    __slots__ = ("_added", "_halving", "_period", "mask", "row0", "row1")

    def __init__(self) -> None:
        self.row0 = bytearray(64)
        self.row1 = bytearray(64)
        self.mask = 63
        self._period = 64 // COUNTERS_PER_ENTRY * AGE_PERIOD
        self._added = 0
        self._halving = -1  # start of the next slice to halve, -1: none

    def add(self, digest: int) -> None:
        """Count one use."""
        mask, row0, row1 = self.mask, self.row0, self.row1
        at = digest & mask
        count = row0[at]
        if count < TOP:
            row0[at] = count + 1
        at = (digest >> _ROW_SHIFT) & mask
        count = row1[at]
        if count < TOP:
            row1[at] = count + 1
        self._added += 1
        if self._added >= self._period or self._halving >= 0:
            self._age()

    def count(self, digest: int) -> int:
        """Uses lately, 0 to 15, seldom too many."""
        first = self.row0[digest & self.mask]
        second = self.row1[(digest >> _ROW_SHIFT) & self.mask]
        return first if first < second else second

    def grow(self, entries: int) -> None:
        """Make room for so many entries; what was counted stays."""
        while len(self.row0) < entries * COUNTERS_PER_ENTRY:
            self.row0 *= 2
            self.row1 *= 2
            self.mask = len(self.row0) - 1
        self._period = max(entries, 16) * AGE_PERIOD

    def _age(self) -> None:
        if self._halving < 0:
            self._added = 0
            self._halving = 0
        start = self._halving
        for row in (self.row0, self.row1):
            row[start : start + SLICE] = row[start : start + SLICE].translate(HALVES)
        self._halving = start + SLICE if start + SLICE < len(self.row0) else -1

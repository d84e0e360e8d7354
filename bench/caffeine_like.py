"""The reference of the hit-ratio bench: adaptive W-TinyLFU as Caffeine's authors describe it, told of every hit.

G. Einziger, R. Friedman, B. Manes, "TinyLFU" (ACM TOS 13, 2017), and G. Einziger, O. Eytan, R. Friedman, B. Manes,
"Adaptive software cache management" (Middleware 2018): an LRU window, a segmented LRU main part of which 80% is
protected, a sketch of four rows of 4-bit counters that is halved every ten capacities, admission by frequency with a
chance for warm candidates, and a hill climber that moves the window by 6.25% of the capacity, less each time, and
starts again when the hit ratio jumps by 5 points. Written from the papers; it is not Caffeine.
"""

from collections import OrderedDict
from random import Random

WINDOW_SHARE = 0.01
PROTECTED_SHARE = 0.8
STEP_SHARE = 0.0625
STEP_DECAY = 0.98
RESTART = 0.05  # change of the hit ratio between two samples
SAMPLE = 10  # capacities
ROWS = 4
COUNTERS_PER_ENTRY = 4  # in each row
TOP = 15
WARM = 5  # uses from which a losing candidate is admitted once in 128 times
_HALVES = bytes(value // 2 for value in range(256))


class CountMin:
    """Frequencies by key: four rows of counters, the least of which is told."""

    def __init__(self, capacity: int) -> None:
        size = 1 << max(capacity * COUNTERS_PER_ENTRY - 1, 63).bit_length()
        self._rows = [bytearray(size) for _ in range(ROWS)]
        self._mask = size - 1
        self._period = SAMPLE * capacity
        self._added = 0

    def add(self, key: str) -> None:
        """Count one use."""
        digest = hash(key)
        for row in self._rows:
            at = digest & self._mask
            if row[at] < TOP:
                row[at] += 1
            digest = (digest >> 15) * 0x9E3779B1
        self._added += 1
        if self._added >= self._period:
            self._added = 0
            self._rows = [row.translate(_HALVES) for row in self._rows]

    def count(self, key: str) -> int:
        """Uses lately."""
        digest, least = hash(key), TOP
        for row in self._rows:
            least = min(least, row[digest & self._mask])
            digest = (digest >> 15) * 0x9E3779B1
        return least


class CaffeineLike:
    """A set of keys of bounded size: `ask` tells whether a key is in it and puts it in if not."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._window: OrderedDict[str, None] = OrderedDict()
        self._probation: OrderedDict[str, None] = OrderedDict()
        self._protected: OrderedDict[str, None] = OrderedDict()
        self._sketch = CountMin(capacity)
        self._window_most = max(1.0, WINDOW_SHARE * capacity)
        self._protected_most = PROTECTED_SHARE * (capacity - self._window_most)
        self._step = -STEP_SHARE * capacity
        self._hits = self._asked = 0
        self._ratio_before = 0.0
        self._chance = Random(1)

    def ask(self, key: str) -> bool:
        """Whether the key was there."""
        self._sketch.add(key)
        self._asked += 1
        known = self._hit(key)
        if known:
            self._hits += 1
        else:
            self._window[key] = None
            self._evict()
        if self._asked >= SAMPLE * self._capacity:
            self._climb()
        return known

    def _hit(self, key: str) -> bool:
        if key in self._window:
            self._window.move_to_end(key)
        elif key in self._protected:
            self._protected.move_to_end(key)
        elif key in self._probation:
            del self._probation[key]
            self._protected[key] = None
            self._demote()
        else:
            return False
        return True

    def _demote(self) -> None:
        while len(self._protected) > self._protected_most:
            key, _ = self._protected.popitem(last=False)
            self._probation[key] = None

    def _evict(self) -> None:
        candidate = None
        while len(self._window) > self._window_most:
            candidate, _ = self._window.popitem(last=False)
            self._probation[candidate] = None
        if len(self._window) + len(self._probation) + len(self._protected) <= self._capacity:
            return
        parts = [part for part in (self._probation, self._protected, self._window) if part]
        victim = next(iter(parts[0]))
        if victim == candidate and self._protected:
            victim = next(iter(self._protected))
        if candidate is not None and victim != candidate and not self._admits(candidate, victim):
            victim = candidate
        for part in parts:
            part.pop(victim, None)

    def _admits(self, candidate: str, victim: str) -> bool:
        theirs, ours = self._sketch.count(candidate), self._sketch.count(victim)
        return theirs > ours or (theirs > WARM and self._chance.randrange(128) == 0)

    def _climb(self) -> None:
        ratio = self._hits / self._asked
        change = ratio - self._ratio_before
        amount = self._step if change >= 0 else -self._step
        restart = STEP_SHARE * self._capacity * (1 if amount >= 0 else -1)
        self._step = restart if abs(change) >= RESTART else STEP_DECAY * amount
        self._ratio_before, self._hits, self._asked = ratio, 0, 0
        amount = min(amount, self._protected_most) if amount > 0 else max(amount, 1 - self._window_most)
        self._window_most += amount
        self._protected_most -= amount
        self._demote()
        while len(self._window) > self._window_most:
            key, _ = self._window.popitem(last=False)
            self._probation[key] = None
        for _ in range(int(amount)):
            part = self._probation or self._protected
            if not part or len(self._window) >= self._window_most:
                break
            key, _ = part.popitem(last=False)
            self._window[key] = None

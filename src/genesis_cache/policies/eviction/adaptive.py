"""W-TinyLFU whose window follows two ghost lists, told of hits by marks: the default.

The window and main part of `tinylfu`; the window's share is tuned as in W. Megiddo, D. Modha, "ARC: a self-tuning, low
overhead replacement cache", FAST 2003: a miss on a key that the window has just rejected says that the window is too
small, a miss on a key that the main part has just lost says that it is too large. The hill climber of G. Einziger,
O. Eytan, R. Friedman, B. Manes, "Adaptive software cache management", Middleware 2018, needs the hit ratio of long
samples for the same purpose; ghosts tell at each miss.
"""

from genesis_cache.policies.eviction.base import Directory
from genesis_cache.policies.eviction.ghosts import REJECTED, Ghosts
from genesis_cache.policies.eviction.queue import Queue
from genesis_cache.policies.eviction.tinylfu import TinyLfuPolicy

START_SHARE = 0.02
LEAST_SHARE, MOST_SHARE = 0.01, 0.99
GHOST_SHARE = 0.1  # of the entries, for each list
STEP_SHARE, MOST_STEP = 0.002, 32  # of the entries, and entries: how much one ghost moves the window


class AdaptivePolicy(TinyLfuPolicy):
    """`TinyLfuPolicy` with ghosts: they move the window's share, and a rejected key that returns is admitted."""

    def __init__(self, directory: Directory, *, by_weight: bool) -> None:
        super().__init__(directory, by_weight=by_weight)
        self._share = START_SHARE
        self._ghosts = Ghosts()
        self._step = 1.0

    def grow(self, entries: int) -> None:
        """Adapt the sketch, the ghosts and the step."""
        super().grow(entries)
        self._ghosts.grow(int(entries * GHOST_SHARE))
        self._step = max(1.0, min(entries * STEP_SHARE, MOST_STEP)) / entries

    def _place(self, ghost: int) -> Queue:
        """Move the window's share, and tell where an entry begins that was here before."""
        if ghost == REJECTED:
            self._share = min(self._share + self._step, MOST_SHARE)
            return self._probation
        self._share = max(self._share - self._step, LEAST_SHARE)
        return self._window

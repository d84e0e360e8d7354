"""Fills: which loads and promotions on their way may still store what they bring.

A fill takes a token before it reads or loads. A change of its key meanwhile (delete, set, a notice from another
process) makes the token worthless; tags, patterns and clears are judged by sequence instead (`floors`). Exact, without
a counter per key: kills are remembered only while a fill is on its way, and a bound turns a flood into one floor.
"""

from collections.abc import Hashable

MAX_REMEMBERED = 65_536


class Fills:
    """The fills under way and the keys that changed meanwhile."""

    __slots__ = ("_active", "_count", "_floor", "_killed")

    def __init__(self) -> None:
        self._active = 0
        self._count = 0
        self._floor = 0
        self._killed: dict[Hashable, int] = {}

    def begin(self) -> int:
        """A token for one fill; give it back with `end`."""
        self._active += 1
        return self._count

    def now(self) -> int:
        """A token for a fill that does not wait between reading and storing; nothing to give back."""
        return self._count

    def end(self) -> None:
        """The fill that took a token is over."""
        self._active -= 1
        if self._active == 0:
            self._killed.clear()

    def kill(self, key: Hashable) -> None:
        """The key changed: fills of it that have begun may not store."""
        if not self._active:
            return
        self._count += 1
        self._killed[key] = self._count
        if len(self._killed) > MAX_REMEMBERED:
            self.kill_all()

    def kill_all(self) -> None:
        """Everything may have changed: no fill that has begun may store."""
        self._count += 1
        self._floor = self._count
        self._killed.clear()

    def alive(self, token: int, key: Hashable) -> bool:
        """Whether the fill with this token may still store the key."""
        return self._floor <= token and self._killed.get(key, 0) <= token

    def reset(self) -> None:
        """Forget all fills, in a forked child where none of them goes on."""
        self.kill_all()
        self._active = 0

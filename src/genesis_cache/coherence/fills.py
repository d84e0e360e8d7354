"""Fills: which loads and promotions on their way may still store what they bring.

A fill takes a token before it reads or loads. A change of its key meanwhile (delete, set, a notice from another
process) makes the token worthless; tags, patterns and clears are judged by sequence instead (`floors`). Exact, without
a counter per key: kills are remembered only while a fill is on its way, and a bound turns a flood into one floor.
"""

from collections.abc import Hashable
from sys import maxsize

from genesis_cache.coherence.negatives import Negatives

MAX_REMEMBERED = 65_536

Token = tuple[int, int]
"""How many kills of this process came before the fill began, and the log's sequence known by then."""


class Fills:
    """The fills under way and the keys that changed meanwhile."""

    __slots__ = ("_active", "_count", "_floor", "_heard", "_killed", "negatives")

    def __init__(self) -> None:
        self._active = 0
        self._count = 0
        self._floor = 0
        self._killed: dict[Hashable, int] = {}
        self._heard: dict[Hashable, int] = {}
        self.negatives = Negatives()
        """What fills have found out that is no value; a change of the key ends that too."""

    def begin(self, seq: int) -> Token:
        """A token for one fill that reads or loads what the log's sequence ``seq`` or a later one left behind.

        Give it back with `end`.
        """
        self._active += 1
        return self._count, seq

    def again(self, token: Token) -> Token:
        """The same fill goes on elsewhere, where it has to be ended too: what changed since it began counts on."""
        self._active += 1
        return token

    def now(self) -> Token:
        """A token for a fill that does not wait between reading and storing; nothing to give back."""
        return self._count, maxsize

    def end(self) -> None:
        """The fill that took a token is over."""
        self._active -= 1
        if self._active == 0:
            self._killed.clear()
            self._heard.clear()

    def kill(self, key: Hashable) -> None:
        """This process changed the key: fills of it that have begun may not store."""
        if self.negatives:
            self.negatives.forget(key)
        if not self._active:
            return
        self._count += 1
        self._killed[key] = self._count
        if len(self._killed) > MAX_REMEMBERED:
            self.kill_all()

    def hear(self, key: Hashable, seq: int) -> None:
        """The log says that the key was changed: fills of it that began at an earlier sequence may not store.

        What a process hears may be its own change, told after a younger load has begun, which it must not harm.
        """
        if self.negatives:
            self.negatives.forget(key, seq)
        if not self._active:
            return
        self._heard[key] = max(seq, self._heard.get(key, 0))
        if len(self._heard) > MAX_REMEMBERED:
            self.kill_all()

    def kill_all(self) -> None:
        """Everything may have changed: no fill that has begun may store."""
        self._count += 1
        self._floor = self._count
        self.negatives.clear()
        self._killed.clear()
        self._heard.clear()

    def alive(self, token: Token, key: Hashable) -> bool:
        """Whether the fill with this token may still store the key."""
        count, seq = token
        return self._floor <= count and self._killed.get(key, 0) <= count and self._heard.get(key, 0) <= seq

    def reset(self) -> None:
        """Forget all fills, in a forked child where none of them goes on."""
        self.kill_all()
        self._active = 0

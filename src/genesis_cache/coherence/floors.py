"""Floors: the sequences below which entries are dead, by tag, pattern, namespace and owner.

Pure rules over sequences. An entry carries the log's sequence that was read before its value was made; a notice with a
higher sequence that names the entry kills it, wherever and by whatever road the entry arrives later. One comparison of
`Floors.epoch` tells a hit that nothing has moved since its entry was last judged.
"""

import threading
from collections.abc import Callable
from itertools import count
from sys import maxsize

import msgspec

from genesis_cache.coherence.spreading import Spread, Spreads, spread_of
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.model.patterns import compile_pattern

BEYOND = 2**62  # no log ever gives a sequence as high
MAX_TAG_FLOORS = 65_536  # beyond it the older half becomes one floor for all tagged entries: safe, and bounded
MAX_PATTERNS = 256  # beyond it the oldest half becomes one floor for their whole scope

_numbers = count(1)

Reach = tuple[tuple[str, str | None], ...]


class PatternFloor(msgspec.Struct):
    """Entries of a scope whose key matches are dead below the sequence."""

    scope: tuple[str, str | None]
    text: str
    matches: Callable[[str], bool]
    seq: int
    since: int = maxsize
    """Number of the first epoch that was made when it stood among the others already."""


class Epoch:
    """The state of all floors between two changes of them; compared by identity, which is what a hit can afford."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = next(_numbers)


def reach_of(namespace: str, owner: str | None) -> Reach:
    """The scopes whose notices reach an entry: its namespace and those around it, for any owner and for its own."""
    names = [""]
    if namespace:
        parts = namespace.split("/")
        names += ["/".join(parts[: n + 1]) for n in range(len(parts))]
    scopes: list[tuple[str, str | None]] = [(name, None) for name in names]
    if owner is not None:
        scopes += [(name, owner) for name in names]
    return tuple(scopes)


class Floors:
    """What is dead, as far as this process has heard.

    ``epoch`` is a new object each time something moved. ``given`` is the highest sequence that the log is known to have
    given. ``seq`` is what a load reads before it begins: the same, or more while this process has orders of its own
    that the log could not be told. ``top`` is the highest floor there is, so that what is not below it lives.
    ``generation`` counts resets, across which sequences cannot be compared. ``heard_until`` is the monotonic second
    until which all this may be taken as up to date.
    """

    __slots__ = (
        "_base", "_clears", "_patterns", "_tagged", "_tags",
        "epoch", "generation", "given", "heard_until", "lock", "seq", "spreads", "top",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held while a floor moves; looking takes no lock."""
        self.epoch = Epoch()
        self.seq = 0
        self.given = 0
        self.generation = 0
        self.heard_until = 0.0
        self.top = 0
        self._base = 0
        self._tagged = 0
        self._clears: dict[tuple[str, str | None], int] = {}
        self._tags: dict[tuple[str, str | None], dict[str, int]] = {}
        self._patterns: list[PatternFloor] = []
        self.spreads = Spreads()
        """Orders that kill by a deadline."""

    def hear(self, seq: int) -> None:
        """The log has given this sequence."""
        if seq > self.given:
            self.given = seq
            self.seq = max(self.seq, seq)

    def apply(self, notice: Notice) -> None:
        """Take in a notice of the log; a KEY notice only moves ``seq``. Safe to repeat, in any order."""
        self.hear(notice.seq)
        self._apply(notice)

    def spread(self, notice: Notice, now: float) -> None:
        """Take in a notice that spreads: what it reaches dies by its deadline, not now. Safe to repeat."""
        self.hear(notice.seq)
        said = spread_of(notice)
        if said is None:
            self._apply(notice)
            return
        scope, (tag, length) = (notice.namespace, notice.owner), said
        if self._tags.get(scope, {}).get(tag, 0) >= notice.seq:
            return  # it is over, or a later order has killed all that it reaches
        for early in self.spreads.add(Spread(scope, tag, notice.seq, now, now + length)):
            self._apply(early.notice)
        self.epoch = Epoch()

    def end_spreads(self, now: float) -> None:
        """Kill what the orders that have spread for long enough have reached."""
        for ended in self.spreads.over(now):
            self._apply(ended.notice)

    def foresee(self, notice: Notice) -> None:
        """Make an order of this process effective before the log has given it a sequence: the next one, for now.

        What is made meanwhile is dead too, for it carries the sequence before.
        """
        self._apply(msgspec.structs.replace(notice, seq=self.seq + 1))

    def overrule(self, notice: Notice) -> None:
        """Make an order of this process effective that the log cannot be told for now.

        It beats whatever the log has given, heard of here or not; only what this process makes from here on lives, and
        only in this process. `reset` ends it, when the log has been told and says where everything stands.
        """
        self._apply(msgspec.structs.replace(notice, seq=max(BEYOND, self.top) + 1))
        self.seq = self.top

    @property
    def is_ahead(self) -> bool:
        """Whether ``seq`` counts orders that the log has not been told."""
        return self.seq > self.given

    def _apply(self, notice: Notice) -> None:
        with self.lock:  # one thread orders, another hears: neither may take the other's place
            self._apply_alone(notice)

    def _apply_alone(self, notice: Notice) -> None:
        scope = (notice.namespace, notice.owner)
        added: PatternFloor | None = None
        match notice.kind:
            case Kind.KEY:
                return
            case Kind.TAG:
                tags = self._tags.setdefault(scope, {})
                name, _ = spread_of(notice) or (notice.name, 0.0)
                tags[name] = max(notice.seq, tags.pop(name, 0))
                if len(tags) > MAX_TAG_FLOORS:
                    self._shorten(tags)
            case Kind.PATTERN:
                same = [p.seq for p in self._patterns if (p.scope, p.text) == (scope, notice.name)]
                kept = [p for p in self._patterns if (p.scope, p.text) != (scope, notice.name)]
                seq = max([notice.seq, *same])
                added = PatternFloor(scope, notice.name, compile_pattern(notice.name), seq)
                kept.append(added)
                self._patterns = kept if len(kept) <= MAX_PATTERNS else self._retire(kept)
            case Kind.CLEAR:
                self._clears[scope] = max(notice.seq, self._clears.get(scope, 0))
                self._forget_below(scope, notice.seq)
        self.top = max(self.top, notice.seq)
        self.epoch = epoch = Epoch()
        if added is not None:  # not before: another thread may judge entries at this very moment
            added.since = epoch.number

    def reset(self, seq: int) -> None:
        """Everything with a lower sequence is dead: the log was lost, or what it said can no longer be told."""
        self.generation += 1
        self.seq = self.given = self._base = self.top = seq
        self._tagged = 0
        self._clears.clear()
        self._tags.clear()
        self._patterns = []
        self.spreads.clear()
        self.epoch = Epoch()

    def rejudge(self) -> None:
        """Make every entry be judged at its next hit, though no floor moved."""
        self.epoch = Epoch()

    def killer(self, reach: Reach, key: str, tags: tuple[str, ...], seq: int, judged: object = None) -> int:
        """The highest sequence that kills an entry, or 0 where it lives.

        ``judged``: the epoch at which the same entry was last found alive, if it was: older patterns do not match it.
        """
        if seq >= self.top:
            return 0
        floor = max(self._base, self._tagged) if tags else self._base
        clears, by_scope = self._clears, self._tags
        for scope in reach:
            if clears:
                floor = max(floor, clears.get(scope, 0))
            if tags and (floors := by_scope.get(scope)):
                for tag in tags:
                    floor = max(floor, floors.get(tag, 0))
        known = judged.number if isinstance(judged, Epoch) else 0
        for pattern in self._patterns:
            if pattern.since > known and pattern.seq > floor and pattern.scope in reach and pattern.matches(key):
                floor = pattern.seq
        return floor if floor > seq else 0

    def _shorten(self, tags: dict[str, int]) -> None:
        for tag in list(tags)[: len(tags) // 2]:
            self._tagged = max(self._tagged, tags.pop(tag))

    def _retire(self, patterns: list[PatternFloor]) -> list[PatternFloor]:
        half = len(patterns) // 2
        for pattern in patterns[:half]:
            self._clears[pattern.scope] = max(pattern.seq, self._clears.get(pattern.scope, 0))
        return patterns[half:]

    def _forget_below(self, scope: tuple[str, str | None], seq: int) -> None:
        tags = self._tags.get(scope, {})
        for tag in [tag for tag, floor in tags.items() if floor <= seq]:
            del tags[tag]
        self._patterns = [p for p in self._patterns if p.scope != scope or p.seq > seq]

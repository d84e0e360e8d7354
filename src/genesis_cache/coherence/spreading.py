"""Spreading: invalidations by tag that leave the reloads time. What they reach is served on, and is dead by a deadline.

Such an order travels through every log as one by tag whose name says how long it spreads, so that it needs nothing of
its own there. A process that hears of it counts from the moment up to which it had heard everything before, so that it
is never late; one that finds it among the floors, because it has just started or has lost its place in the log, takes
it as an order without delay. Pure: time is passed in.
"""

from collections.abc import Iterable

import msgspec

from genesis_cache.model.durations import seconds
from genesis_cache.model.errors import InvalidKey
from genesis_cache.model.keys import tag_name
from genesis_cache.model.notice import Kind, Notice

SIGN = "\x1d"  # the group separator: nothing that a tag begins with
MAX_SPREADS = 256  # at once; beyond it the oldest ends early
LONGEST_S = 86_400.0
POPULAR_SHARE = 0.5  # of the time, in which what was hit lately has its turn; the rest comes after it

Scope = tuple[str, str | None]


class Spread(msgspec.Struct, frozen=True):
    """One such order as this process heard it. Entries that bear the tag and are below ``seq`` die at ``ends``."""

    scope: Scope
    tag: str
    seq: int
    begins: float
    """Monotonic seconds."""
    ends: float

    def due(self, key: object, *, is_popular: bool) -> float:
        """When an entry's turn to be loaded anew comes: drawn from its key, in the first half where it is popular."""
        chance = (hash((key, self.seq)) & 0xFFFF) / 0x10000
        share = chance * POPULAR_SHARE if is_popular else POPULAR_SHARE + chance * (1.0 - POPULAR_SHARE)
        return self.begins + share * (self.ends - self.begins)

    @property
    def notice(self) -> Notice:
        """The order without a delay, which it becomes at its end."""
        return Notice(Kind.TAG, *self.scope, self.tag, self.seq)


def spread_seconds(said: object) -> float | None:
    """Seconds over which an order shall spread; ValueError or TypeError for what is no length up to a day."""
    length = seconds(said, "spread")
    if length is not None and length > LONGEST_S:
        msg = f"spread must be a day at most, got {said!r:.80}: use touch() or a shorter ttl for what may live longer"
        raise ValueError(msg)
    return length


def plain_tag(tag: object) -> str:
    """A tag as `tag_name` checks it; InvalidKey for one that reads like an order that spreads."""
    name = tag_name(tag)
    if spread_of(Notice(Kind.TAG, "", None, name)) is not None:
        raise InvalidKey(f"a tag must not begin as {name!r:.80} does: U+001D marks orders that spread over time")
    return name


def spread_name(tag: str, spread_s: float) -> str:
    """How a log names an invalidation of a tag that spreads over so many seconds."""
    return f"{SIGN}{spread_s:g}{SIGN}{tag}"


def spread_of(notice: Notice) -> tuple[str, float] | None:
    """The tag and the seconds of a notice that spreads; None where it does not."""
    if notice.kind is not Kind.TAG or not notice.name.startswith(SIGN):
        return None
    length, sign, tag = notice.name[1:].partition(SIGN)
    try:
        return (tag, float(length)) if sign and tag else None
    except ValueError:
        return None


class Spreads:
    """The orders under way."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[Spread] = []

    def __len__(self) -> int:
        return len(self._held)

    def add(self, spread: Spread) -> list[Spread]:
        """Take one in, unless it is known; those that have to end early for it."""
        if any((known.scope, known.tag, known.seq) == (spread.scope, spread.tag, spread.seq) for known in self._held):
            return []
        self._held = [*self._held, spread]
        early, self._held = self._held[:-MAX_SPREADS], self._held[-MAX_SPREADS:]
        return early

    def cover(self, reach: Iterable[Scope], tags: tuple[str, ...], seq: int) -> Spread | None:
        """The order that ends first of those that reach an entry."""
        scopes = set(reach)
        found = [one for one in self._held if seq < one.seq and one.tag in tags and one.scope in scopes]
        return min(found, key=lambda one: one.ends, default=None)

    def over(self, now: float) -> list[Spread]:
        """Let go of those whose time is over."""
        ended = [one for one in self._held if one.ends <= now]
        if ended:
            self._held = [one for one in self._held if one.ends > now]
        return ended

    def clear(self) -> None:
        """Forget all."""
        self._held = []

"""What a tier holds: `Entry` in memory, kept lean because there are millions, and `Record`, a stored value unpacked."""

from enum import IntEnum
from typing import Any

import msgspec

from genesis_cache.model.keys import Address


class CachePriority(IntEnum):
    """How much an entry deserves the nearest tier."""

    LOW = 0
    """Skips memory until it is asked for again."""
    NORMAL = 1
    HIGH = 2
    """Kept in memory before NORMAL."""
    CRITICAL = 3
    """Stays in memory while anything else can go."""


class Extra(msgspec.Struct, gc=False, kw_only=True):
    """What only some entries have; an entry without any of it has no `Extra` at all. Times are monotonic seconds."""

    tags: tuple[str, ...] = ()
    priority: CachePriority = CachePriority.NORMAL
    swr_until: float = 0.0
    """Until when it may be served while a new one is fetched (stale-while-revalidate)."""
    sie_until: float = 0.0
    """Until when it may be served when the loader fails (stale-if-error)."""
    refresh_at: float = float("inf")
    """From when a hit starts a background refresh."""
    born: float = 0.0
    """When the value was made; set where it cannot be told from ``until`` and ``ttl``."""
    version: int | None = None
    etag: str | None = None
    last_modified: float | None = None
    cost: float = 0.0
    """Seconds its load took."""
    content_type: str | None = None
    isolate: bool = False
    sensitive: bool = False
    tiers: frozenset[str] | None = None


class Entry(msgspec.Struct, gc=False):
    """One value in memory.

    Never tracked by the garbage collector, so that a million entries cost it nothing; therefore an entry must not
    refer back to the tables that hold it. ``key`` is the key, or ``(owner, key)`` for an owned entry.
    """

    key: str | tuple[str, str]
    value: object
    quick_until: float
    """Monotonic seconds until which a hit needs no judgement: fresh, shared, no refresh due. 0.0: always judge."""
    until: float
    """Monotonic seconds at which freshness ends; infinity for no expiry."""
    ttl: float | None
    """Seconds of freshness it was given."""
    epoch: object
    """The floors' epoch at which it was last found alive."""
    seq: int
    """The log's sequence read before its value was made; an invalidation with a higher one kills it."""
    space: int
    """Number of the namespace's table in the memory tier."""
    weight: int = 1
    """Size in units of 16 bytes, key and overhead included."""
    mark: bool = False
    """Set by a hit, cleared by the eviction policy."""
    home: int = 0
    """Which segment of the eviction policy holds it; 0: none."""
    extra: Extra | None = None

    def __repr__(self) -> str:
        return _shown(self)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return _fields(self, is_sensitive=self.extra is not None and self.extra.sensitive)


class Record(msgspec.Struct, gc=False):
    """A value with everything the stored form says about it. Times are wall seconds since 1970."""

    address: Address
    value: object
    created: float
    ttl: float | None
    """Seconds of freshness from ``created``; None: for ever."""
    seq: int = 0
    """The log's sequence read before the load."""
    epoch: int = 0
    """Identity (unsigned 64 bits) of the log that ``seq`` counts in; 0 where there is none."""
    tags: tuple[str, ...] = ()
    priority: CachePriority = CachePriority.NORMAL
    swr: float = 0.0
    """Seconds after ``ttl`` in which it may be served while being refetched."""
    sie: float = 0.0
    """Seconds after ``ttl`` in which it may be served when the loader fails."""
    refresh_ahead: float | None = None
    version: int | None = None
    etag: str | None = None
    last_modified: float | None = None
    cost: float = 0.0
    content_type: str | None = None
    isolate: bool = False
    tiers: frozenset[str] | None = None
    sensitive: bool = False
    """Sealed wherever it leaves memory; memory only where there is no key to seal it with."""

    @property
    def fresh_until(self) -> float:
        """Wall seconds at which freshness ends; infinity for no expiry."""
        return float("inf") if self.ttl is None else self.created + self.ttl

    @property
    def gone_at(self) -> float:
        """Wall seconds after which no rule can serve it and every tier may drop it."""
        return self.fresh_until + max(self.swr, self.sie)

    def __repr__(self) -> str:
        return _shown(self)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return _fields(self, is_sensitive=self.sensitive)


class _Hidden:
    """Stands in what is shown for a value that must not be."""

    def __repr__(self) -> str:
        return "<sensitive>"


_HIDDEN = _Hidden()


def _fields(holder: Entry | Record, *, is_sensitive: bool) -> list[tuple[str, Any]]:
    return [
        (name, _HIDDEN if is_sensitive and name == "value" else getattr(holder, name))
        for name in holder.__struct_fields__
    ]


def _shown(holder: Entry | Record) -> str:
    return f"{type(holder).__name__}({', '.join(f'{name}={what!r}' for name, what in holder.__rich_repr__())})"

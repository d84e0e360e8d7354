"""What a far tier is: `Store` (synchronous, one machine) and `Tier` (what the engine talks to).

A far tier owns three things together, because one change must move all three: the stored envelopes, the invalidation
log that other processes read, and the leases that let one process load a key for all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from genesis_cache.model.finding import Finding
from genesis_cache.model.keys import Address
from genesis_cache.model.notice import Kind, Notice, Position

__all__ = [
    "Answer",
    "Buffer",
    "Change",
    "Drop",
    "Found",
    "Keeper",
    "Kept",
    "Kill",
    "Kind",
    "Late",
    "Notice",
    "Position",
    "Put",
    "Receipt",
    "Remove",
    "Store",
    "StoreError",
    "StoreStats",
    "Tier",
]

Buffer = bytes | memoryview


class StoreError(Exception):
    """A store could not do what was asked (full, read-only, broken, locked); the tier degrades, callers go on."""


class Put(msgspec.Struct, frozen=True, gc=False):
    """Store an envelope.

    With ``since`` (a fill: the sequence read before the load) it is refused if its key was changed or killed after
    that sequence. Without (a set) it is a change of its own: it takes a sequence, kills fills that began before, and is
    told to other processes by a KEY notice. With ``version`` it is refused if a higher version is stored.
    """

    address: Address
    envelope: bytes
    gone_at: float
    """Wall seconds after which it may be dropped; infinity for never."""
    since: int | None = None
    version: int | None = None
    priority: int = 1
    is_copy: bool = False
    """Whether the value was made long before ``since``: it comes from another tier."""


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Delete one entry, kill fills of it that began before, and tell other processes by a KEY notice."""

    address: Address


class Kill(msgspec.Struct, frozen=True, gc=False):
    """Append a notice: no scan, no entry is touched. TAG, PATTERN and CLEAR leave a floor, KEY is only told."""

    notice: Notice


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Give back the space of entries found dead or not wanted here; no sequence, no notice."""

    address: Address


Change = Put | Remove | Kill | Drop


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What became of one change: its sequence (0 for a fill or a drop), and whether a Put was refused as outdated."""

    seq: int = 0
    refused: bool = False


class StoreStats(msgspec.Struct, gc=False, kw_only=True):
    """A store's figures, all counted and none estimated."""

    entries: int = 0
    size_bytes: int = 0
    """Bytes of its files, or of its rows for a database."""
    capacity_bytes: int | None = None
    evictions: dict[str, int] = {}
    """By reason: ``size``, ``ttl``, ``damaged``."""
    damaged: int = 0
    """Records or files found damaged and left out since the store was made."""
    rebuilt: int = 0
    """How often the whole store was thrown away because its books could not be trusted."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """One stored envelope met by a scan, and whether it was read since it was written."""

    envelope: bytes
    used: bool


class Store(Protocol):
    """A synchronous embedded store, shared by the processes of one host; safe from any thread.

    Every method may raise `StoreError`. `get`, `size` and `position` are cheap enough for the event loop; the rest is
    called from a worker thread, except `commit` of one small change, for which `try_commit` exists.
    """

    def open(self) -> None:
        """Make or open it; what was damaged while closed is found here or can never be served."""

    def close(self) -> None:
        """Let go of everything; safe to call twice. A forked child may call `open` on the same object again."""

    def get(self, address: Address) -> Buffer | None:
        """The envelope, checked against its checksum at least on its first read in this process, or None.

        None too past its ``gone_at``: who reads does not look at the clock again.
        """

    def size(self, address: Address) -> int | None:
        """Bytes of the envelope that `get` would return, without reading it; None if there is none."""

    def commit(self, changes: Sequence[Change]) -> list[Receipt]:
        """Apply a batch under one lock, in order, all or nothing visible per change; survives ``kill -9`` anywhere."""

    def try_commit(self, changes: Sequence[Change]) -> list[Receipt] | None:
        """As `commit` for a small batch if no other process or thread holds the lock at this moment, else None."""

    def position(self) -> Position:
        """The log's end. Cheap: a memory read or one query."""

    def notices(self, after: Position) -> list[Notice] | None:
        """Notices after a position in order; None where the log no longer reaches back so far (then forget all)."""

    def floors(self) -> list[Notice]:
        """The TAG, PATTERN and CLEAR notices that may still matter to an entry, for a process that just opened."""

    def lease(self, address: Address) -> bool:
        """Try to become the one process that loads this key; lost by itself if the process dies. Never waits."""

    def release(self, address: Address) -> None:
        """Give a lease back."""

    def sweep(self, budget_s: float) -> int:
        """Remove expired entries for at most so many seconds; how many went. Continues where the last call ended."""

    def scan(self) -> Iterator[Found]:
        """Every living envelope once, in no order; entries that come or go meanwhile may or may not be met."""

    def stats(self) -> StoreStats:
        """The figures as they stand."""

    def check(self) -> list[str]:
        """Verify its own books (bytes, entries, index against data); a sentence for each fault, none if sound."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A stored value, with what the books of its own tier say against it at the moment of reading."""

    envelope: Buffer
    kills: list[Notice]
    """TAG, PATTERN and CLEAR notices that are younger than the value, whether or not they name it."""


class Late(msgspec.Struct, frozen=True, gc=False):
    """The answer of a far tier that has not come within its budget: the reader goes on, the reply is still taken in."""

    rest: "asyncio.Future[Buffer | None]"
    """Done when the reply is there, or when it is given up (then None)."""


Answer = Buffer | Late | None


class Tier(Protocol):
    """A far tier as the engine sees it. No method raises for a dead tier: it answers "not here" or "owed"."""

    kind: str
    """``disk``, ``redis`` or ``database``."""
    is_shared: bool
    """Whether other hosts may use it too, so that its log reaches further than that of an embedded store."""
    keeps_budget: bool
    """Whether `get` ends by itself, with `Late`, where the far budget is over."""
    on_down: Callable[[str], object]
    """Called with a reason when the tier goes out of use."""
    on_up: Callable[[], object]
    """Called when it is in use again."""
    on_news: Callable[[], object]
    """Called, on any thread, when the log has something new; never called by a tier whose log is cheap to look at."""

    async def open(self) -> None:
        """Connect or make what is needed; a tier that cannot is down, with a reason, and tries again later."""

    async def close(self) -> None:
        """Write what is queued, then let go of everything."""

    def get(self, address: Address) -> Buffer | None | Awaitable[Answer]:
        """The checked envelope, None, or an awaitable of these where it cannot be told without waiting."""

    async def get_many(self, addresses: Sequence[Address]) -> Sequence[Answer]:
        """Envelopes in the order asked."""

    def commit(self, changes: Sequence[Change]) -> Awaitable[list[Receipt] | None]:
        """Queue changes for this loop tick's batch; the receipts, or None where the tier is down and they are owed."""

    def take_over(self, changes: Sequence[Change]) -> None:
        """Write these whatever becomes of the caller's event loop, which ends; nobody hears what came of it."""

    def commit_now(self, changes: Sequence[Change]) -> list[Receipt] | None:
        """Apply one small change without waiting if that is possible at this moment, else None."""

    def position(self) -> Position | None:
        """The log's end as this process can see it now; None while it cannot."""

    @property
    def heard_at(self) -> float | None:
        """For a tier that follows its log: when the question was asked whose answer proved that nothing was missed.

        Monotonic seconds of the cache's clock; None before the first, and for a tier whose log is looked at directly.
        """

    def seq(self) -> int:
        """The highest sequence that its log is known to have given, heard or by a receipt; 0 while none is known."""

    def notices(self, after: Position) -> list[Notice] | None:
        """As `Store.notices`."""

    def floors(self) -> list[Notice]:
        """As `Store.floors`."""

    def lease(self, address: Address) -> bool | Awaitable[bool]:
        """As `Store.lease`; True while the tier is down, so that a load is never held up."""

    def release(self, address: Address) -> None:
        """As `Store.release`."""

    async def sweep(self, budget_s: float) -> int:
        """As `Store.sweep`."""

    async def scan(self, limit: int) -> list[Found]:
        """Up to ``limit`` living envelopes."""

    def stats(self) -> StoreStats:
        """The figures as last known."""

    @property
    def down(self) -> str | None:
        """Why the tier is out of use, in a sentence; None while it works."""

    def check(self) -> list[str]:
        """As `Store.check`; of a tier behind a server only what this process keeps."""

    async def diagnose(self) -> list[Finding]:
        """What an operator should know of it; never raises: a tier that cannot be asked is a finding too."""


@runtime_checkable
class Keeper(Protocol):
    """A tier whose own books say which of its values are dead, whatever becomes of the log that counts."""

    async def kept(self, address: Address) -> Kept | None:
        """A value with what is said against it; None where there is none, or its tier cannot tell within its budget."""

"""Tracing: each call to a tier behind a server, wrapped in what a tracer wants to see. Nothing where nobody asks."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from genesis_cache.engine.core import Core
from genesis_cache.model.keys import Address
from genesis_cache.tiers.base import Answer, Buffer, Change, Receipt, Tier

Span = Callable[[str, str, str, int], AbstractContextManager[object]]
"""Given the layer, the tier's kind, the operation (``get``, ``get_many``, ``commit``) and how many items: a span."""


def trace(core: Core, span: Span) -> Callable[[], None]:
    """Open a span around every call to a tier behind a server; returns its own undoing."""
    traced = []
    for lane in core.lanes:
        if lane.tier.is_shared:
            before = lane.tier
            lane.through(TracedTier(before, lane.label, span))
            traced.append((lane, before))

    def undo() -> None:
        for lane, before in traced:
            lane.through(before)

    return undo


class TracedTier:
    """A tier whose calls to its server are seen; in everything else it is that tier."""

    __slots__ = ("_label", "_span", "_tier")

    def __init__(self, tier: Tier, label: str, span: Span) -> None:
        object.__setattr__(self, "_tier", tier)
        object.__setattr__(self, "_label", label)
        object.__setattr__(self, "_span", span)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tier, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._tier, name, value)

    def get(self, address: Address) -> Buffer | None | Awaitable[Answer]:
        """As `Tier.get`; what is answered at once is no call."""
        answer = self._tier.get(address)
        return answer if answer is None or isinstance(answer, bytes | memoryview) else self._seen("get", 1, answer)

    async def get_many(self, addresses: Sequence[Address]) -> Sequence[Answer]:
        """As `Tier.get_many`."""
        with self._span(self._label, self._tier.kind, "get_many", len(addresses)):
            found: Sequence[Answer] = await self._tier.get_many(addresses)
            return found

    def commit(self, changes: Sequence[Change]) -> Awaitable[list[Receipt] | None]:
        """As `Tier.commit`; the changes are queued before anybody awaits."""
        return self._seen("commit", len(changes), self._tier.commit(changes))

    def _seen(self, operation: str, items: int, answer: Awaitable[Any]) -> "_Seen":
        return _Seen(answer, lambda: self._span(self._label, self._tier.kind, operation, items))


class _Seen:
    """An answer that opens a span when it is awaited for the first time; it may be awaited again, or never."""

    __slots__ = ("_answer", "_span")

    def __init__(self, answer: Awaitable[Any], span: Callable[[], AbstractContextManager[object]]) -> None:
        self._answer = answer
        self._span: Callable[[], AbstractContextManager[object]] | None = span

    def __await__(self) -> Generator[Any, None, Any]:
        span, self._span = self._span, None
        if span is None:
            return (yield from self._answer.__await__())
        with span():
            return (yield from self._answer.__await__())

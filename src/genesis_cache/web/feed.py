"""The feed: figures as server-sent events, one snapshot a second shared by all who watch (WHATWG HTML, 9.2)."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import msgspec
from fastapi import HTTPException

from genesis_cache.cache import Cache
from genesis_cache.web.efficiency import efficiency

EVERY_S = 1.0
MOST_WATCHERS = 32
WATCH_S = 300.0  # then the stream ends, and whoever still watches comes back: a server that stops waits no longer
RETRY_MS = 1000


class Feed:
    """Gives out snapshots; refuses the 33rd watcher."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._snapshot = b""
        self._made_at = -EVERY_S
        self._number = 0
        self._is_stopped = False
        self.watchers = 0

    def admit(self) -> None:
        """Raise 503 where there are too many watchers."""
        if self.watchers >= MOST_WATCHERS:
            raise HTTPException(
                503, f"{MOST_WATCHERS} clients watch already: close one of them", headers={"Retry-After": "5"}
            )

    async def events(self) -> AsyncIterator[bytes]:
        """The stream of one watcher, ended by its going, by `stop`, or by time."""
        if self.watchers >= MOST_WATCHERS:  # others came between `admit` and here
            return
        self.watchers += 1
        end = monotonic() + WATCH_S
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            while monotonic() < end and not self._is_stopped:
                yield await self._event()
                await asyncio.sleep(EVERY_S)
        finally:
            self.watchers -= 1

    def start(self) -> None:
        """Let streams go on, after a `stop`."""
        self._is_stopped = False

    def stop(self) -> None:
        """End every stream within a second, because the server is about to stop."""
        self._is_stopped = True

    async def _event(self) -> bytes:
        now = monotonic()
        if now - self._made_at >= EVERY_S * 0.9:
            self._number += 1
            figures = self._cache.analytics()
            document = {**figures, "efficiency": efficiency(figures), "health": (await self._cache.health()).to_dict()}
            self._snapshot = b"event: analytics\nid: %d\ndata: %s\n\n" % (self._number, msgspec.json.encode(document))
            self._made_at = now
        return self._snapshot

"""The feed: figures as server-sent events, one snapshot a second shared by all who watch (WHATWG HTML, 9.2)."""

import asyncio
import os
from collections.abc import AsyncIterator
from time import monotonic

import msgspec
from fastapi import HTTPException

from genesis_cache import __version__
from genesis_cache.cache import Cache
from genesis_cache.web.efficiency import efficiency
from genesis_cache.web.history import History

EVERY_S = 1.0
MOST_WATCHERS = 32
WATCH_S = 300.0  # then the stream ends, and whoever still watches comes back: a server that stops waits no longer
RETRY_MS = 1000


class Feed:
    """Gives out snapshots, and the points of the last quarter of an hour; refuses the 33rd watcher."""

    def __init__(self, cache: Cache, *, is_controlled: bool = False) -> None:
        self._cache = cache
        self._is_controlled = is_controlled
        self._history = History(cache)
        self._began_at = monotonic()
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
        seen = 0
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            while monotonic() < end and not self._is_stopped:
                snapshot = await self._event()
                self._history.take()
                points, seen = self._history.since(seen), self._history.number
                yield snapshot + b"event: points\ndata: %s\n\n" % msgspec.json.encode(points)
                await asyncio.sleep(EVERY_S)
        finally:
            self.watchers -= 1

    def start(self) -> None:
        """Take a point every second, whoever watches, and let streams go on after a `stop`."""
        self._is_stopped = False
        self._history.start()

    def stop(self) -> None:
        """End every stream within a second, because the server is about to stop."""
        self._is_stopped = True
        self._history.stop()

    async def _event(self) -> bytes:
        now = monotonic()
        if now - self._made_at >= EVERY_S * 0.9:
            self._number += 1
            figures = self._cache.analytics()
            document = {
                **figures,
                "efficiency": efficiency(figures),
                "health": (await self._cache.health()).to_dict(),
                "process": self._process(),
            }
            self._snapshot = b"event: analytics\nid: %d\ndata: %s\n\n" % (self._number, msgspec.json.encode(document))
            self._made_at = now
        return self._snapshot

    def _process(self) -> dict[str, object]:
        """Which process these figures are of, and whether it can be controlled."""
        return {
            "pid": os.getpid(),
            "version": __version__,
            "seconds": round(monotonic() - self._began_at, 1),
            "control": self._is_controlled,
        }

"""The feed: figures as server-sent events, one snapshot a second shared by all who watch (WHATWG HTML, 9.2)."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from time import monotonic

import msgspec
from fastapi import HTTPException

from genesis_cache import __version__
from genesis_cache.cache import Cache
from genesis_cache.web.efficiency import efficiency
from genesis_cache.web.history import History
from genesis_cache.web.public import public

EVERY_S = 1.0
MOST_WATCHERS = 32
WATCH_S = 15.0  # then the stream ends, and whoever still watches comes back: a server that stops waits no longer
RETRY_MS = 500
MOST_DIGITS = 15  # of a point's number


class Feed:
    """Gives out snapshots, and the points of the last quarter of an hour; refuses the 33rd watcher."""

    def __init__(self, cache: Cache, *, is_controlled: bool = False) -> None:
        self._cache = cache
        self._is_controlled = is_controlled
        self._history = History(cache)
        self._began_at = monotonic()
        self._name = secrets.token_hex(4)  # of these points, to know them from those of another process
        self._snapshot = b""
        self._made_at = -EVERY_S
        self._is_stopped = False
        self.watchers = 0

    def admit(self) -> None:
        """Raise 503 where there are too many watchers."""
        if self.watchers >= MOST_WATCHERS:
            raise HTTPException(
                503, f"{MOST_WATCHERS} clients watch already: close one of them", headers={"Retry-After": "5"}
            )

    async def events(self, last_id: str = "") -> AsyncIterator[bytes]:
        """The stream of one watcher, ended by its going, by `stop`, or by time.

        ``last_id`` is the id of the last event that it has seen: it is sent the points since then, else all of them.
        """
        if self.watchers >= MOST_WATCHERS:  # others came between `admit` and here
            return
        self.watchers += 1
        end = monotonic() + WATCH_S
        seen = self._number_in(last_id)
        kind = b"points" if seen else b"history"
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            while monotonic() < end and not self._is_stopped:
                snapshot = await self._event()
                self._history.take()
                points, seen = self._history.since(seen), self._history.number
                name = f"{self._name}-{seen}".encode()
                yield snapshot + b"event: %s\nid: %s\ndata: %s\n\n" % (kind, name, msgspec.json.encode(points))
                kind = b"points"
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
            figures = self._cache.analytics()
            document = {
                **figures,
                "efficiency": efficiency(figures),
                "health": (await self._cache.health()).to_dict(),
                "process": self._process(),
            }
            self._snapshot = b"event: analytics\ndata: %s\n\n" % msgspec.json.encode(public(document))
            self._made_at = now
        return self._snapshot

    def _number_in(self, last_id: str) -> int:
        """The number of the point that a watcher has seen last; 0 where its points were not ours."""
        name, _, number = last_id.partition("-")
        is_ours = name == self._name and number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS
        return min(int(number), self._history.number) if is_ours else 0

    def _process(self) -> dict[str, object]:
        """Which process these figures are of, and whether it can be controlled."""
        return {
            "pid": os.getpid(),
            "version": __version__,
            "seconds": round(monotonic() - self._began_at, 1),
            "control": self._is_controlled,
        }

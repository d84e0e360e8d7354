"""The same cache for code without an event loop: a hit stays on the calling thread, all else goes to one loop behind.

There is no second engine: `BlockingCache` runs the verbs of `Cache` on an event loop in a thread of its own, so that
threads, loops and plain code share one load per key and one set of tiers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from genesis_cache.engine.committing import BlockingChanges
from genesis_cache.model.missing import MISSING

if TYPE_CHECKING:
    from genesis_cache.cache import Cache
    from genesis_cache.engine.core import View
    from genesis_cache.engine.engine import Engine
    from genesis_cache.model.finding import Finding
    from genesis_cache.model.measures import Measures
    from genesis_cache.model.outcome import Explanation, Health, Inspection, OptimizationReport, Outcome


class BlockingCache:
    """The verbs of `Cache` as plain calls; meaning, options and errors are the same."""

    __slots__ = ("_cache", "_engine", "_portal", "_view")

    def __init__(self, cache: Cache, engine: Engine, view: View) -> None:
        self._cache = cache
        self._engine = engine
        self._portal = engine.portal
        self._view = view

    def open(self) -> None:
        """See `Cache.open`."""
        self._portal.run(self._cache.open())

    def close(self) -> None:
        """See `Cache.close`."""
        self._portal.run(self._cache.close())
        self._portal.stop()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: str, default: Any = None, *, allow_stale: bool = False) -> Any:
        """See `Cache.get`."""
        value = self._cache.peek(key, MISSING)
        if value is not MISSING:
            return value
        return self._portal.run(self._cache.get(key, default, allow_stale=allow_stale))

    def _quick(self, key: str) -> tuple[bool, Any]:
        return self._engine.reading.quick(self._view, key) if type(key) is str else (False, None)

    def peek(self, key: str, default: Any = None) -> Any:
        """See `Cache.peek`."""
        return self._cache.peek(key, default)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """See `Cache.get_many`."""
        return self._portal.run(self._cache.get_many(keys))

    def get_or_set(self, key: str, loader: Callable[..., Any], **options: Any) -> Any:
        """See `Cache.get_or_set`."""
        found, value = (False, None) if "owner" in options else self._quick(key)
        return value if found else self._portal.run(self._cache.get_or_set(key, loader, **options))

    def refresh(self, key: str, loader: Callable[..., Any], **options: Any) -> Any:
        """See `Cache.refresh`."""
        return self._portal.run(self._cache.refresh(key, loader, **options))

    def stream(self, key: str, source: Callable[..., Any], **options: Any) -> Iterator[Any]:
        """See `Cache.stream`; the source is async here too, and runs on the cache's own event loop."""
        return self._iterate(self._cache.stream(key, source, **options))

    def _iterate(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while (item := self._portal.run(_next(items))) is not MISSING:
                yield item
        finally:
            if not self._engine.core.closed:
                self._portal.run(items.aclose())

    def get_or_set_many(self, keys: Iterable[str], loader: Callable[..., Any], **options: Any) -> dict[str, Any]:
        """See `Cache.get_or_set_many`."""
        return self._portal.run(self._cache.get_or_set_many(keys, loader, **options))

    def set(self, key: str, value: Any, **options: Any) -> Outcome:
        """See `Cache.set`."""
        return self._portal.run(self._cache.set(key, value, **options))

    def set_many(self, items: Mapping[str, Any], **options: Any) -> Outcome:
        """See `Cache.set_many`."""
        return self._portal.run(self._cache.set_many(items, **options))

    def delete(self, *keys: str) -> Outcome:
        """See `Cache.delete`."""
        return self._portal.run(self._cache.delete(*keys))

    def expire(self, *keys: str) -> Outcome:
        """See `Cache.expire`."""
        return self._portal.run(self._cache.expire(*keys))

    def touch(self, key: str, ttl: Any) -> bool:
        """See `Cache.touch`."""
        return self._portal.run(self._cache.touch(key, ttl))

    def delete_by_tag(self, *tags: str, spread: Any = None) -> Outcome:
        """See `Cache.delete_by_tag`."""
        return self._portal.run(self._cache.delete_by_tag(*tags, spread=spread))

    def delete_by_pattern(self, pattern: str) -> Outcome:
        """See `Cache.delete_by_pattern`."""
        return self._portal.run(self._cache.delete_by_pattern(pattern))

    def clear(self, namespace: str | None = None, *, tier: str | None = None) -> Outcome:
        """See `Cache.clear`."""
        return self._portal.run(self._cache.clear(namespace, tier=tier))

    def after_commit(self, *, doubt: Iterable[type[BaseException]] = ()) -> BlockingChanges:
        """See `Cache.after_commit`; a plain ``with``."""
        return BlockingChanges(self._engine, self._view, doubt)

    def namespace(self, name: str, **defaults: Any) -> BlockingCache:
        """See `Cache.namespace`."""
        return self._cache.namespace(name, **defaults).blocking()

    def owned_by(self, owner: str) -> BlockingCache:
        """See `Cache.owned_by`."""
        return self._cache.owned_by(owner).blocking()

    def cached(self, *args: Any, **options: Any) -> Any:
        """See `Cache.cached`; plain functions stay plain."""
        return self._cache.cached(*args, **options)

    def explain(self, key: str) -> Explanation:
        """See `Cache.explain`."""
        return self._portal.run(self._cache.explain(key))

    def inspect(self, key: str) -> Inspection:
        """See `Cache.inspect`."""
        return self._portal.run(self._cache.inspect(key))

    def count(
        self, *, keys: Iterable[str] | None = None, tags: Iterable[str] | None = None, pattern: str | None = None
    ) -> int | None:
        """See `Cache.count`."""
        return self._portal.run(self._cache.count(keys=keys, tags=tags, pattern=pattern))

    def health(self) -> Health:
        """See `Cache.health`."""
        return self._portal.run(self._cache.health())

    def measures(self) -> Measures:
        """See `Cache.measures`."""
        return self._cache.measures()

    def on(self, event: str, callback: Callable[..., Any]) -> Callable[[], None]:
        """See `Cache.on`."""
        return self._cache.on(event, callback)

    def analytics(self) -> dict[str, Any]:
        """See `Cache.analytics`."""
        return self._cache.analytics()

    def optimize_cache_distribution(self, *, dry_run: bool = False) -> OptimizationReport:
        """See `Cache.optimize_cache_distribution`."""
        return self._portal.run(self._cache.optimize_cache_distribution(dry_run=dry_run))

    def diagnose(self) -> list[Finding]:
        """See `Cache.diagnose`."""
        return self._portal.run(self._cache.diagnose())


async def _next(items: AsyncGenerator[Any, None]) -> Any:
    return await anext(items, MISSING)

"""The process-wide cache behind plain functions: one `Cache`, made from the environment when it is first used."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from genesis_cache.cache import Cache
from genesis_cache.model.entry import CachePriority
from genesis_cache.model.missing import UNSET
from genesis_cache.model.outcome import Outcome

__all__ = [
    "CachePriority",
    "advanced_cache_manager",
    "get_cache_analytics",
    "get_cached_value",
    "set_cached_value",
]


class DefaultCache:
    """Stands for the process-wide `Cache`; everything of it is here under its own name."""

    def __init__(self) -> None:
        self._cache: Cache | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)

    @property
    def cache(self) -> Cache:
        """The cache itself; SettingsError where the environment is wrong."""
        if self._cache is None:
            with self._lock:
                if self._cache is None:
                    self._cache = Cache()
        return self._cache

    def use(self, cache: Cache | None) -> None:
        """Put another cache in its place; None: the next use makes one from the environment again."""
        with self._lock:
            self._cache = cache


advanced_cache_manager = DefaultCache()


async def get_cached_value(key: str, default: Any = None) -> Any:
    """The fresh value of a key, or the default."""
    return await advanced_cache_manager.cache.get(key, default)


async def set_cached_value(
    key: str,
    value: Any,
    ttl: Any = UNSET,
    priority: CachePriority = CachePriority.NORMAL,
    tags: Iterable[str] = (),
) -> Outcome:
    """Store a value in every tier. ``ttl`` as everywhere: seconds, "5m", None for ever; not given: the default."""
    options = {} if ttl is UNSET else {"ttl": ttl}
    return await advanced_cache_manager.cache.set(key, value, priority=priority, tags=tags, **options)


async def get_cache_analytics() -> dict[str, Any]:
    """The figures of the process-wide cache, ready for JSON."""
    return advanced_cache_manager.cache.analytics()

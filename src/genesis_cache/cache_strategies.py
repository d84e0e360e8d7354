"""Four ways to use the process-wide cache, each a handful of lines over the door: they differ in options only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from genesis_cache.advanced_cache_manager import advanced_cache_manager
from genesis_cache.cache import Cache
from genesis_cache.decorate import Decorator
from genesis_cache.model.missing import MISSING, UNSET
from genesis_cache.model.outcome import Outcome

__all__ = ["cached", "personalized_cache", "standard_cache", "swr_cache", "tagged_cache"]


def cached(ttl: Any = UNSET, key_prefix: str | None = None, **options: Any) -> Decorator:
    """Cache a function's results by its arguments; see `Cache.cached`."""
    given = options if ttl is UNSET else {"ttl": ttl, **options}
    return advanced_cache_manager.cache.cached(key_prefix=key_prefix, **given)


class StandardCache:
    """Values with a fixed ttl."""

    async def get(self, key: str, default: Any = None) -> Any:
        """The fresh value, or the default."""
        return await advanced_cache_manager.cache.get(key, default)

    async def set(self, key: str, value: Any, ttl: Any = UNSET, **options: Any) -> Outcome:
        """Store a value."""
        given = options if ttl is UNSET else {"ttl": ttl, **options}
        return await advanced_cache_manager.cache.set(key, value, **given)

    async def delete(self, *keys: str) -> Outcome:
        """Forget keys."""
        return await advanced_cache_manager.cache.delete(*keys)


class StaleWhileRevalidateCache:
    """Values that serve at once while a new one is fetched behind (RFC 5861)."""

    async def get(
        self, key: str, revalidate_func: Callable[..., Any], ttl: Any = 300, stale_ttl: Any = 3600, **options: Any
    ) -> Any:
        """The value: fresh for ``ttl`` seconds, then for ``stale_ttl`` more served while ``revalidate_func`` runs."""
        return await advanced_cache_manager.cache.get_or_set(
            key, revalidate_func, ttl=ttl, stale_while_revalidate=stale_ttl, **options
        )


class TaggedCache(StandardCache):
    """Values in groups that are forgotten together."""

    async def set(self, key: str, value: Any, ttl: Any = UNSET, tags: Iterable[str] = (), **options: Any) -> Outcome:
        """Store a value under tags."""
        return await super().set(key, value, ttl=ttl, tags=tags, **options)

    async def delete_by_tag(self, *tags: str) -> Outcome:
        """Forget everything under one of the tags."""
        return await advanced_cache_manager.cache.delete_by_tag(*tags)


class PersonalizedCache:
    """Values of one user or of one segment; nobody is ever handed another user's."""

    async def set(
        self,
        key: str,
        value: Any,
        ttl: Any = UNSET,
        *,
        user_id: str | int | None = None,
        segment: str | None = None,
        **options: Any,
    ) -> Outcome:
        """Store a value for a user, or for a segment; TypeError unless exactly one is named."""
        owners = _owners(user_id, segment)
        if len(owners) != 1:
            msg = "set() stores for a user_id or for a segment: name one of them"
            raise TypeError(msg)
        given = options if ttl is UNSET else {"ttl": ttl, **options}
        return await owners[0].set(key, value, **given)

    async def get(
        self, key: str, default: Any = None, *, user_id: str | int | None = None, segment: str | None = None
    ) -> Any:
        """The user's value, then the segment's, else the default."""
        for owner in _owners(user_id, segment):
            value = await owner.get(key, MISSING)
            if value is not MISSING:
                return value
        return default

    async def delete_user_cache(self, user_id: str | int) -> Outcome:
        """Forget everything of a user, at logout for instance."""
        return await _owners(user_id, None)[0].clear()


def _owners(user_id: str | int | None, segment: str | None) -> list[Cache]:
    if (user_id is None and segment is None) or "" in (user_id, segment):
        msg = 'a personalized call needs a user_id or a segment (not ""), so that no value reaches the wrong person'
        raise TypeError(msg)
    if user_id == "" or segment == "":
        msg = "an empty user_id or segment names nobody, so its values would be shared by all who have none"
        raise TypeError(msg)
    cache = advanced_cache_manager.cache
    names = [] if user_id is None else [f"user:{user_id}"]
    names += [] if segment is None else [f"segment:{segment}"]
    return [cache.owned_by(name) for name in names]


standard_cache = StandardCache()
swr_cache = StaleWhileRevalidateCache()
tagged_cache = TaggedCache()
personalized_cache = PersonalizedCache()

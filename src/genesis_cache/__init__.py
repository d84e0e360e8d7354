"""One cache over memory, disk, Redis and a database: one load per key, and invalidation that wins.

The public names are loaded when they are first asked for, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genesis_cache.advanced_cache_manager import (
        CachePriority,
        get_cache_analytics,
        get_cached_value,
        set_cached_value,
    )
    from genesis_cache.blocking import BlockingCache
    from genesis_cache.cache import Cache
    from genesis_cache.cache_strategies import cached, personalized_cache, standard_cache, swr_cache, tagged_cache
    from genesis_cache.engine.loading import LoadContext
    from genesis_cache.model.clock import Clock, SystemClock
    from genesis_cache.model.errors import (
        CacheClosed,
        CacheError,
        InvalidKey,
        LoaderTimeout,
        SecurityError,
        SerializationError,
        SettingsError,
    )
    from genesis_cache.model.missing import MISSING
    from genesis_cache.model.options import EntryOptions
    from genesis_cache.model.outcome import Explanation, OptimizationReport, Outcome
    from genesis_cache.model.settings import TTL_DYNAMIC, TTL_PERSONAL, TTL_STATIC, CacheSettings

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "TTL_DYNAMIC",
    "TTL_PERSONAL",
    "TTL_STATIC",
    "BlockingCache",
    "Cache",
    "CacheClosed",
    "CacheError",
    "CachePriority",
    "CacheSettings",
    "Clock",
    "EntryOptions",
    "Explanation",
    "InvalidKey",
    "LoadContext",
    "LoaderTimeout",
    "OptimizationReport",
    "Outcome",
    "SecurityError",
    "SerializationError",
    "SettingsError",
    "SystemClock",
    "cached",
    "get_cache_analytics",
    "get_cached_value",
    "personalized_cache",
    "set_cached_value",
    "standard_cache",
    "swr_cache",
    "tagged_cache",
]

_HOMES = {
    "genesis_cache.advanced_cache_manager": (
        "CachePriority",
        "get_cache_analytics",
        "get_cached_value",
        "set_cached_value",
    ),
    "genesis_cache.blocking": ("BlockingCache",),
    "genesis_cache.cache": ("Cache",),
    "genesis_cache.cache_strategies": ("cached", "personalized_cache", "standard_cache", "swr_cache", "tagged_cache"),
    "genesis_cache.engine.loading": ("LoadContext",),
    "genesis_cache.model.clock": ("Clock", "SystemClock"),
    "genesis_cache.model.errors": (
        "CacheClosed",
        "CacheError",
        "InvalidKey",
        "LoaderTimeout",
        "SecurityError",
        "SerializationError",
        "SettingsError",
    ),
    "genesis_cache.model.missing": ("MISSING",),
    "genesis_cache.model.options": ("EntryOptions",),
    "genesis_cache.model.outcome": ("Explanation", "OptimizationReport", "Outcome"),
    "genesis_cache.model.settings": ("CacheSettings", "TTL_DYNAMIC", "TTL_PERSONAL", "TTL_STATIC"),
}


def __getattr__(name: str) -> object:
    """A public name, loaded now and kept (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

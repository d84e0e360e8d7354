"""One cache over memory, disk, Redis and a database: one load per key, and invalidation that wins."""

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

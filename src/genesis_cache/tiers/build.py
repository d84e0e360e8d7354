"""From settings to tiers: which are made, of what size, and where memory stands among them."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from genesis_cache.codecs.envelope import version_of
from genesis_cache.model.clock import Clock
from genesis_cache.model.errors import SettingsError
from genesis_cache.model.meter import LayerMeter
from genesis_cache.model.settings import BYTES_PER_MB, CacheSettings
from genesis_cache.model.urls import sqlite_path
from genesis_cache.tiers.base import Store, StoreError, Tier
from genesis_cache.tiers.embedded import StoreTier
from genesis_cache.tiers.memory import MemoryTier

FOLLOW_S = 0.25  # between two proofs that nothing of a server's log was missed; four of them fit in the staleness bound
LEASE_MARGIN_S = 10.0  # for a load that ends at its very deadline

Built = tuple[MemoryTier | None, list[Tier], int]


def build_tiers(settings: CacheSettings, clock: Clock) -> Built:
    """The memory tier if there is one, the far tiers in look-up order, and the position of memory from 0."""
    memory: MemoryTier | None = None
    far: list[Tier] = []
    near_position = 0
    for position, name in enumerate(settings.tier_names(), start=1):
        size = int(settings.capacity_mb(position, name) * BYTES_PER_MB)
        if name == "memory":
            near_position = position - 1
            memory = MemoryTier(size, settings.l1_cache_max_entries, settings.cache_eviction_policy, LayerMeter())
        elif name == "disk":
            far.append(disk_tier(Path(settings.cache_disk_path), size, clock))
        elif name == "redis":
            far.append(_remote_tier("redis", _engine("redis.store").redis_store, settings, size, clock))
        else:
            far.append(_database_tier(settings, size, clock))
    return memory, far, near_position


def split_tiers(tiers: Sequence[MemoryTier | Tier]) -> Built:
    """The same for tiers that the caller made; SettingsError for none, or for two of memory."""
    near = [n for n, tier in enumerate(tiers) if isinstance(tier, MemoryTier)]
    for tier in tiers:
        if not isinstance(tier, MemoryTier) and not all(hasattr(tier, verb) for verb in ("kind", "get", "commit")):
            raise SettingsError(f"tiers takes tiers, got {tier!r:.80}: name tiers by their URLs in Cache.from_url()")
    if not tiers or len(near) > 1:
        msg = f"tiers must name at least one tier and at most one of memory, got {len(tiers)} with {len(near)} such"
        raise SettingsError(msg)
    memory = tiers[near[0]] if near else None
    far = [tier for tier in tiers if not isinstance(tier, MemoryTier)]
    return memory if isinstance(memory, MemoryTier) else None, far, near[0] if near else 0


def disk_tier(path: Path, max_bytes: int, clock: Clock) -> Tier:
    """The disk tier of a folder: segments where the system has what they need, SQLite elsewhere."""
    try:
        if sys.platform != "win32":
            store: Store = _engine("segments.store").SegmentStore(path, max_bytes, clock, version_of)
        else:
            store = _engine("sqlite").SqliteStore(path / "cache.db", max_bytes, clock)
    except (StoreError, ValueError) as error:
        raise SettingsError(f"the disk tier in {str(path)!r} cannot be made: {error}") from None
    return StoreTier(store, kind="disk", capacity_bytes=max_bytes, clock=clock)


def _database_tier(settings: CacheSettings, max_bytes: int, clock: Clock) -> Tier:
    url = settings.database_url or ""
    if not url.startswith("sqlite:"):
        return _remote_tier("database", _engine("postgres.store").postgres_store, settings, max_bytes, clock)
    try:
        store: Store = _engine("sqlite").SqliteStore(
            Path(sqlite_path(url)), max_bytes, clock, evict="size", name=settings.cache_name
        )
    except ValueError as error:
        raise SettingsError(f"the database tier cannot be made: {error}") from None
    return StoreTier(store, kind="database", capacity_bytes=max_bytes, clock=clock)


def _remote_tier(kind: str, make: Any, settings: CacheSettings, max_bytes: int, clock: Clock) -> Tier:
    """The tier behind a server; nothing is connected yet, but a URL that cannot be right is a SettingsError."""
    stores = make(settings, max_bytes, clock)
    tier: Tier = _engine("remote").RemoteTier(
        stores,
        kind=kind,
        capacity_bytes=max_bytes,
        clock=clock,
        budget_s=settings.cache_far_budget_ms / 1000,
        timeout_s=settings.redis_socket_timeout,
        follow_s=min(FOLLOW_S, settings.cache_max_staleness / 4),
        longest_load_s=settings.cache_load_deadline + LEASE_MARGIN_S,
        max_connections=settings.redis_max_connections,
    )
    return tier


_EXTRAS = {"redis.store": (("redis", "hiredis"), "redis"), "postgres.store": (("asyncpg",), "postgres")}


def _engine(name: str) -> Any:
    """A store's module, loaded when a cache names its tier: a process pays for no engine that it does not use."""
    try:
        return import_module(f"genesis_cache.tiers.{name}")
    except ModuleNotFoundError as error:
        packages, extra = _EXTRAS.get(name, ((), ""))
        if error.name not in packages:
            raise
        raise SettingsError(f"this tier needs the package {error.name}: pip install 'genesis-cache[{extra}]'") from None

"""Settings: what is said once about a whole cache (`CacheSettings`), each value checked, none of the secrets shown."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, NoReturn, Self

from genesis_cache.model import allowed
from genesis_cache.model.allowed import EncryptionKey
from genesis_cache.model.environment import PRESETS, read_content_types, read_variables
from genesis_cache.model.errors import SettingsError
from genesis_cache.model.messages import LANGUAGES
from genesis_cache.model.missing import UNSET
from genesis_cache.model.urls import DATABASE_SCHEMES, REDIS_SCHEMES, check_url, masked, parse_tier_url

TTL_STATIC = 7200  # seconds: data that hardly changes
TTL_DYNAMIC = 300  # seconds: data that changes by the minute
TTL_PERSONAL = 3600  # seconds: data about one person

TIERS = ("memory", "disk", "redis", "database")
BYTES_PER_MB = 2**20


class ContentTypes(dict[str, float | None]):
    """Seconds of freshness by content type; it cannot change, and can be copied and sent to other processes."""

    def _fixed(self, *_: object, **__: object) -> NoReturn:
        msg = "content types are fixed: make other settings by with_overrides(content_types={...})"
        raise TypeError(msg)

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _fixed

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none because it can change
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type["ContentTypes"], tuple[dict[str, float | None]]]:
        return ContentTypes, (dict(self),)


CONTENT_TYPES: Final = ContentTypes(productos=3600.0, embeddings=86400.0, llm_responses=1800.0, search_results=600.0)


class ReadStrategy(StrEnum):
    """Who loads what is missing."""

    READ_THROUGH = "READ_THROUGH"
    """The cache loads and fills every tier."""
    CACHE_ASIDE = "CACHE_ASIDE"
    """The cache loads nothing on its own: no background refresh, no prefetch."""
    REFRESH_AHEAD = "REFRESH_AHEAD"
    """As READ_THROUGH with ``refresh_ahead=0.8``."""


class WriteStrategy(StrEnum):
    """When and where a written value goes."""

    WRITE_THROUGH = "WRITE_THROUGH"
    """To every tier before the call returns."""
    WRITE_BEHIND = "WRITE_BEHIND"
    """To memory before the call returns, to the rest behind it."""
    WRITE_AROUND = "WRITE_AROUND"
    """To the last tier; nearer copies are dropped."""


class EvictionPolicyName(StrEnum):
    """How memory chooses what has to leave."""

    ADAPTIVE = "ADAPTIVE"
    LRU = "LRU"
    LFU = "LFU"
    S3FIFO = "S3FIFO"
    TINYLFU = "TINYLFU"


class OnPartition(StrEnum):
    """What a process does while it does not hear the shared tier."""

    SERVE = "serve"
    """Go on from memory within each entry's ttl, and say so."""
    BYPASS = "bypass"
    """Use no near copy."""


_UNSAID: Any = UNSET  # a default that a preset may replace; __post_init__ leaves none of it
_SIZES_MB = {
    "l1_cache_size_mb": 50.0,
    "l2_cache_size_mb": 500.0,
    "l3_cache_size_mb": 2000.0,
    "l4_cache_size_mb": 2000.0,
}
_PRESET_FIELDS = frozenset({*_SIZES_MB, "l1_cache_max_entries", "cache_compression"})


@dataclass(frozen=True, kw_only=True, repr=False)
class CacheSettings:
    """What is said once about a cache. Each field is an environment variable in lower case.

    ``CacheSettings()`` is the plain defaults; `from_env` reads the environment. Text is taken as in the environment
    (``"5m"``, ``"read_through"``), and `SettingsError` names the variable, the value and what is allowed.
    A MB is 2^20 bytes; lengths of time are seconds. ``dataclasses.replace`` takes a preset's sizes for said ones:
    use `with_overrides`.
    """

    redis_url: str | None = None
    redis_max_connections: int = 50
    redis_connection_timeout: float = 20.0
    redis_socket_timeout: float = 5.0
    """The longest a call to any far tier may take."""
    l1_cache_size_mb: float = _UNSAID
    """50, whatever the tier in that place is; 500, 2000 and 2000 for the next ones."""
    l2_cache_size_mb: float = _UNSAID
    l3_cache_size_mb: float = _UNSAID
    l4_cache_size_mb: float = _UNSAID
    l1_cache_max_entries: int | None = _UNSAID
    """None: bounded by bytes only."""
    cache_read_strategy: ReadStrategy = ReadStrategy.READ_THROUGH
    cache_write_strategy: WriteStrategy = WriteStrategy.WRITE_THROUGH
    cache_eviction_policy: EvictionPolicyName = EvictionPolicyName.ADAPTIVE
    cache_tiers: tuple[str, ...] | None = None
    """Look-up order; None: as `tier_names` says."""
    cache_name: str = "default"
    """Part of every Redis key and database row."""
    cache_disk_path: str = ".genesis-cache"
    database_url: str | None = None
    cache_environment: str | None = None
    """DEVELOPMENT, PRODUCTION or TESTING: a preset for the sizes that nobody said."""
    cache_default_ttl: float | None = 3600.0
    """None: entries without a ttl of their own never expire."""
    content_types: Mapping[str, float | None] = field(default_factory=dict)
    """Seconds of freshness by content type; given ones are added to the four that there are."""
    cache_compression: str = _UNSAID
    """``auto`` (far tiers, from 1 KiB, where it saves a tenth), ``off``, ``zstd`` or ``zlib``."""
    cache_prefetch: str = "auto"
    cache_refresh_resident: str = "off"
    """``on``: what another process has changed is fetched from the shared tier again where it was in use."""
    cache_cleanup_interval: float = 300.0
    cache_encryption_keys: tuple[EncryptionKey, ...] = ()
    """The first encrypts, all decrypt."""
    cache_control_token: str | None = None
    cache_max_staleness: float = 1.0
    cache_on_partition: OnPartition = OnPartition.SERVE
    cache_canary_interval: float | None = 5.0
    """Seconds between two proofs that changes arrive, at least; None: there are none."""
    cache_far_budget_ms: float = 50.0
    """How long a reader waits for one far tier, in milliseconds."""
    cache_max_loads: int = 64
    cache_load_deadline: float = 300.0
    cache_max_abandoned_loads: int = 64
    cache_language: str = "en"
    said: frozenset[str] = field(init=False, default=frozenset(), compare=False)
    """Which of the fields that a preset may set were said."""

    def __post_init__(self) -> None:
        said = frozenset(name for name in _PRESET_FIELDS if getattr(self, name) is not UNSET)
        object.__setattr__(self, "said", said)
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not UNSET:
                object.__setattr__(self, name, check(name.upper(), value))
        preset = PRESETS.get(self.cache_environment or "")
        unsaid: dict[str, object] = {
            **_SIZES_MB,
            "l1_cache_max_entries": preset.l1_max_entries if preset else None,
            "cache_compression": preset.compression if preset else "auto",
        }
        for name in _PRESET_FIELDS - said:
            object.__setattr__(self, name, unsaid[name])
        self._check_together()

    def _check_together(self) -> None:
        needs = {"redis": "redis_url", "database": "database_url"}
        for tier in self.cache_tiers or ():
            if tier in needs and getattr(self, needs[tier]) is None:
                msg = f"CACHE_TIERS names {tier}, but {needs[tier].upper()} is not set: set it, or leave {tier} out"
                raise SettingsError(msg)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items())
        return f"CacheSettings({shown})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The settings that an environment says; ``os.environ`` where none is given."""
        said = os.environ if environ is None else environ
        variables: dict[str, Any] = dict(read_variables(said, (f.name for f in fields(cls) if f.init)))
        variables.pop("content_types", None)  # no variable of its own
        return cls(**variables, content_types=read_content_types(said))  # type: ignore[arg-type]  # checked and converted

    def with_overrides(self, **overrides: object) -> Self:
        """These settings with some replaced, named with or without ``cache_``; `SettingsError` for an unknown name."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        kept = {name: value for name, value in known.items() if name not in _PRESET_FIELDS - self.said}
        for name, value in overrides.items():
            full = name if name in known else f"cache_{name}"
            if full not in known:
                msg = f"there is no setting {name!r}: use one of {', '.join(known)}"
                raise SettingsError(msg)
            kept[full] = value
        if isinstance(kept["content_types"], Mapping):
            kept["content_types"] = {**self.content_types, **kept["content_types"]}
        return type(self)(**kept)

    def with_urls(self, *urls: str) -> Self:
        """These settings with the tiers that URLs name, in that order, and the limits they state."""
        overrides: dict[str, object] = {}
        tiers: list[str] = []
        for position, said in enumerate(urls, start=1):
            tier = parse_tier_url(said)
            if tier.kind in tiers:
                msg = f"{masked(said)!r} is a second {tier.kind} tier: a cache has at most one of each kind"
                raise SettingsError(msg)
            tiers.append(tier.kind)
            if tier.max_mb is not None:
                overrides[f"l{position}_cache_size_mb"] = tier.max_mb
            if tier.max_entries is not None:
                overrides["l1_cache_max_entries"] = tier.max_entries
            if tier.kind in ("redis", "database"):
                overrides[f"{tier.kind}_url"] = tier.url
            if tier.path is not None and tier.kind == "disk":
                overrides["cache_disk_path"] = tier.path
        if not tiers:
            msg = 'no URL was given: name at least one tier, as in "memory://?max_mb=50"'
            raise SettingsError(msg)
        return self.with_overrides(cache_tiers=tuple(tiers), **overrides)

    def tier_names(self) -> tuple[str, ...]:
        """The tiers in look-up order: as said, else memory, then redis and database by their URLs, else disk."""
        if self.cache_tiers is not None:
            return self.cache_tiers
        far = (["redis"] if self.redis_url else []) + (["database"] if self.database_url else [])
        return ("memory", *(far or ["disk"]))

    def capacity_mb(self, position: int, tier: str) -> float:
        """The size in MB of the tier that stands in a position, counted from 1.

        By position, whatever the tier; the preset's size goes to the disk tier unless its position was given one.
        """
        name = f"l{min(max(position, 1), len(_SIZES_MB))}_cache_size_mb"
        preset = PRESETS.get(self.cache_environment or "")
        if tier == "disk" and preset is not None and name not in self.said:
            return preset.disk_mb
        size: float = getattr(self, name)
        return size

    def to_dict(self) -> dict[str, object]:
        """What may be shown: fields by name, passwords masked, keys and tokens left out."""
        shown: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        for name in ("redis_url", "database_url"):
            shown[name] = None if shown[name] is None else masked(str(shown[name]))
        shown["cache_control_token"] = None if self.cache_control_token is None else "***"
        shown["cache_encryption_keys"] = tuple(key.id for key in self.cache_encryption_keys)
        shown["content_types"] = dict(self.content_types)
        return shown


def _tiers(variable: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    words: Iterable[object] = (
        value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else ()
    )
    names = tuple(str(word).strip().lower() for word in words)
    wrong = sorted(set(names) - set(TIERS))
    if not names or wrong or len(set(names)) != len(names):
        msg = (
            f"{variable} is {value!r:.80}: it must name each tier at most once, of {', '.join(TIERS)}, in look-up order"
        )
        raise SettingsError(msg)
    return names


def _content_types(variable: str, value: object) -> Mapping[str, float | None]:
    if not isinstance(value, Mapping):
        msg = f"{variable} must be a mapping of names to lengths of time, got {type(value).__name__}"
        raise SettingsError(msg)
    given = {str(name).lower(): allowed.ttl(f"CACHE_TTL_{str(name).upper()}", said) for name, said in value.items()}
    return ContentTypes({**CONTENT_TYPES, **given})


def _url(schemes: tuple[str, ...]) -> allowed.Check:
    return lambda variable, value: None if value is None else check_url(variable, value, schemes)


_CHECKS: Final[Mapping[str, allowed.Check]] = {
    "redis_url": _url(REDIS_SCHEMES),
    "redis_max_connections": allowed.count(1),
    "redis_connection_timeout": allowed.span,
    "redis_socket_timeout": allowed.span,
    **dict.fromkeys(_SIZES_MB, allowed.size_mb),
    "l1_cache_max_entries": allowed.optional(allowed.count(1)),
    "cache_read_strategy": allowed.word(ReadStrategy),
    "cache_write_strategy": allowed.word(WriteStrategy),
    "cache_eviction_policy": allowed.word(EvictionPolicyName),
    "cache_tiers": _tiers,
    "cache_name": allowed.name,
    "cache_disk_path": allowed.path,
    "database_url": _url(DATABASE_SCHEMES),
    "cache_environment": allowed.optional(allowed.one_of(*PRESETS)),
    "cache_default_ttl": allowed.ttl,
    "content_types": _content_types,
    "cache_compression": allowed.one_of("auto", "off", "zstd", "zlib"),
    "cache_prefetch": allowed.one_of("auto", "off"),
    "cache_refresh_resident": allowed.one_of("off", "on"),
    "cache_cleanup_interval": allowed.span,
    "cache_encryption_keys": allowed.keys,
    "cache_control_token": allowed.token,
    "cache_max_staleness": allowed.span,
    "cache_on_partition": allowed.word(OnPartition),
    "cache_canary_interval": allowed.ttl,
    "cache_far_budget_ms": allowed.milliseconds,
    "cache_max_loads": allowed.count(1),
    "cache_load_deadline": allowed.span,
    "cache_max_abandoned_loads": allowed.count(0),
    "cache_language": allowed.one_of(*LANGUAGES),
}

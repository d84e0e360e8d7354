"""The bodies of the answers, typed, so that the OpenAPI page is good to read. Nothing is decided here."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Detail(BaseModel):
    """What was wrong, and what to do, in a sentence."""

    detail: str


class Global(BaseModel):
    """Figures over all layers and namespaces, since the process started."""

    model_config = ConfigDict(extra="allow")

    global_hit_ratio: float = Field(description="Hits per request, 0 to 1.")
    average_response_time_ms: float
    requests: int
    hits: int
    misses: int
    loads: int
    loads_avoided: int = Field(description="Requests that were answered without a load of their own.")
    seconds_saved: float = Field(description="Loads avoided, times the mean length of a load.")


class Layer(BaseModel):
    """What one layer holds and did."""

    model_config = ConfigDict(extra="allow")

    tier: str = Field(description="memory, disk, redis or database.")
    hit_ratio: float
    hits: int
    misses: int
    entries: int
    size_bytes: int
    capacity_bytes: int | None = Field(description="None: not bounded by bytes.")
    evictions: dict[str, int] = Field(description="By reason.")
    p50_ms: float
    p99_ms: float
    up: bool
    reason: str | None = Field(default=None, description="Why it is not up.")


class Level(Layer):
    """A layer with its name."""

    layer: str = Field(description="l1, l2, … in look-up order.")


class Levels(BaseModel):
    """A row a level, nearest first."""

    levels: list[Level]


class Recommendation(BaseModel):
    """Something that could be better."""

    title: str
    evidence: str
    action: str


class Prefetch(BaseModel):
    """What was fetched ahead, and whether it was used."""

    model_config = ConfigDict(extra="allow")

    enabled: bool
    issued: int
    useful: int
    precision: float
    wasted: int


class Analytics(BaseModel):
    """Everything that is counted."""

    model_config = ConfigDict(extra="allow")

    global_statistics: Global
    layer_statistics: dict[str, Layer]
    namespaces: dict[str, dict[str, Any]]
    recommendations: list[Recommendation]
    prefetch: Prefetch


class Alert(BaseModel):
    """Something to look at now."""

    name: Literal["tier_down", "saturation", "low_hit_ratio"]
    severity: Literal["critical", "warning"]
    message: str


class Efficiency(BaseModel):
    """How well the cache does its work."""

    score: int = Field(ge=0, le=100, description="60 for hits, 25 for tiers that are up, 15 for tiers with room.")
    recommendations: list[Recommendation]
    alerts: list[Alert]


class TierState(BaseModel):
    """What one tier knows of a key. Ages and ttls are seconds."""

    layer: str
    tier: str
    present: bool
    fresh: bool
    age: float | None
    ttl_left: float | None
    size_bytes: int | None
    tags: list[str]
    priority: str | None
    version: int | None


class KeyExplanation(BaseModel):
    """Where a key is and why a read of it would hit or miss."""

    key: str
    namespace: str
    verdict: Literal["fresh", "stale", "absent", "invalidated"]
    reason: str
    tiers: list[TierState]
    value: Any = Field(default=None, description="Only with ?value=true and the token; hidden where it is sensitive.")


class TierHealth(BaseModel):
    """One tier's state."""

    tier: str
    up: bool
    reason: str | None


class HealthReport(BaseModel):
    """Whether the cache can serve."""

    status: Literal["ok", "degraded"]
    tiers: dict[str, TierHealth]


class Done(BaseModel):
    """What became of a change."""

    status: Literal["applied", "degraded", "dry_run"]
    degraded: list[str] = Field(description="Tiers that are still owed the change; they are told until they have it.")
    matched: int | None = Field(description="Entries in memory that it reached; null where there is no memory tier.")

"""What the cache answers: the outcome of a change, the explanation of a key, the report of an optimization."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from genesis_cache.model.missing import MISSING

Verdict = Literal["fresh", "stale", "absent", "invalidated"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a change has come: truthy when every tier and every other process was told.

    ``degraded`` names the tiers still owed the change; they are told again until they have it.
    """

    degraded: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.degraded

    def to_dict(self) -> dict[str, object]:
        """JSON-ready: ``status`` (``applied`` or ``degraded``) and ``degraded``."""
        return {"status": "degraded" if self.degraded else "applied", "degraded": list(self.degraded)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TierView:
    """What one tier knows of a key. Ages and ttls are seconds; None where the tier does not hold it or cannot tell."""

    layer: str
    """``l1``, ``l2``, … in look-up order."""
    tier: str
    present: bool
    fresh: bool = False
    age: float | None = None
    ttl_left: float | None = None
    """Seconds of freshness left, negative when stale; None for no expiry."""
    size_bytes: int | None = None
    tags: tuple[str, ...] = ()
    priority: str | None = None
    version: int | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, by field name."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"tags": list(self.tags)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a key is and why a read of it would hit or miss."""

    key: str
    namespace: str
    verdict: Verdict
    reason: str
    """A sentence."""
    tiers: tuple[TierView, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, by field name."""
        return {
            "key": self.key,
            "namespace": self.namespace,
            "verdict": self.verdict,
            "reason": self.reason,
            "tiers": [tier.to_dict() for tier in self.tiers],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """An explanation, with what is stored itself."""

    explanation: Explanation
    value: object = field(default=MISSING, repr=False)
    """The value, fresh or stale; ``MISSING`` where no read could ever get one."""
    sensitive: bool = False
    """Whether it was stored as sensitive: not for anybody's eyes, and not for logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether a cache can serve, and its tiers by layer: ``tier``, ``up``, and ``reason`` where not all is well."""

    can_serve: bool
    is_well: bool
    tiers: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, object]:
        """JSON-ready: ``status`` (``ok`` or ``degraded``) and ``tiers``."""
        status = "ok" if self.can_serve and self.is_well else "degraded"
        return {"status": status, "tiers": {layer: dict(row) for layer, row in self.tiers.items()}}


@dataclass(frozen=True, slots=True)
class Move:
    """One entry moved, or to be moved, between tiers."""

    key: str
    source: str
    target: str
    why: str

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, by field name."""
        return {"key": self.key, "source": self.source, "target": self.target, "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationReport:
    """What an optimization did, or would do when ``applied`` is False."""

    applied: bool
    promoted: int = 0
    demoted: int = 0
    moves: tuple[Move, ...] = ()
    recommendations: tuple[dict[str, str], ...] = ()
    """Each with ``title``, ``evidence`` and ``action``."""

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, by field name."""
        return {
            "applied": self.applied,
            "promoted": self.promoted,
            "demoted": self.demoted,
            "moves": [move.to_dict() for move in self.moves],
            "recommendations": [dict(advice) for advice in self.recommendations],
        }

"""Health: whether a cache can serve, and which tier is why it serves less well than it might."""

from typing import Any

from genesis_cache.engine.core import Core
from genesis_cache.engine.engine import Engine
from genesis_cache.model.outcome import Health


def health(engine: Engine) -> Health:
    """The state of every tier now. Asks no server: what the last calls found counts."""
    core = engine.core
    tiers: dict[str, dict[str, Any]] = {}
    if core.memory is not None:
        tiers[core.near_label] = {"tier": "memory", "up": True, "reason": None}
    if core.opened:
        engine.hearing.listen()
    for lane in core.lanes:
        reason = lane.tier.down
        if reason is None and lane is core.authority and core.is_cut_off:
            reason = _unheard(core)
        tiers[lane.label] = {"tier": lane.tier.kind, "up": lane.tier.down is None, "reason": reason}
    any_up = any(row["up"] for row in tiers.values())
    is_well = all(row["reason"] is None for row in tiers.values())
    return Health(can_serve=any_up and not core.closed, is_well=is_well, tiers=dict(sorted(tiers.items())))


def _unheard(core: Core) -> str:
    held = "near copies are not used" if core.is_deaf else "near copies serve until their ttl ends"
    if core.is_quiet:
        return f"its log is quiet, and keeps back changes that it had taken (read from a replica?): {held}"
    return f"what other processes change has not been heard for too long: {held}"

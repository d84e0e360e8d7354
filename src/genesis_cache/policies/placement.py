"""Placement: which tiers a value goes to, decided from its plan and the write strategy."""

from collections.abc import Sequence

from genesis_cache.model.entry import CachePriority
from genesis_cache.model.options import Plan
from genesis_cache.model.settings import WriteStrategy


def near_wanted(
    plan: Plan, far_kinds: Sequence[str], strategy: WriteStrategy, *, loaded: bool, can_seal: bool = False
) -> bool:
    """Whether memory takes the value.

    LOW skips memory until it is asked for again, unless memory is the only tier. ``WRITE_AROUND`` leaves a written
    value to the last tier; what a load brought (``loaded``) was asked for and comes near all the same. A sensitive
    value that cannot be sealed has no other place than memory.
    """
    if plan.sensitive and not can_seal:
        return True
    if plan.tiers is not None:
        return "memory" in plan.tiers
    if not far_kinds:
        return True
    return plan.priority is not CachePriority.LOW and (loaded or strategy is not WriteStrategy.WRITE_AROUND)


def far_wanted(
    plan: Plan, far_kinds: Sequence[str], strategy: WriteStrategy, *, loaded: bool, can_seal: bool = False
) -> tuple[bool, ...]:
    """For each far tier in look-up order, whether it takes the value; a sensitive one only where it can be sealed."""
    if plan.sensitive and not can_seal:
        return (False,) * len(far_kinds)
    if plan.tiers is not None:
        return tuple(kind in plan.tiers for kind in far_kinds)
    if strategy is WriteStrategy.WRITE_AROUND and not loaded:
        return tuple(n == len(far_kinds) - 1 for n in range(len(far_kinds)))
    return (True,) * len(far_kinds)

"""Placement: which tiers a value goes to, by priority, strategy and option."""

import pytest

from genesis_cache.model.entry import CachePriority
from genesis_cache.model.options import Plan
from genesis_cache.model.settings import WriteStrategy
from genesis_cache.policies.placement import far_wanted, near_wanted

THROUGH, AROUND = WriteStrategy.WRITE_THROUGH, WriteStrategy.WRITE_AROUND
FAR = ("disk", "database")
LOW = Plan(ttl=1, priority=CachePriority.LOW)


@pytest.mark.parametrize(
    ("plan", "far", "strategy", "loaded", "wanted"),
    [
        (Plan(ttl=1), FAR, THROUGH, False, True),
        (LOW, FAR, THROUGH, False, False),
        (LOW, FAR, THROUGH, True, False),
        (LOW, (), THROUGH, False, True),
        (Plan(ttl=1), FAR, AROUND, False, False),
        (Plan(ttl=1), FAR, AROUND, True, True),
        (Plan(ttl=1), (), AROUND, False, True),
        (Plan(ttl=1, tiers=frozenset({"disk"})), FAR, THROUGH, False, False),
        (Plan(ttl=1, tiers=frozenset({"memory"})), FAR, AROUND, False, True),
        (Plan(ttl=1, sensitive=True), FAR, AROUND, False, True),
    ],
)
def test_near(plan: Plan, far: tuple[str, ...], strategy: WriteStrategy, loaded: bool, wanted: bool) -> None:
    """Memory takes what is meant for it."""
    assert near_wanted(plan, far, strategy, loaded=loaded) is wanted


@pytest.mark.parametrize(
    ("plan", "strategy", "loaded", "wanted"),
    [
        (Plan(ttl=1), THROUGH, False, (True, True)),
        (Plan(ttl=1), AROUND, False, (False, True)),
        (Plan(ttl=1), AROUND, True, (True, True)),
        (Plan(ttl=1, tiers=frozenset({"disk"})), AROUND, False, (True, False)),
        (Plan(ttl=1, sensitive=True), THROUGH, False, (False, False)),
    ],
)
def test_far(plan: Plan, strategy: WriteStrategy, loaded: bool, wanted: tuple[bool, ...]) -> None:
    """The far tiers take what is meant for them, and never a sensitive value."""
    assert far_wanted(plan, FAR, strategy, loaded=loaded) == wanted

"""Placement: which tiers a value goes to, by priority, strategy and option."""

from typing import Any

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
    ("more", "strategy", "near", "far"),
    [
        ({}, THROUGH, True, (True, True)),
        ({}, AROUND, False, (False, True)),
        ({"priority": CachePriority.LOW}, THROUGH, False, (True, True)),
        ({"tiers": frozenset({"disk"})}, THROUGH, False, (True, False)),
        ({"tiers": frozenset({"memory"})}, THROUGH, True, (False, False)),
    ],
)
def test_sensitive(more: dict[str, Any], strategy: WriteStrategy, near: bool, far: tuple[bool, ...]) -> None:
    """A sensitive value goes where any other would if it can be sealed, and else to memory alone, whatever is asked."""
    plan = Plan(ttl=1, sensitive=True, **more)
    assert near_wanted(plan, FAR, strategy, loaded=False, can_seal=True) is near
    assert far_wanted(plan, FAR, strategy, loaded=False, can_seal=True) == far
    for loaded in (False, True):
        assert near_wanted(plan, FAR, strategy, loaded=loaded, can_seal=False) is True
        assert far_wanted(plan, FAR, strategy, loaded=loaded, can_seal=False) == (False, False)
    plain = Plan(ttl=1, **more)
    assert far_wanted(plain, FAR, strategy, loaded=False, can_seal=False) == far


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
    """The far tiers take what is meant for them, and no sensitive value unless it is said that it can be sealed."""
    assert far_wanted(plan, FAR, strategy, loaded=loaded) == wanted

"""XFetch: one draw an entry is as good as a draw a request."""

import random
from math import log
from statistics import mean, stdev

import pytest

from genesis_cache.policies.xfetch import BUSY_REQUESTS, early_by

COST_S = 0.1


def by_requests(chance: random.Random) -> float:
    """The paper's way: requests come at random, each draws, and the first that draws enough refreshes."""
    left = 20 * COST_S
    while left > 0:
        left -= chance.expovariate(BUSY_REQUESTS / COST_S)
        if -COST_S * log(1.0 - chance.random()) >= left:
            return max(left, 0.0)
    return 0.0


def test_one_draw_stands_for_those_of_all_requests() -> None:
    """The moment that is drawn once is spread like the moment of the first request that draws for itself."""
    chance = random.Random(7)
    theirs = [by_requests(chance) for _ in range(1500)]
    ours = [early_by(COST_S, 1.0, chance.random(), 1000.0) for _ in range(1500)]
    assert mean(ours) == pytest.approx(mean(theirs), rel=0.05)
    assert stdev(ours) == pytest.approx(stdev(theirs), rel=0.15)
    assert mean(ours) == pytest.approx(5.2 * COST_S, rel=0.05)


def test_the_load_is_over_before_the_end() -> None:
    """A refresh is due more than a load's length before the end, later with a smaller beta, never in the first half."""
    chance = random.Random(7)
    draws = [chance.random() for _ in range(10_000)]
    assert min(early_by(COST_S, 1.0, draw, 1000.0) for draw in draws) > COST_S
    assert all(early_by(COST_S, 0.5, draw, 1000.0) == early_by(COST_S, 1.0, draw, 1000.0) / 2 for draw in draws[:50])
    assert max(early_by(COST_S, 1.0, draw, 0.5) for draw in draws) == 0.25
    assert early_by(0.0, 1.0, 0.5, 10.0) == 0.0
    assert early_by(COST_S, 1.0, 0.0, 10.0) == 0.0

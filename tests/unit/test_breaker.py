"""The circuit breaker: when to try, decided on times passed in."""

import random

from genesis_cache.tiers.breaker import FIRST_DELAY_S, LONGEST_DELAY_S, Breaker, Circuit


def test_nothing_is_held_back_while_all_is_well() -> None:
    """A breaker that met no failure lets everything through."""
    breaker = Breaker()
    assert breaker.allows(0.0)
    assert not breaker.is_shut(0.0)
    assert not breaker.worked()
    assert breaker.reason is None


def test_one_failure_opens_it_for_the_first_delay() -> None:
    """After a failure nothing is tried for 0.1 to 0.2 s, and the reason can be told."""
    breaker = Breaker(share=lambda: 1.0)
    assert breaker.failed(10.0, "disk full")
    assert breaker.reason == "disk full"
    assert breaker.state is Circuit.OPEN
    assert breaker.is_shut(10.0 + FIRST_DELAY_S)
    assert not breaker.allows(10.0 + FIRST_DELAY_S)
    assert breaker.allows(10.0 + 2 * FIRST_DELAY_S)


def test_one_attempt_decides() -> None:
    """When the delay has passed exactly one attempt is let through; its success closes the breaker."""
    breaker = Breaker(share=lambda: 0.0)
    breaker.failed(0.0, "locked")
    assert [breaker.allows(1.0) for _ in range(3)] == [True, False, False]
    assert breaker.state is Circuit.HALF_OPEN
    assert breaker.worked()
    assert breaker.reason is None
    assert breaker.allows(1.0)


def test_an_attempt_that_never_reports_gives_its_place_up() -> None:
    """A lost attempt does not keep the breaker half open for ever."""
    breaker = Breaker()
    breaker.failed(0.0, "locked")
    assert breaker.allows(1.0)
    assert not breaker.allows(1.0)
    assert breaker.allows(2.0)


def test_delays_grow_to_a_limit_and_are_spread() -> None:
    """Each failed attempt doubles the delay, never beyond 10 s, and no two processes keep step."""
    dice = random.Random(3)
    breaker = Breaker(share=dice.random)
    now, delays = 0.0, []
    for _ in range(20):
        assert breaker.failed(now, "down") is (now == 0.0)
        low = now
        while breaker.is_shut(now):
            now += 0.001
        delays.append(now - low)
        assert breaker.allows(now)
    assert max(delays) <= LONGEST_DELAY_S + 0.002
    assert min(delays[8:]) >= LONGEST_DELAY_S / 2
    assert delays[0] < delays[3] < delays[6]
    assert len({round(delay, 2) for delay in delays[10:]}) > 3

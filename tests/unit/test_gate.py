"""Gates: places are given in turns, slowly after a loss, and not to loads behind while the source suffers."""

import asyncio

import pytest

from genesis_cache.engine.gate import Gate
from genesis_cache.policies.origin import RAMP_S
from genesis_cache.testing.clock import FakeClock


async def test_a_gate_gives_its_places_in_order() -> None:
    """At most so many are inside; the longest waiting is next; one that was cancelled is passed over."""
    gate = Gate(2)
    order: list[int] = []

    async def through(n: int) -> None:
        await gate.enter()
        order.append(n)
        assert gate.running <= 2
        await asyncio.sleep(0.001)
        gate.leave()

    tasks = [asyncio.create_task(through(n)) for n in range(6)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 2, 4, 5]
    assert (gate.running, gate.queued) == (0, 0)


async def test_a_place_given_to_one_that_is_cancelled_in_that_moment() -> None:
    """A place handed to a waiter that is cancelled before it wakes goes to the next."""
    gate = Gate(1)
    await gate.enter()
    first, second = asyncio.create_task(gate.enter()), asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    gate.leave()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.wait_for(second, 1)
    gate.leave()
    await asyncio.sleep(0)
    assert gate.running == 0


async def test_owners_take_turns() -> None:
    """One who wants a hundred keys does not keep another waiting for all of them."""
    gate = Gate(1)
    order: list[str] = []

    async def through(owner: str) -> None:
        await gate.enter(owner)
        order.append(owner)
        await asyncio.sleep(0)
        gate.leave()

    greedy = [asyncio.create_task(through("greedy")) for _ in range(100)]
    await asyncio.sleep(0)
    others = [asyncio.create_task(through(f"other {n}")) for n in range(3)]
    await asyncio.gather(*greedy, *others)
    assert {order.index(f"other {n}") for n in range(3)} <= set(range(8))
    assert order.count("greedy") == 100


async def test_patience_ends_in_the_queue() -> None:
    """Who waits longer for a place than it may gets a TimeoutError, and the next has the place."""
    gate = Gate(1)
    await gate.enter()
    with pytest.raises(TimeoutError):
        await gate.enter(patience_s=0.001)
    patient = asyncio.create_task(gate.enter(patience_s=60))
    await asyncio.sleep(0)
    gate.leave()
    await asyncio.wait_for(patient, 5)
    gate.leave()
    assert gate.running == 0


async def test_places_open_one_after_the_other_after_a_loss() -> None:
    """After a clear, or once more entries than there are places were found dead, a quarter of the places is open."""
    clock = FakeClock()
    gate = Gate(64, clock.now)
    assert gate.room == 16  # a cold start
    clock.advance(RAMP_S / 2)
    assert gate.room == 40
    clock.advance(RAMP_S)
    assert gate.room == 64
    gate.lost(64)
    assert gate.room == 64
    gate.lost(1)
    assert gate.room == 16
    clock.advance(3 * RAMP_S)
    gate.slow_down()
    gate.slow_down()
    assert (gate.room, gate.ramps) == (16, 3)
    assert Gate(3, clock.now).room == 3


async def test_who_waits_is_let_in_as_places_open() -> None:
    """Time alone lets in those who wait, though nobody leaves."""
    clock = FakeClock()
    gate = Gate(64, clock.now)
    tasks = [asyncio.create_task(gate.enter()) for _ in range(64)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert (gate.running, gate.queued) == (16, 48)
    clock.advance(RAMP_S)
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert (gate.running, gate.queued) == (64, 0)
    for _ in tasks:
        gate.leave()


async def test_loads_that_nobody_waits_for_yield() -> None:
    """They begin while there is a place; one at a time while the source fails, so that its recovery is seen."""
    gate = Gate(2)
    assert gate.admits_behind()
    await gate.enter()
    await gate.enter()
    assert not gate.admits_behind()
    gate.leave()
    gate.behind = 1
    assert gate.admits_behind()
    for _ in range(10):
        gate.origin.add(0.1, failed=True)
    assert not gate.admits_behind()
    gate.behind = 0
    assert gate.admits_behind()
    gate.leave()

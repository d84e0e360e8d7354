"""Flights: who waits gets one outcome, and who leaves harms nobody."""

import asyncio
import threading

import pytest

from genesis_cache.engine.flight import Flight, Lost


async def test_all_who_wait_get_the_outcome() -> None:
    """Every waiter, and whoever comes later, gets what landed; the first outcome stays."""
    flight = Flight(0, 0.0)
    waiting = [asyncio.create_task(flight.wait(None)) for _ in range(3)]
    await asyncio.sleep(0)
    assert flight.waiting == 3
    flight.land(Lost.NOTHING)
    flight.land(Lost.TASK)
    assert await asyncio.gather(*waiting) == [Lost.NOTHING] * 3
    assert await flight.wait(None) is Lost.NOTHING
    assert flight.waiting == 0


async def test_patience_ends_for_one() -> None:
    """A waiter whose patience ends gets WAIT; the others wait on."""
    flight = Flight(0, 0.0)
    patient = asyncio.create_task(flight.wait(None))
    assert await flight.wait(0.001) is Lost.WAIT
    flight.land(Lost.NOTHING)
    assert await patient is Lost.NOTHING


async def test_a_cancelled_waiter_is_forgotten() -> None:
    """A waiter that was cancelled does not count as waiting."""
    flight = Flight(0, 0.0)
    task = asyncio.create_task(flight.wait(None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flight.waiting == 0
    flight.land(Lost.NOTHING)


def test_waiters_on_several_loops() -> None:
    """A flight that lands on one thread wakes those who wait on the loops of others."""
    flight = Flight(0, 0.0)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(flight.wait(5)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    while flight.waiting < 3:
        pass
    flight.land(Lost.NOTHING)
    for thread in threads:
        thread.join(5)
    assert found == [Lost.NOTHING] * 3


def test_a_flight_whose_loop_was_closed_is_orphaned() -> None:
    """A flight on a closed loop says so; one that landed does not."""
    flight = Flight(0, 0.0)
    assert not flight.orphaned
    loop = asyncio.new_event_loop()

    async def fly() -> None:
        flight.task = asyncio.current_task()

    loop.run_until_complete(fly())
    loop.close()
    assert flight.orphaned
    flight.land(Lost.TASK)
    assert not flight.orphaned


async def test_a_loop_that_closes_meanwhile_keeps_the_outcome_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the event loop of one who waits is closed while a load lands, the others get the outcome all the same."""
    flight, closed = Flight(0, 0.0), asyncio.new_event_loop()
    gone = closed.create_task(flight.wait(None))
    closed.call_soon(closed.stop)
    await asyncio.to_thread(closed.run_forever)
    monkeypatch.setattr(closed, "is_closed", lambda: False)  # it was closed just after this was asked

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(closed, "call_soon_threadsafe", refuse)
    others = [asyncio.create_task(flight.wait(None)) for _ in range(2)]
    await asyncio.sleep(0)
    assert flight.waiting == 3
    flight.land(Lost.NOTHING)
    assert await asyncio.wait_for(asyncio.gather(*others), 20) == [Lost.NOTHING] * 2
    monkeypatch.undo()
    gone.cancel()
    await asyncio.to_thread(closed.run_until_complete, asyncio.wait([gone]))
    closed.close()

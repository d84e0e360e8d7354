"""The queue of changes: order, bound, and where the receipts go."""

import asyncio
import math
import threading

import pytest

from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.tiers import commit_queue
from genesis_cache.tiers.base import Put, Receipt, Remove
from genesis_cache.tiers.commit_queue import CommitQueue, SyncReply, Waiting, deliver

ADDRESS = address_of(scope_of("unit"), "a")


def test_orders_come_out_as_they_went_in() -> None:
    """Everything that waits comes out at once and in order, and the books are empty after."""
    queue = CommitQueue()
    for number in range(10):
        assert queue.put([Put(ADDRESS, bytes(number), math.inf)], None, SyncReply())
    assert queue
    assert queue.check() == []
    assert [len(order[0][0].envelope) for order in queue.take()] == list(range(10))  # type: ignore[union-attr]  # all are puts
    assert not queue
    assert queue.take() == []
    assert queue.check() == []


def test_only_puts_are_refused_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound keeps envelopes out, never an invalidation, and ends when the queue is taken."""
    monkeypatch.setattr(commit_queue, "MAX_QUEUED_BYTES", 5000)
    queue = CommitQueue()
    large = [Put(ADDRESS, bytes(4000), math.inf)]
    assert queue.put(large, None, SyncReply())
    assert not queue.put(large, None, SyncReply())
    assert all(queue.put([Remove(ADDRESS)], None, SyncReply()) for _ in range(100))
    queue.take()
    assert queue.put(large, None, SyncReply())


def test_each_loop_has_one_lane() -> None:
    """Loops taking turns keep their lanes; those of closed loops are let go."""
    queue = CommitQueue()
    one, two = asyncio.new_event_loop(), asyncio.new_event_loop()
    lanes = [queue.lane_of(loop) for loop in (one, two, one, two, two)]
    assert lanes[0] is lanes[2]
    assert lanes[1] is lanes[3] is lanes[4]
    one.close()
    two.close()
    three = asyncio.new_event_loop()
    queue.lane_of(three)
    assert set(queue._lanes) == {three}
    three.close()


async def test_receipts_reach_loops_and_threads() -> None:
    """Each waiter gets its own receipts; one that has left is passed over."""
    loop = asyncio.get_running_loop()
    queue = CommitQueue()
    futures: list[Waiting] = [loop.create_future() for _ in range(3)]
    replies = [*futures, SyncReply()]
    for reply in replies:
        queue.put([Remove(ADDRESS)], None if isinstance(reply, SyncReply) else queue.lane_of(loop), reply)
    futures[1].cancel()
    orders = queue.take()
    thread = threading.Thread(target=deliver, args=(orders, [[Receipt(n)] for n in range(4)]))
    thread.start()
    assert await futures[0] == [Receipt(0)]
    assert await futures[2] == [Receipt(2)]
    thread.join()
    assert replies[3].wait() == [Receipt(3)]  # type: ignore[union-attr]  # the last is no future


def test_a_closed_loop_is_passed_over() -> None:
    """Receipts for a loop that has ended are dropped without complaint."""
    queue = CommitQueue()
    loop = asyncio.new_event_loop()
    queue.put([Remove(ADDRESS)], queue.lane_of(loop), loop.create_future())
    loop.close()
    deliver(queue.take(), [None])

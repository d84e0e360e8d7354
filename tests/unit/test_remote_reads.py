"""Reads of one event loop: batches, budgets, late replies, suspicion, and replies that cannot be believed."""

import asyncio
import time

import pytest
from tests.unit.remote_server import Server, envelope, opened, ticks, tier_over, until, where

from genesis_cache.tiers import remote
from genesis_cache.tiers.base import Answer, Late
from genesis_cache.tiers.remote import RemoteTier
from genesis_cache.tiers.remote_reads import MAX_BATCH, MAX_IN_FLIGHT

SOON_S = 0.03  # a budget that is meant to pass


@pytest.fixture
def server() -> Server:
    """A server of its own for each test, with values for a to d."""
    server = Server()
    for key in "abcd":
        server.values[where(key).digest] = envelope(key, key.encode())
    return server


async def read(tier: RemoteTier, key: str) -> Answer:
    """What a reader gets."""
    answer = tier.get(where(key))
    return None if answer is None else await answer


def batches(server: Server) -> list[object]:
    """The keys of each call that read."""
    return [about for verb, about in server.asked if verb in ("get", "get_many") and about != "probe"]


async def test_a_lone_read_travels_alone(server: Server) -> None:
    """One read is one plain get, a hit or a miss."""
    async with opened(server) as tier:
        assert await read(tier, "a") == envelope("a", b"a")
        assert await read(tier, "x") is None
        assert batches(server) == ["a", "x"]


async def test_reads_of_one_tick_travel_together(server: Server) -> None:
    """What is asked in one turn of the loop is one call, and everybody gets their own."""
    async with opened(server) as tier:
        found = await asyncio.gather(*(read(tier, key) for key in "abxc"))
        assert found == [envelope("a", b"a"), envelope("b", b"b"), None, envelope("c", b"c")]
        assert batches(server) == [["a", "b", "x", "c"]]


async def test_equal_keys_of_one_tick_travel_once(server: Server) -> None:
    """Three who want the same key cost one, and each has an answer of its own."""
    async with opened(server) as tier:
        found = await asyncio.gather(*(read(tier, key) for key in "abaa"))
        assert found == [envelope(key, key.encode()) for key in "abaa"]
        assert batches(server) == [["a", "b"]]


async def test_get_many_keeps_the_order(server: Server) -> None:
    """Many keys come back in the order asked, what is missing as None."""
    async with opened(server) as tier:
        found = await tier.get_many([where(key) for key in "dxab"])
        assert found == [envelope("d", b"d"), None, envelope("a", b"a"), envelope("b", b"b")]
        assert batches(server) == [["d", "x", "a", "b"]]


async def test_a_large_crowd_is_cut_into_batches(server: Server) -> None:
    """No call has more keys than a batch may have, and nobody is forgotten."""
    count = MAX_BATCH * (MAX_IN_FLIGHT + 2) + 7
    async with opened(server, max_connections=100) as tier:
        found = await tier.get_many([where("a" if n % 2 else f"k{n}") for n in range(count)])
        assert [one is not None for one in found] == [bool(n % 2) for n in range(count)]
        assert all(len(batch) <= MAX_BATCH for batch in batches(server) if isinstance(batch, list))


async def test_beyond_the_calls_in_flight_reads_gather(server: Server) -> None:
    """While as many calls as may be are on their way, what comes waits for the next and travels in one."""
    async with opened(server, max_connections=100) as tier:
        server.hold("get")
        waiting = []
        for key in "ab" * (MAX_IN_FLIGHT // 2) + "abc":
            waiting.append(asyncio.ensure_future(read(tier, key)))
            await ticks()
        assert len(batches(server)) == MAX_IN_FLIGHT
        server.let_go()
        found = await asyncio.gather(*waiting)
        assert found[-3:] == [envelope("a", b"a"), envelope("b", b"b"), envelope("c", b"c")]
        assert batches(server)[-1] == ["a", "b", "c"]


async def test_a_cancelled_reader_takes_nothing_from_the_others(server: Server) -> None:
    """One of two who wait for one call goes; the call and the other go on."""
    async with opened(server) as tier:
        server.hold("get_many")
        first, second = asyncio.ensure_future(read(tier, "a")), asyncio.ensure_future(read(tier, "b"))
        await until(lambda: server.times("get_many"))
        first.cancel()
        await ticks()
        server.let_go()
        assert await second == envelope("b", b"b")
        assert first.cancelled()
        assert not any(store.cancelled for store in server.stores)


async def test_the_budget_ends_a_wait_and_the_reply_is_still_taken_in(server: Server) -> None:
    """A reader gets word that the reply is late, goes on, and finds it later."""
    async with opened(server, SOON_S) as tier:
        server.hold("get")
        late = await read(tier, "a")
        assert isinstance(late, Late)
        assert not late.rest.done()
        server.let_go()
        assert await late.rest == envelope("a", b"a")


async def test_while_a_reply_is_late_nobody_else_waits(server: Server) -> None:
    """A frozen server costs one budget: what comes meanwhile is answered at once and never sent."""
    async with opened(server, SOON_S) as tier:
        server.hold("get", "get_many")
        late = await read(tier, "a")
        assert isinstance(late, Late)
        assert [await read(tier, f"k{n}") for n in range(1000)] == [None] * 1000
        assert await tier.get_many([where("b")]) == [None]
        assert batches(server) == ["a"]
        server.let_go()
        await late.rest
        assert await read(tier, "b") == envelope("b", b"b")


async def test_a_reader_that_never_rests_still_lets_a_late_reply_in(server: Server) -> None:
    """One read after the other, with nothing between: once the reply has come, reads find what is there."""
    async with opened(server, SOON_S) as tier:
        server.hold("get")
        assert isinstance(await read(tier, "a"), Late)
        server.let_go()
        found = [await read(tier, "b") for _ in range(1_000)]
        assert found[-1] == envelope("b", b"b")
        assert None in found


async def test_all_of_a_late_batch_are_told_at_once(server: Server) -> None:
    """One timer tells every caller of a batch, and each finds its own reply later."""
    async with opened(server, SOON_S) as tier:
        server.hold("get_many")
        answers = await asyncio.gather(*(read(tier, key) for key in "abx"))
        rests = [answer.rest for answer in answers if isinstance(answer, Late)]
        assert len(set(rests)) == 3
        rests[1].cancel()
        server.let_go()
        assert await rests[0] == envelope("a", b"a")
        assert await rests[2] is None


async def test_a_reply_that_never_comes_is_given_up(server: Server) -> None:
    """Past the timeout the call is cancelled, who still waits gets None, and the tier is down until it works."""
    reasons: list[str] = []
    async with opened(server, SOON_S, 2 * SOON_S) as tier:
        tier.on_down = reasons.append
        server.hold("get", "join", "follow")
        late = await read(tier, "a")
        assert isinstance(late, Late)
        assert await late.rest is None
        assert tier.down is not None
        assert "no answer" in tier.down or "did not" in tier.down
        assert any(store.cancelled for store in server.stores)
        assert tier.get(where("a")) is None
        server.let_go()
        await until(lambda: tier.down is None)
        assert await read(tier, "a") == envelope("a", b"a")
        assert len(reasons) == 1


async def test_a_call_that_is_lost_while_others_get_through_is_no_outage(server: Server) -> None:
    """One connection that hangs is given up alone: the server has answered what was asked after it."""
    async with opened(server, 10 * SOON_S, 11 * SOON_S) as tier:
        server.hold("get")
        hanging = asyncio.ensure_future(read(tier, "a"))
        await until(lambda: server.times("get"))
        assert await tier.get_many([where("b"), where("c")]) == [envelope("b", b"b"), envelope("c", b"c")]
        late = await hanging
        assert isinstance(late, Late)
        assert await late.rest is None
        assert tier.down is None


async def test_a_silent_server_is_told_before_the_timeout(server: Server) -> None:
    """A server that has been silent for a second counts as down, and as up when it answers."""
    told: list[str | None] = []
    async with opened(server, SOON_S) as tier:
        tier.on_down, tier.on_up = told.append, lambda: told.append(None)
        server.hold("get")
        late = await read(tier, "a")
        assert isinstance(late, Late)
        await until(lambda: told)
        assert told == ["the redis server has not answered for 1 s"]
        assert tier.down == told[0]
        server.let_go()
        await late.rest
        await until(lambda: len(told) == 2)
        assert tier.down is None


async def test_a_slow_server_gives_one_late_reply_at_a_time(server: Server) -> None:
    """Each reply that comes after the budget is taken in, and after it the next reader tries again."""
    async with opened(server, SOON_S) as tier:
        for key in "abc":
            server.hold("get")
            late = await read(tier, key)
            assert isinstance(late, Late)
            assert await read(tier, "d") is None
            server.let_go()
            assert await late.rest == envelope(key, key.encode())
        assert batches(server) == ["a", "b", "c"]
        assert tier.down is None


def test_a_late_reply_that_nobody_waits_for_any_more(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspicion ends even if the event loop that had it is gone: by the timeout, and an attempt that works."""
    monkeypatch.setattr(remote, "_SILENT_S", SOON_S)
    tier = tier_over(server, SOON_S, 2 * SOON_S)
    server.hold("get")

    async def suspect() -> None:
        await tier.open()
        assert isinstance(await read(tier, "a"), Late)

    async def again() -> None:
        assert await tier.get_many([where("a")]) == [None]
        server.let_go()
        await until(lambda: not tier._health.is_shut)
        assert await read(tier, "a") == envelope("a", b"a")
        await tier.close()

    asyncio.run(suspect())
    asyncio.run(again())


async def test_an_outage_is_met_by_one_reader(server: Server) -> None:
    """A refused read opens the breaker; the next are answered at once until the thread has found it working."""
    told: list[str | None] = []
    async with opened(server) as tier:
        tier.on_down, tier.on_up = told.append, lambda: told.append(None)
        server.fail("the connection was refused", "get", "join")
        assert await read(tier, "a") is None
        assert tier.down == "the connection was refused"
        asked = len(batches(server))
        assert tier.get(where("a")) is None
        assert len(batches(server)) == asked
        server.mend()
        await until(lambda: tier.down is None)
        assert await read(tier, "a") == envelope("a", b"a")
        assert told == ["the connection was refused", None]


async def test_any_error_of_a_store_is_an_outage(server: Server) -> None:
    """An error that no store should raise is told by its name, and no reader sees it."""
    async with opened(server) as tier:
        server.fails["get"] = ZeroDivisionError("a slip")
        assert await read(tier, "a") is None
        assert tier.down == "ZeroDivisionError: a slip"


async def test_a_reply_for_another_key_is_a_miss_and_the_connection_goes(server: Server) -> None:
    """A value that names another key is never handed out, is counted, and ends the connections it came over."""
    server.values[where("a").digest] = envelope("b", b"b")
    async with opened(server) as tier:
        assert await read(tier, "a") is None
        assert tier.swapped == 1
        assert tier.stats().damaged == 1
        assert await read(tier, "b") == envelope("b", b"b")
        await until(lambda: any(store.is_closed for store in server.stores))
        assert server.stores[-1].is_open
        assert tier.down is None


async def test_calls_on_connections_that_were_given_up_are_no_outage(server: Server) -> None:
    """What was still under way when a mixed-up reply ended the connections is a miss, and the tier stays up."""
    server.values[where("a").digest] = envelope("b", b"b")
    async with opened(server) as tier:
        server.hold("get_many")
        others = asyncio.ensure_future(tier.get_many([where("c"), where("d")]))
        await until(lambda: server.times("get_many"))
        assert await read(tier, "a") is None
        server.fail("the connection was closed", "get_many")
        server.let_go()
        assert await others == [None, None]
        assert tier.down is None


@pytest.mark.parametrize("at", [0, 8, 150, -1])
async def test_a_damaged_value_is_a_miss(server: Server, at: int) -> None:
    """One wrong byte outside the address: counted, and a miss; one inside it is another's."""
    broken = bytearray(envelope("a", b"a" * 20))
    broken[at] ^= 1
    server.values[where("a").digest] = bytes(broken)
    async with opened(server) as tier:
        assert [await read(tier, "a"), await read(tier, "b")] == [None, envelope("b", b"b")]
        assert tier.damaged + tier.swapped == 1


async def test_no_reader_waits_for_a_server_beyond_its_budget_in_the_queue(server: Server) -> None:
    """Reads that could not be sent are answered when the budget is over, not sent late."""
    async with opened(server, SOON_S, max_connections=2) as tier:
        server.hold("get")
        first = asyncio.ensure_future(read(tier, "a"))
        await asyncio.sleep(SOON_S / 2)
        second = asyncio.ensure_future(read(tier, "b"))
        assert isinstance(await first, Late)
        await ticks()
        assert second.done()
        assert await second is None
        assert batches(server) == ["a"]


async def test_a_held_up_event_loop_is_not_the_servers_fault(server: Server) -> None:
    """A reply that came while the loop did something else is taken, however late the loop looks."""
    async with opened(server, 20 * SOON_S) as tier:
        server.hold("get")
        answer = asyncio.ensure_future(read(tier, "a"))
        await until(lambda: server.times("get"))
        server.let_go()
        time.sleep(25 * SOON_S)  # noqa: ASYNC251  # that is the fault
        assert await answer == envelope("a", b"a")
        assert tier.get(where("b")) is not None


async def test_a_read_whose_call_was_cancelled_before_it_began_ends(server: Server) -> None:
    """Somebody who cancels all tasks of a loop leaves no reader waiting and no later reader either."""
    async with opened(server, SOON_S) as tier:
        answer = tier.get(where("a"))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert answer is not None
        assert await answer is None
        assert await read(tier, "b") == envelope("b", b"b")


def test_a_thread_without_an_event_loop_gets_nothing(server: Server) -> None:
    """There is nobody to wait, so a read is a miss and no error."""

    async def main() -> RemoteTier:
        async with opened(server) as tier:
            assert await asyncio.to_thread(tier.get, where("a")) is None
            return tier

    tier = asyncio.run(main())
    assert tier.get(where("a")) is None

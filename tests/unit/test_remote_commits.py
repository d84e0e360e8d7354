"""Changes of one event loop: shared batches, order, bounds, deadlines, and what a server that refuses still takes."""

import asyncio
import math

import pytest
from tests.unit.remote_server import Server, envelope, opened, ticks, tier_over, until, where

from genesis_cache.tiers import remote_commits
from genesis_cache.tiers.base import Change, Kill, Kind, Late, Notice, Put, Receipt, Remove
from genesis_cache.tiers.remote import RemoteTier
from genesis_cache.tiers.remote_base import Cut

SOON_S = 0.03


@pytest.fixture
def server() -> Server:
    """A server of its own for each test."""
    return Server()


def put(key: str, payload: bytes = b"", since: int | None = None) -> Put:
    """A set, or a fill, that never expires."""
    return Put(where(key), envelope(key, payload), math.inf, since)


def batches(server: Server) -> list[list[Change]]:
    """What each call wrote."""
    return [about for verb, about in server.asked if verb == "commit" and isinstance(about, list)]


async def test_changes_of_one_tick_are_one_commit(server: Server) -> None:
    """Ten callers of one turn cost one call, and each has its own receipts, in order."""
    async with opened(server) as tier:
        receipts = await asyncio.gather(*(tier.commit([put(f"k{n}"), Remove(where(f"r{n}"))]) for n in range(10)))
        assert receipts == [[Receipt(2 * n + 1), Receipt(2 * n + 2)] for n in range(10)]
        assert [len(batch) for batch in batches(server)] == [20]


async def test_what_comes_while_a_batch_is_written_makes_the_next(server: Server) -> None:
    """One commit is under way at a time, so that the order asked is the order written."""
    async with opened(server) as tier:
        server.hold("commit")
        first = tier.commit([put("a", b"1")])
        await until(lambda: server.times("commit"))
        later = []
        for n in range(2, 6):
            later.append(tier.commit([put("a", b"%d" % n)]))
            await ticks()
        assert len(batches(server)) == 1
        server.let_go()
        assert await first == [Receipt(1)]
        assert await asyncio.gather(*later) == [[Receipt(n)] for n in range(2, 6)]
        assert [len(batch) for batch in batches(server)] == [1, 4]
        assert server.values[where("a").digest] == envelope("a", b"5")


async def test_a_cancelled_caller_takes_nothing_back(server: Server) -> None:
    """What was asked is written, whoever has left."""
    async with opened(server) as tier:
        server.hold("commit")
        one, other = asyncio.ensure_future(tier.commit([put("a")])), asyncio.ensure_future(tier.commit([put("b")]))
        await until(lambda: server.times("commit"))
        one.cancel()
        server.let_go()
        assert await other == [Receipt(2)]
        assert where("a").digest in server.values


async def test_a_fill_of_an_older_log_is_refused(server: Server) -> None:
    """Which log a fill was begun in is the one its user had last looked at, not the one that is there now."""
    async with opened(server) as tier:
        position = tier.position()
        assert position is not None
        server.replace(8)
        await until(lambda: tier.notices(position) is None)
        assert await tier.commit([put("a", since=position.seq)]) == [Receipt(refused=True)]
        position = tier.position()
        assert position is not None
        assert position.epoch == 8
        assert await tier.commit([put("a", since=position.seq)]) == [Receipt()]


async def test_beyond_the_bound_values_are_owed_and_invalidations_are_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is full takes no more values, and every removal."""
    monkeypatch.setattr(remote_commits, "MAX_QUEUED_BYTES", 4000)
    async with opened(server) as tier:
        server.hold("commit")
        fits, too_much = tier.commit([put("a", bytes(2000))]), tier.commit([put("b", bytes(2000))])
        gone = tier.commit([Remove(where("b"))])
        assert await too_much is None
        server.let_go()
        assert [await fits, await gone] == [[Receipt(1)], [Receipt(2)]]
        assert await tier.commit([put("b", bytes(2000))]) == [Receipt(3)]


async def test_past_the_timeout_a_change_is_owed(server: Server) -> None:
    """Nobody waits for longer than the timeout, in the queue or on the way; the connection is dropped."""
    async with opened(server, SOON_S, SOON_S) as tier:
        server.hold("commit")
        first = tier.commit([put("a")])
        await until(lambda: server.times("commit"))
        second = tier.commit([Remove(where("b"))])
        assert [await first, await second] == [None, None]
        await until(lambda: any(store.cancelled for store in server.stores))
        assert tier.down is not None
        assert tier.down.startswith("only reads work: ")
        assert await tier.commit([Remove(where("c"))]) is None
        server.let_go()
        await until(lambda: tier.down is None)
        assert await tier.commit([put("a")]) is not None


async def test_a_full_server_still_reads_and_removes(server: Server) -> None:
    """Where only values are refused, reads and removals go on, and values come back when there is room."""
    told: list[str | None] = []
    server.values[where("a").digest] = envelope("a")
    async with opened(server) as tier:
        tier.on_down, tier.on_up = told.append, lambda: told.append(None)
        server.fail("the server is full", "commit of a value")
        assert await tier.commit([put("b")]) is None
        assert tier.down == "only reads work: the server is full"
        answer = tier.get(where("a"))
        assert answer is not None
        assert await answer == envelope("a")
        asked = server.times("commit")
        assert await tier.commit([put("c")]) is None
        assert tier.lease(where("c")) is True
        assert await tier.commit([Remove(where("b")), Kill(Notice(Kind.TAG, "shop", None, "t"))]) is not None
        assert server.times("commit") > asked
        assert tier.down == "only reads work: the server is full"
        server.mend()
        await until(lambda: tier.down is None)
        assert await tier.commit([put("b")]) is not None
        assert told == ["only reads work: the server is full", None]


async def test_one_cut_connection_is_no_outage_and_two_are(server: Server) -> None:
    """What was under way is owed, and the server goes on being asked; it is down when the next change fails too."""
    told: list[str] = []
    async with opened(server) as tier:
        tier.on_down = told.append
        for _ in range(3):
            server.fails["commit"] = Cut("the connection was closed")
            assert await tier.commit([put("a")]) is None
            assert tier.down is None
            server.mend()
            assert await tier.commit([Remove(where("a"))]) is not None
        assert told == []
        server.fails["commit"] = Cut("the connection was closed")
        assert await tier.commit([put("a")]) is None
        assert await tier.commit([put("a")]) is None
        assert tier.down == "only reads work: the connection was closed"
        server.mend()
        await until(lambda: tier.down is None)
        assert told == ["only reads work: the connection was closed"]


async def test_a_cut_connection_is_an_outage_where_the_log_is_lost_too(server: Server) -> None:
    """Nobody waits for a second failure if the server has left everybody."""
    async with opened(server) as tier:
        await until(lambda: server.times("follow") > 1)
        joins = server.times("join")
        server.hold("join")
        server.fail("the connection was lost", "follow")
        await until(lambda: server.times("join") > joins)
        server.fails["commit"] = Cut("the connection was closed")
        assert await tier.commit([put("a")]) is None
        assert tier.down == "only reads work: the connection was closed"


async def test_a_server_that_is_down_is_not_asked(server: Server) -> None:
    """While reads are known to fail, changes are owed at once."""
    async with opened(server) as tier:
        server.fail("the connection was refused", "get", "join", "follow")
        answer = tier.get(where("a"))
        assert answer is not None
        assert await answer is None
        assert await tier.commit([Remove(where("a"))]) is None
        assert server.times("commit") == 0


async def test_while_a_reply_is_late_the_result_of_a_load_is_not_sent(server: Server) -> None:
    """A fill would make its caller wait for a server that may be frozen; an invalidation has to try."""
    async with opened(server, SOON_S) as tier:
        server.hold("get")
        answer = tier.get(where("a"))
        assert answer is not None
        late = await answer
        assert isinstance(late, Late)
        assert await tier.commit([put("a", since=0)]) is None
        assert await tier.commit([Remove(where("a"))]) == [Receipt(1)]
        server.let_go()
        await late.rest


async def test_one_poisoned_change_is_owed_alone(server: Server) -> None:
    """Where a batch fails in a way no store should, each order is tried by itself."""
    bad = where("bad")

    class Picky(Server):
        def apply(self, changes: object, epoch: int) -> list[Receipt]:
            assert isinstance(changes, list)
            if any(change.address is bad for change in changes):
                raise ZeroDivisionError
            return super().apply(changes, epoch)

    picky = Picky()
    async with opened(picky) as tier:
        answers = await asyncio.gather(*(tier.commit([Remove(one)]) for one in (where("a"), bad, where("b"))))
        assert answers == [[Receipt(1)], None, [Receipt(2)]]
        assert tier.down is None
        assert tier.errors == 1


async def test_a_commit_that_meets_another_log_has_it_joined(server: Server) -> None:
    """A new epoch is learnt from a receipt too."""
    async with opened(server) as tier:
        position = tier.position()
        assert position is not None
        with server.guard:
            server.epoch = 9
        await tier.commit([Remove(where("a"))])
        await until(lambda: tier.position() is not None and tier.position() != position)
        heard = tier.position()
        assert heard is not None
        assert heard.epoch == 9


async def test_close_writes_what_is_queued(server: Server) -> None:
    """What was asked before the close is there after it; what is asked after is owed."""
    async with opened(server) as tier:
        answers = [tier.commit([put(f"k{n}")]) for n in range(3)]
        await tier.close()
        assert [answer.result() for answer in answers] == [[Receipt(n)] for n in (1, 2, 3)]
        assert await tier.commit([put("k")]) is None
        assert tier.commit_now([put("k")]) is None


def test_what_an_event_loop_leaves_behind_is_written(server: Server) -> None:
    """A loop that ends with changes in the queue, and on the way, leaves them to the tier's thread."""
    server.hold("commit")

    async def leave() -> RemoteTier:
        tier = tier_over(server)
        await tier.open()
        tier.commit([put("a")])
        await until(lambda: server.times("commit"))
        tier.commit([Remove(where("b"))])
        return tier

    async def end(tier: RemoteTier) -> None:
        server.let_go()
        await until(lambda: where("b").digest in server.changed)
        assert where("a").digest in server.values
        await tier.close()

    tier = asyncio.run(leave())
    asyncio.run(end(tier))

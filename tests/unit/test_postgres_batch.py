"""Batches of a PostgreSQL store: how changes are cut into transactions, and what their receipts say."""

from genesis_cache.model.notice import Kind
from genesis_cache.testing.store_words import NEVER, address, kill, put
from genesis_cache.tiers.base import Change, Drop, Kill, Notice, Put, Remove
from genesis_cache.tiers.postgres.batch import DROP, FILL, REMOVE, SET, VOID_FILL, Batch, batches
from genesis_cache.tiers.wire import unpack_notices

NOW = 1000.0
ORIGIN = 7


def cut(*changes: Change, widest: int = 1000) -> list[Batch]:
    return list(batches(changes, NOW, ORIGIN, widest))


def told(batch: Batch) -> list[tuple[int, str]]:
    """Sequences and names, if the log stood at 0 and nothing was refused."""
    batch.arguments()
    found = [unpack_notices(message, last) for message, last in zip(batch.messages, batch.lasts, strict=True)]
    return [(notice.seq, notice.name) for notices in found for notice in notices or []]


def test_each_change_has_its_operation() -> None:
    """Sets, fills, removes and drops are told apart; a kill has no row."""
    (batch,) = cut(put("a", b"1"), put("b", b"1", since=3), Remove(address("c")), Drop(address("d")), kill(Kind.CLEAR))
    assert batch.ops == [SET, FILL, REMOVE, DROP]
    assert batch.told == 3
    assert batch.takes_away


def test_only_the_last_of_a_key_is_written() -> None:
    """Of plain changes of one key only the last touches its row, and all are told in order."""
    (batch,) = cut(put("a", b"1"), Remove(address("a")), put("b", b"1"), put("a", b"2"))
    assert (batch.ops, batch.envelopes) == ([SET, SET], [b"1", b"2"])
    assert told(batch) == [(1, "a"), (2, "a"), (3, "b"), (4, "a")]
    assert [receipt.seq for receipt in batch.receipts(10, [])] == [11, 12, 13, 14]


def test_a_change_that_depends_on_another_waits_for_it() -> None:
    """A fill, a version or a drop of a key that the batch has changed is in a transaction of its own."""
    for second in (put("a", b"2", since=1), Put(address("a"), b"2", NEVER, version=2), Drop(address("a"))):
        assert len(cut(put("a", b"1"), second, put("b", b"1"))) == 2
        assert len(cut(second, put("a", b"1"))) == 2


def test_large_batches_are_cut() -> None:
    """At a thousand changes, and at eight megabytes."""
    assert [len(batch.ops) for batch in cut(*(put(f"k{i}", b"") for i in range(2500)))] == [1000, 1000, 500]
    big = bytes(3 * 2**20)
    assert [len(batch.ops) for batch in cut(*(put(f"k{i}", big) for i in range(5)), widest=2**23)] == [2, 2, 1]


def test_what_cannot_be_kept_takes_the_old_value_away() -> None:
    """Too large, or past its end: the change is told, and what was there goes."""
    (batch,) = cut(put("a", bytes(2000)), put("b", b"1", gone_at=NOW), put("c", bytes(2000), since=1))
    assert batch.ops == [REMOVE, REMOVE, VOID_FILL]
    assert batch.envelopes == [None] * 3
    assert batch.evicted == 2


def test_refused_sets_take_no_sequence() -> None:
    """Receipts after a refused set are one lower, and its notice is guarded by its row."""
    changes = [put("a", b"1"), Put(address("b"), b"1", NEVER, version=1), Remove(address("c")), put("d", b"1", since=1)]
    (batch,) = cut(*changes)
    batch.arguments()
    assert (batch.lasts, batch.guards) == ([1, 2, 3], [0, 2, 0])
    receipts = batch.receipts(10, [2, 4])
    assert [(receipt.seq, receipt.refused) for receipt in receipts] == [(11, False), (0, True), (12, False), (0, True)]


def test_notices_keep_their_origin() -> None:
    """What another handle said travels as its own message, among ours."""
    theirs = Kill(Notice(Kind.TAG, "shop", None, "red", origin=9))
    (batch,) = cut(put("a", b"1"), theirs, put("b", b"1"))
    batch.arguments()
    found = [unpack_notices(message, last) or [] for message, last in zip(batch.messages, batch.lasts, strict=True)]
    assert [[(notice.seq, notice.origin) for notice in notices] for notices in found] == [[(1, 7)], [(2, 9)], [(3, 7)]]


def test_the_newest_of_equal_kills_is_the_floor() -> None:
    """A name killed twice has one floor, at its last sequence; a clear of everything is known as such."""
    everything = kill(Kind.CLEAR, namespace="")
    (batch,) = cut(kill(Kind.TAG, "red"), kill(Kind.TAG, "blue"), kill(Kind.TAG, "red"), everything)
    assert sorted(batch.floors.values()) == [2, 3, 4]
    assert batch.cleared == 4

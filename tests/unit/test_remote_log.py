"""This process's copy of a log: positions, notices since, floors, gaps and epochs."""

import pytest

from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.tiers import remote_log
from genesis_cache.tiers.base import Receipt
from genesis_cache.tiers.remote_base import Committed, Joined
from genesis_cache.tiers.remote_log import RemoteLog


def key(seq: int) -> Notice:
    """A key that was changed."""
    return Notice(Kind.KEY, "", None, f"k{seq}", seq)


def tag(seq: int) -> Notice:
    """A tag that was killed."""
    return Notice(Kind.TAG, "", None, f"t{seq}", seq)


@pytest.fixture
def log() -> RemoteLog:
    """A log of epoch 7 that was joined at sequence 10."""
    log = RemoteLog()
    log.joined(Joined(Position(7, 10), [tag(4)]), 100.0, is_gapless=True)
    return log


def test_nothing_is_known_before_the_first_join() -> None:
    """No position, no sequence, no proof."""
    log = RemoteLog()
    assert (log.known, log.seq(), log.heard_at, log.epoch) == (None, 0, None, 0)
    assert log.notices(Position(7, 0)) is None
    assert not log.receipted(Committed(7, [Receipt(3)]))


def test_what_was_heard_can_be_asked_from_any_place_since(log: RemoteLog) -> None:
    """Notices after a position, in order; none at the end; None before the join."""
    log.heard([key(11), tag(12)], 101.0)
    log.heard([key(13)], 102.0)
    assert log.known == Position(7, 13)
    assert log.notices(Position(7, 10)) == [key(11), tag(12), key(13)]
    assert log.notices(Position(7, 12)) == [key(13)]
    assert log.notices(Position(7, 13)) == []
    assert log.notices(Position(7, 9)) is None
    assert log.notices(Position(8, 12)) is None
    assert log.floors() == [tag(4), tag(12)]
    assert log.check() == []


def test_silence_that_was_answered_is_a_proof(log: RemoteLog) -> None:
    """An empty answer moves the proof to when it was asked for, and nothing else."""
    log.heard([], 105.0)
    assert (log.heard_at, log.known) == (105.0, Position(7, 10))


def test_after_a_lost_connection_the_log_goes_on_where_it_was(log: RemoteLog) -> None:
    """The same log: what was missed is still to come, so nothing is proven by the join."""
    log.heard([key(11)], 101.0)
    log.lost()
    assert not log.is_heard
    assert log.notices(Position(7, 10)) == [key(11)], "what was heard counts all the same"
    assert not log.joined(Joined(Position(7, 15), []), 110.0, is_gapless=True)
    assert (log.known, log.heard_at) == (Position(7, 11), 101.0)
    assert log.notices(Position(7, 10)) == [key(11)]


@pytest.mark.parametrize(
    ("joined", "is_gapless"),
    [(Position(8, 2), True), (Position(7, 15), False), (Position(7, 9), True)],
    ids=["another epoch", "a gap", "set back"],
)
def test_a_log_that_cannot_be_followed_is_begun_anew(log: RemoteLog, joined: Position, *, is_gapless: bool) -> None:
    """Another epoch, a gap or a sequence that went back: nothing heard before counts."""
    log.heard([key(11), tag(12)], 101.0)
    assert log.joined(Joined(joined, [tag(1)]), 110.0, is_gapless=is_gapless)
    assert (log.known, log.heard_at, log.floors()) == (joined, 110.0, [tag(1)])
    assert log.notices(Position(7, 12)) is None
    assert log.notices(joined) == []
    assert log.check() == []


def test_receipts_count_in_their_own_log_only(log: RemoteLog) -> None:
    """The sequence follows receipts of this epoch; one of another epoch is a sign to join again."""
    assert log.receipted(Committed(7, [Receipt(14), Receipt(13), Receipt()]))
    assert log.seq() == 14
    assert log.known == Position(7, 10)
    assert not log.receipted(Committed(8, [Receipt(99)]))
    assert log.seq() == 14
    log.joined(Joined(Position(8, 3), []), 110.0, is_gapless=True)
    assert log.seq() == 3


def test_changes_are_for_the_log_that_its_users_know(log: RemoteLog) -> None:
    """The epoch of a change is the one last looked at, or the one that is there if nobody looked."""
    assert log.epoch == 7
    log.believed = 7
    log.joined(Joined(Position(8, 3), []), 110.0, is_gapless=True)
    assert log.epoch == 7


def test_old_notices_are_let_go_and_their_floors_kept(log: RemoteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer is bounded: who has not looked for longer forgets all, and still finds every floor."""
    monkeypatch.setattr(remote_log, "MAX_NOTICES", 3)
    log.heard([tag(11), key(12), key(13), tag(14), key(15)], 101.0)
    assert log.notices(Position(7, 11)) is None
    assert log.notices(Position(7, 12)) == [key(13), tag(14), key(15)]
    assert log.floors() == [tag(4), tag(11), tag(14)]
    assert log.check() == []

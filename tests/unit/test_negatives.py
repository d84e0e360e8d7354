"""Negatives: findings are forgotten by changes and by time, and never take more than their room."""

from genesis_cache.coherence import negatives as module
from genesis_cache.coherence.fills import Fills
from genesis_cache.coherence.negatives import Negative, Negatives


def test_a_change_ends_what_was_found_before_it() -> None:
    """What the log tells of an earlier change says nothing against a younger finding; a change of ours always does."""
    fills = Fills()
    fills.negatives.keep("k", Negative("absent", 0.0, 10.0, 5))
    fills.hear("k", 5)
    assert fills.negatives.look("k", 1.0)
    fills.hear("k", 6)
    assert fills.negatives.look("k", 1.0) is None
    fills.negatives.keep("k", Negative("absent", 0.0, 10.0, 7))
    fills.kill("k")
    assert not fills.negatives
    fills.negatives.keep("k", Negative("absent", 0.0, 10.0, 7))
    fills.kill_all()
    assert not fills.negatives


def test_a_finding_ends_with_its_time_and_the_oldest_make_room() -> None:
    """A finding holds until its second, and no more are remembered than there is room for."""
    negatives = Negatives()
    for number in range(module.MAX_NEGATIVES + 10):
        negatives.keep(number, Negative("absent", 0.0, 10.0, 0))
    assert len(negatives) == module.MAX_NEGATIVES
    assert negatives.look(9, 0.0) is None
    assert negatives.look(10, 9.9)
    assert negatives.look(10, 10.0) is None
    assert len(negatives) == module.MAX_NEGATIVES - 1

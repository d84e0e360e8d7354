"""Floors: what an invalidation kills, by sequence, scope, tag and pattern; bounded, and safe in any order."""

import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis_cache.coherence import floors as floors_module
from genesis_cache.coherence.floors import Floors, reach_of
from genesis_cache.model.notice import Kind, Notice

ROOT = reach_of("", None)


def test_only_what_is_older_dies() -> None:
    """An entry dies by a notice with a higher sequence, and lives by one with its own or a lower."""
    floors = Floors()
    floors.apply(Notice(Kind.TAG, "", None, "t", 5))
    assert floors.killer(ROOT, "k", ("t",), 4) == 5
    assert floors.killer(ROOT, "k", ("t",), 5) == 0
    assert floors.killer(ROOT, "k", ("u",), 4) == 0
    assert floors.killer(ROOT, "k", (), 4) == 0


def test_scopes() -> None:
    """A notice reaches its namespace, those inside it, and every owner or its own."""
    floors = Floors()
    floors.apply(Notice(Kind.CLEAR, "a", None, "", 5))
    floors.apply(Notice(Kind.CLEAR, "", "x", "", 7))
    dead = {
        (name, owner): floors.killer(reach_of(name, owner), "k", (), 0)
        for name in ("", "a", "a/b", "ab")
        for owner in (None, "x", "y")
    }
    assert dead == {
        ("", None): 0, ("", "x"): 7, ("", "y"): 0,
        ("a", None): 5, ("a", "x"): 7, ("a", "y"): 5,
        ("a/b", None): 5, ("a/b", "x"): 7, ("a/b", "y"): 5,
        ("ab", None): 0, ("ab", "x"): 7, ("ab", "y"): 0,
    }  # fmt: skip


def test_every_change_is_a_new_epoch_and_a_key_notice_is_none() -> None:
    """The epoch tells that something moved; a single key's notice moves only the sequence."""
    floors = Floors()
    before = floors.epoch
    floors.apply(Notice(Kind.KEY, "", None, "k", 3))
    assert floors.epoch is before
    assert floors.seq == 3
    floors.apply(Notice(Kind.PATTERN, "", None, "k*", 4))
    assert floors.epoch is not before
    floors.reset(9)
    assert floors.killer(ROOT, "k", (), 8) == 9
    assert floors.killer(ROOT, "k", (), 9) == 0


def test_too_many_tags_and_patterns_become_one_floor() -> None:
    """Beyond the bounds older floors are united: what they killed stays dead, and memory stays bounded."""
    floors = Floors()
    for n in range(floors_module.MAX_TAG_FLOORS + 10):
        floors.apply(Notice(Kind.TAG, "", None, f"t{n}", n + 1))
    for n in range(floors_module.MAX_PATTERNS + 10):
        floors.apply(Notice(Kind.PATTERN, "", None, f"p{n}", 100_000 + n))
    assert len(floors._tags["", None]) <= floors_module.MAX_TAG_FLOORS
    assert len(floors._patterns) <= floors_module.MAX_PATTERNS
    for n in (0, 5, floors_module.MAX_TAG_FLOORS):
        assert floors.killer(ROOT, "k", (f"t{n}",), n)
    assert floors.killer(ROOT, "p0", (), 99_999)
    assert floors.killer(ROOT, f"p{floors_module.MAX_PATTERNS + 5}", (), 99_999)


notices = st.builds(
    Notice,
    st.sampled_from([Kind.TAG, Kind.PATTERN, Kind.CLEAR]),
    st.sampled_from(["", "a", "a/b"]),
    st.sampled_from([None, "x"]),
    st.sampled_from(["t", "k*"]),
    st.integers(1, 20),
)


@given(st.lists(notices, max_size=12), st.randoms())
def test_order_and_repetition_do_not_matter(told: list[Notice], rng: object) -> None:
    """Notices heard in any order, some twice, kill the same."""
    one, two = Floors(), Floors()
    for notice in told:
        one.apply(notice)
    again = [*told, *told]
    rng.shuffle(again)  # type: ignore[attr-defined]  # Hypothesis' random.Random
    for notice in again:
        two.apply(notice)
    for name in ("", "a", "a/b"):
        for owner in (None, "x"):
            for seq in range(21):
                reach = reach_of(name, owner)
                assert bool(one.killer(reach, "k1", ("t",), seq)) == bool(two.killer(reach, "k1", ("t",), seq))
    assert one.seq == two.seq


def test_an_order_counts_before_the_log_has_answered() -> None:
    """What is invalidated here is dead at once, and so is what is made until the log has given its sequence."""
    floors = Floors()
    floors.hear(10)
    floors.foresee(Notice(Kind.TAG, "", None, "t"))
    assert floors.killer(ROOT, "k", ("t",), 10)
    assert floors.seq == floors.given == 10, "nothing may claim a sequence that the log has not given"
    floors.apply(Notice(Kind.TAG, "", None, "t", 14))
    assert floors.killer(ROOT, "k", ("t",), 13)
    assert not floors.killer(ROOT, "k", ("t",), 14)
    assert not floors.is_ahead


def test_life_goes_on_while_the_log_cannot_be_told() -> None:
    """After an order that the log could not be told, new values live here, and it is known that they ran ahead."""
    floors = Floors()
    floors.hear(10)
    floors.overrule(Notice(Kind.CLEAR, "", None, ""))
    assert not floors.killer(ROOT, "k", (), floors.seq)
    assert floors.killer(ROOT, "k", (), 10)
    assert floors.killer(ROOT, "k", (), 10**12), "what others have made meanwhile is dead too"
    assert floors.given == 10
    assert floors.is_ahead
    floors.reset(0)
    assert not floors.is_ahead


def test_a_pattern_is_matched_once_against_an_entry() -> None:
    """Who was found alive at an epoch is matched only against younger patterns, and against one that is told again."""
    floors = Floors()
    floors.apply(Notice(Kind.PATTERN, "", None, "a*", 10))
    epoch = floors.epoch
    seen: list[str] = []

    def watched(key: str) -> bool:
        seen.append(key)
        return key.startswith("a")

    floors._patterns[0].matches = watched
    assert floors.killer(ROOT, "k", (), 5) == 0
    assert seen == ["k"]
    floors.apply(Notice(Kind.TAG, "", None, "t", 11))
    assert floors.killer(ROOT, "k", (), 5, epoch) == 0
    assert seen == ["k"]
    floors.apply(Notice(Kind.PATTERN, "", None, "k*", 12))
    assert floors.killer(ROOT, "k", (), 5, epoch) == 12
    later = floors.epoch
    assert floors.killer(ROOT, "k2", (), 12, later) == 0
    floors.apply(Notice(Kind.PATTERN, "", None, "k*", 13))
    assert floors.killer(ROOT, "k2", (), 12, later) == 13
    assert floors.killer(ROOT, "a", (), 5, None) == 10


@pytest.mark.usefixtures("quick_switches")
def test_orders_of_several_threads_are_all_in_force() -> None:
    """What one thread orders and what another hears at the same moment both kill: none takes the other's place."""
    floors = Floors()
    scopes = ["", "a", "a/b", "c"]

    def order(start: int) -> None:
        for n in range(start, start + 2000, 2):
            kind = Kind.CLEAR if n % 20 < 2 else Kind.PATTERN
            floors.apply(Notice(kind, scopes[n % 4], None, f"p{n % 30}", n + 1))

    threads = [threading.Thread(target=order, args=(start,)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = Floors()
    for n in range(2000):
        kind = Kind.CLEAR if n % 20 < 2 else Kind.PATTERN
        alone.apply(Notice(kind, scopes[n % 4], None, f"p{n % 30}", n + 1))
    for name in ("a", "a/b", "c"):
        reach = reach_of(name, None)
        for key in (f"p{n}" for n in range(30)):
            assert floors.killer(reach, key, (), 0) == alone.killer(reach, key, (), 0)


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns at nearly every instruction."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)

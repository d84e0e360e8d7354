"""The checker over histories made by hand: each check finds its violation, and says nothing of what is right."""

import pytest

from genesis_cache.testing.checker import NS, Promise, check
from genesis_cache.testing.history import Change, Commit, Fault, Get, History, Line, Load, Mark

MS = 1_000_000


def history(*lines: Line) -> History:
    made = History()
    for serial, line in enumerate(lines, start=1):
        if not isinstance(line, Get | Mark) and not line.serial:
            line.serial = serial
        line.process = line.process or "w0"
        made.add(line)
    return made


def commit(version: int, at: int, key: str = "k") -> Commit:
    return Commit(key, version, begin=at, end=at + 1)


def load(version: int, begin: int, end: int, process: str = "w0", ttl_s: float | None = None, serial: int = 0) -> Load:
    return Load("k", version, ttl_s, serial=serial or 1000 + version, begin=begin, end=end, process=process)


def get(version: int, begin: int, maker: str = "", process: str = "w1", **said: object) -> Get:
    return Get("k", begin, begin + 1, version, maker or f"w0:{1000 + version}", "k", process=process, **said)  # type: ignore[arg-type]  # fields by name


def delete(begin: int, end: int | None, process: str = "w0", outcome: str = "ok", kind: str = "delete") -> Change:
    return Change(kind, ("k",), outcome=outcome, begin=begin, end=end, process=process)


def names(made: History, promise: Promise | None = None) -> list[str]:
    return [violation.check for violation in check(made, promise)]


RIGHT = (commit(1, 0), load(1, 10, 20), commit(2, 30), delete(40, 50), load(2, 60, 70))


@pytest.mark.parametrize("begin", [49, 51, 49 + NS])
def test_old_version_within_the_bound_is_no_violation(begin: int) -> None:
    """Another process may read the old version until the bound has passed."""
    assert names(history(*RIGHT, get(1, begin))) == []


def test_old_version_past_the_bound_is_stale() -> None:
    """A read that begins later than the bound after an invalidation must know it; the proof names the invalidation."""
    (violation,) = check(history(*RIGHT, get(1, 51 + NS)))
    assert violation.check == "staleness"
    assert "w1, reading k, was given version 1: 2 was current since 1000.0 ms" in violation.sentence
    assert len(violation.lines) == 2
    assert "change" in violation.lines[0]
    assert "kind=delete" in violation.lines[0]
    assert "w1 get key=k" in violation.lines[1]
    assert "staleness" in str(violation)


def test_new_version_and_a_miss_are_never_stale() -> None:
    """Who reads the new version, or nothing, is right at any time."""
    miss = Get("k", 5 * NS, 5 * NS + 1, process="w1")
    assert names(history(*RIGHT, get(2, 5 * NS), miss)) == []


def test_set_makes_its_version_the_least_that_may_be_read() -> None:
    """A set that has ended is an invalidation of what was there before."""
    stored = Change("set", ("k",), 2, outcome="ok", begin=40, end=50, process="w0")
    made = history(commit(1, 0), load(1, 10, 20), commit(2, 30), stored, get(1, 60 + NS))
    assert names(made) == ["staleness"]


@pytest.mark.parametrize("change", [delete(40, 50, outcome="degraded"), delete(40, None, outcome="")])
def test_change_that_was_not_told_promises_nothing_to_others(change: Change) -> None:
    """A degraded or unknown change binds no other process."""
    assert names(history(commit(1, 0), load(1, 10, 20), commit(2, 30), change, get(1, 9 * NS))) == []


def test_process_reads_its_own_changes_at_once() -> None:
    """The bound is zero for the process that made the change, even where it could not tell the others."""
    made = (commit(1, 0), load(1, 10, 20), commit(2, 30))
    assert names(history(*made, delete(40, 50), get(1, 51, process="w0"))) == ["own change"]
    assert names(history(*made, delete(40, 50, outcome="degraded"), get(1, 51, process="w0"))) == ["own change"]
    assert names(history(*made, delete(40, 50), get(1, 45, process="w0"))) == []


def test_process_that_does_not_hear_is_bound_only_in_bypass() -> None:
    """Cut off, a process serves old values and says so; with ``bypass`` the bound holds whatever fails."""
    made = history(*RIGHT, Fault("cut", begin=40, end=3 * NS), get(1, 2 * NS, hears=False))
    assert names(made) == []
    assert names(made, Promise(bypass=True)) == ["staleness"]


def test_deafness_without_a_fault_is_a_violation() -> None:
    """A process must not say that it does not hear where nothing is or was broken."""
    assert names(history(*RIGHT, get(2, 2 * NS, hears=False))) == ["deaf"]


def test_value_that_was_killed_does_not_come_back() -> None:
    """What was loaded before an invalidation began is dead after it, though no new version was committed."""
    made = (commit(1, 0), load(1, 10, 20), delete(40, 50, kind="tag"))
    assert names(history(*made, get(1, 51 + NS))) == ["resurrection"]
    assert names(history(*made, get(1, 51, process="w0"))) == ["own change"]


def test_value_loaded_while_the_invalidation_was_on_its_way_may_live() -> None:
    """Only a load that began before the invalidation did is beaten by it."""
    made = history(commit(1, 0), delete(40, 50), load(1, 45, 60), get(1, 5 * NS))
    assert names(made) == []


def test_load_that_began_before_the_invalidation_is_dead_though_it_ended_later() -> None:
    """The slow load of an old value must not be served, whenever it ends."""
    made = history(commit(1, 0), load(1, 10, 90), delete(40, 50), get(1, 2 * NS))
    assert names(made) == ["resurrection"]


def test_set_that_ended_after_the_invalidation_began_may_live() -> None:
    """Of a set and an invalidation at the same time either may come last."""
    stored = Change("set", ("k",), 1, outcome="ok", begin=10, end=45, process="w0", serial=9)
    assert names(history(commit(1, 0), stored, delete(40, 50, "w2"), get(1, 5 * NS, "w0:9"))) == []


def test_version_that_nobody_had_committed_is_from_the_future() -> None:
    """A version is read only after its commit began, and only from somebody who had made it."""
    made = (commit(1, 100), load(1, 110, 120))
    assert "future" in names(history(*made, get(1, 50)))
    assert "future" in names(history(*made, get(1, 130, maker="w7:1")))
    assert "future" in names(history(*made, get(3, 130)))
    assert names(history(*made, get(1, 130))) == []


def test_value_of_another_key_or_a_torn_one_is_a_mix_up() -> None:
    """What is read names the key that was asked for, and is whole."""
    other = Get("k", 90, 91, 1, "w0:1001", "other", process="w1")
    torn = Get("k", 90, 91, 1, "", "", process="w1")
    assert names(history(*RIGHT, other, torn)) == ["mix-up", "mix-up"]


def test_two_loads_at_once_of_an_unchanged_key() -> None:
    """One load a key in the cluster, unless the key was changed meanwhile, a load has ended, or something is broken."""
    first, beside = load(1, 10 * NS, 12 * NS), load(1, 11 * NS, 13 * NS, "w1", serial=5)
    later = load(1, 12 * NS + 1, 13 * NS, "w1", serial=5)
    start = commit(1, 0)
    assert names(history(start, first, beside)) == ["two loads"]
    assert names(history(start, first, later)) == []
    assert names(history(start, first, beside, delete(10 * NS + 5, 10 * NS + 9))) == []
    assert names(history(start, first, beside, delete(9 * NS + 1, 9 * NS + 5))) == []  # heard up to a second later
    assert names(history(start, first, beside, delete(5, 9))) == ["two loads"]
    assert names(history(start, first, beside, Fault("cut", begin=3 * NS, end=4 * NS))) == []
    assert names(history(start, first, beside), Promise(one_load=False)) == []


def test_changes_that_were_owed_have_come_when_all_is_healed() -> None:
    """After healing and twice the bound every process has every change, also those that were degraded."""
    made = (commit(1, 0), load(1, 10, 20), commit(2, 30), delete(40, 50, outcome="degraded"), Mark("healed", NS))
    assert names(history(*made, get(1, 4 * NS))) == ["convergence"]
    assert names(history(*made, get(1, 2 * NS))) == []


def test_expired_value_is_not_given_as_fresh() -> None:
    """A plain read gets no value past its ttl; one that takes stale values may."""
    made = (commit(1, 0), load(1, 10, 20, ttl_s=2))
    assert names(history(*made, get(1, 4 * NS))) == ["ttl"]
    assert names(history(*made, get(1, 4 * NS, fresh=False))) == []
    assert names(history(*made, get(1, 2 * NS))) == []


def test_calls_that_raise_or_hang_are_told() -> None:
    """Neither a read nor a change may raise because of the cluster, nor never come back."""
    failed = Get("k", 5, 6, error="ConnectionError: gone")
    changes = delete(5, 6, outcome="raised"), delete(7, 8, outcome="hung")
    assert names(history(*RIGHT, failed, *changes)) == ["raised", "raised", "hung"]


def test_going_back_is_told_where_it_is_asked_for() -> None:
    """With ``monotonic`` a process never reads an older version than it has read before."""
    made = history(*RIGHT, get(2, 100), get(1, 200))
    assert names(made) == []
    assert names(made, Promise(monotonic=True)) == ["backwards"]


def test_change_without_keys_covers_all_of_them() -> None:
    """``clear`` is on record as a change of every key of the history."""
    everything = Change("clear", outcome="ok", begin=40, end=50, process="w2")
    assert names(history(commit(1, 0), load(1, 10, 20), everything, get(1, 3 * NS))) == ["resurrection"]

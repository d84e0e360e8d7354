"""Fills: a load that began before its key changed may not store; exact, and forgotten when none is on its way."""

from genesis_cache.coherence import fills as fills_module
from genesis_cache.coherence.fills import MAX_REMEMBERED, Fills


def test_a_change_kills_the_fills_that_began_before_it() -> None:
    """A kill reaches older fills of its key only: neither newer ones nor other keys."""
    fills = Fills()
    old = fills.begin(0)
    fills.kill("k")
    new = fills.begin(0)
    assert not fills.alive(old, "k")
    assert fills.alive(new, "k")
    assert fills.alive(old, "other")
    fills.kill_all()
    assert not fills.alive(new, "k")
    assert not fills.alive(new, "other")
    assert fills.alive(fills.begin(0), "k")


def test_nothing_is_remembered_while_nothing_is_on_its_way() -> None:
    """Kills cost nothing and are forgotten when no fill has begun."""
    fills = Fills()
    for n in range(1000):
        fills.kill(n)
    assert fills._killed == {}
    token = fills.begin(0)
    fills.kill("k")
    assert len(fills._killed) == 1
    fills.end()
    assert fills._killed == {}
    assert token == (0, 0)


def test_a_flood_becomes_one_floor(monkeypatch: object) -> None:
    """Beyond its bound the memory of kills becomes one kill of all: safe, and bounded."""
    fills = Fills()
    token = fills.begin(0)
    for n in range(fills_module.MAX_REMEMBERED + 1):
        fills.kill(n)
    assert len(fills._killed) <= fills_module.MAX_REMEMBERED
    assert not fills.alive(token, "never killed")
    assert fills.alive(fills.begin(0), "never killed")


def test_a_forked_child_starts_anew() -> None:
    """After reset no older fill may store, and none is counted."""
    fills = Fills()
    token = fills.begin(0)
    fills.reset()
    assert not fills.alive(token, "k")
    fills.begin(0)
    fills.end()
    assert fills._active == 0


def test_what_the_log_tells_late_does_not_harm_a_younger_fill() -> None:
    """A load that began after a change is stored, though the change is heard of only while the load runs."""
    fills = Fills()
    older, younger = fills.begin(6), fills.begin(7)
    fills.hear("k", 7)
    assert not fills.alive(older, "k")
    assert fills.alive(younger, "k")
    assert fills.alive(older, "other")
    fills.hear("k", 5)
    assert not fills.alive(older, "k")


def test_a_flood_of_heard_changes_is_bounded() -> None:
    """Hearing of more keys than are remembered kills every fill that has begun, not memory."""
    fills = Fills()
    token = fills.begin(10**9)
    for n in range(MAX_REMEMBERED + 1):
        fills.hear(n, 1)
    assert len(fills._heard) <= MAX_REMEMBERED
    assert not fills.alive(token, "never changed")

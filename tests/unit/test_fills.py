"""Fills: a load that began before its key changed may not store; exact, and forgotten when none is on its way."""

from genesis_cache.coherence import fills as fills_module
from genesis_cache.coherence.fills import Fills


def test_a_change_kills_the_fills_that_began_before_it() -> None:
    """A kill reaches older fills of its key only: neither newer ones nor other keys."""
    fills = Fills()
    old = fills.begin()
    fills.kill("k")
    new = fills.begin()
    assert not fills.alive(old, "k")
    assert fills.alive(new, "k")
    assert fills.alive(old, "other")
    fills.kill_all()
    assert not fills.alive(new, "k")
    assert not fills.alive(new, "other")
    assert fills.alive(fills.begin(), "k")


def test_nothing_is_remembered_while_nothing_is_on_its_way() -> None:
    """Kills cost nothing and are forgotten when no fill has begun."""
    fills = Fills()
    for n in range(1000):
        fills.kill(n)
    assert fills._killed == {}
    token = fills.begin()
    fills.kill("k")
    assert len(fills._killed) == 1
    fills.end()
    assert fills._killed == {}
    assert token == 0


def test_a_flood_becomes_one_floor(monkeypatch: object) -> None:
    """Beyond its bound the memory of kills becomes one kill of all: safe, and bounded."""
    fills = Fills()
    token = fills.begin()
    for n in range(fills_module.MAX_REMEMBERED + 1):
        fills.kill(n)
    assert len(fills._killed) <= fills_module.MAX_REMEMBERED
    assert not fills.alive(token, "never killed")
    assert fills.alive(fills.begin(), "never killed")


def test_a_forked_child_starts_anew() -> None:
    """After reset no older fill may store, and none is counted."""
    fills = Fills()
    token = fills.begin()
    fills.reset()
    assert not fills.alive(token, "k")
    fills.begin()
    fills.end()
    assert fills._active == 0

"""Whether a server may be asked: breakers of reading and writing, suspicion, and who is told what and when."""

import pytest

from genesis_cache.testing.clock import FakeClock
from genesis_cache.tiers.breaker import Circuit
from genesis_cache.tiers.remote_base import Outage
from genesis_cache.tiers.remote_health import Health, Unanswered, sentence

REFUSED = Outage("the connection was refused")
FULL = Outage("the server is full")


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def told() -> list[str | None]:
    """What the owner of the cache was told."""
    return []


@pytest.fixture
def health(clock: FakeClock, told: list[str | None]) -> Health:
    """Of a server that is in use."""
    health = Health("redis", clock)
    health.tell = told.append
    health.start()
    return health


def test_a_server_in_use_takes_everything(health: Health, told: list[str | None]) -> None:
    """Nothing is held back and nobody is told anything."""
    assert (health.is_shut, health.reason, health.writes_all, health.writes_removals) == (False, None, True, True)
    assert health.circuit is Circuit.CLOSED
    assert told == []


def test_reading_that_fails_stops_everything(health: Health, told: list[str | None], clock: FakeClock) -> None:
    """Nothing is sent until an attempt has shown that it works; down and up are told once each."""
    health.read_failed(REFUSED)
    health.read_failed(REFUSED)
    assert (health.is_shut, health.writes_all, health.writes_removals) == (True, False, False)
    assert health.reason == "the connection was refused"
    assert not health.may_try_read()
    assert 0.05 <= health.retry_in_s() <= 0.2
    clock.advance(0.2)
    assert [health.may_try_read(), health.may_try_read()] == [True, False]
    health.read_worked()
    assert (health.is_shut, health.reason) == (False, None)
    assert told == ["the connection was refused", None]
    assert health.errors == 2


def test_failures_of_one_outage_count_once(health: Health, clock: FakeClock) -> None:
    """Eight calls that were under way when the server went do not make the first delay a long one."""
    for _ in range(8):
        health.read_failed(REFUSED)
    clock.advance(0.2)
    assert health.may_try_read()
    health.read_failed(REFUSED)
    assert 0.2 <= health.retry_in_s() <= 0.4


def test_writing_that_fails_does_not_stop_reading(health: Health, told: list[str | None], clock: FakeClock) -> None:
    """A server that refuses values is read from and told of removals; one that gave no answer is not."""
    health.write_failed(FULL)
    assert (health.is_shut, health.writes_all, health.writes_removals) == (False, False, True)
    assert health.circuit is Circuit.OPEN
    clock.advance(0.2)
    assert health.may_try_write()
    health.write_failed(Unanswered("no answer"))
    assert not health.writes_removals
    assert not health.is_shut
    health.write_worked()
    assert told == ["only reads work: the server is full", None]


def test_a_late_reply_holds_back_reads_until_it_is_there(health: Health, told: list[str | None]) -> None:
    """Suspicion is told to nobody unless it lasts."""
    begun: list[int] = []
    health.suspected = lambda: begun.append(health.suspicions)
    health.suspect()
    health.suspect()
    assert (health.is_shut, health.writes_all, begun) == (True, True, [1])
    health.trust()
    assert not health.is_shut
    health.silent(1, 1.0)
    health.expired(1, 5.0)
    assert told == []
    health.suspect()
    assert begun == [1, 2]


def test_a_suspicion_that_lasts_is_told(health: Health, told: list[str | None]) -> None:
    """Silent for a second is down; the timeout after it tells nothing new, and an answer tells that it is up."""
    health.suspect()
    health.silent(1, 1.0)
    assert (health.writes_all, health.writes_removals) == (False, False)
    health.expired(1, 5.0)
    assert health.reason == "the redis server has not answered for 5 s"
    assert not health.is_suspect
    health.read_worked()
    assert told == ["the redis server has not answered for 1 s", None]


def test_what_is_not_in_use_is_told_of_by_nobody(health: Health, told: list[str | None]) -> None:
    """A tier that is closed, or forked, begins with a clean sheet."""
    health.read_failed(REFUSED)
    health.stop()
    assert (health.is_shut, health.reason) == (True, "the redis tier is not open")
    health.read_failed(REFUSED)
    assert len(told) == 1
    health.start()
    assert told[1:] == ["the connection was refused"]
    health.forget()
    assert (health.is_shut, health.reason) == (False, None)


def test_while_it_is_closed_nothing_more_is_read(health: Health) -> None:
    """What is queued is still written."""
    health.no_more_reads()
    assert (health.is_shut, health.writes_all) == (True, True)
    health.start()
    assert not health.is_shut


def test_an_error_is_a_sentence() -> None:
    """A store's own words as they are; any other error with its name."""
    assert sentence(FULL) == "the server is full"
    assert sentence(ValueError("odd")) == "ValueError: odd"

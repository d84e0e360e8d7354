"""Loads under failing origins: a small dose of the model's runs, and proof that the model sees what it should."""

from collections.abc import Callable
from typing import Any

import load_model
import pytest

from genesis_cache.coherence.fills import Fills
from genesis_cache.coherence.floors import Floors
from genesis_cache.engine import bulk, failing, flight, reading
from genesis_cache.engine.background import Background
from genesis_cache.engine.leading import Leading
from genesis_cache.engine.loading import Loader
from genesis_cache.model.entry import Entry
from genesis_cache.policies.freshness import Verdict, judge

OPERATIONS = 3_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_answer_is_one_that_may_be(seed: int) -> None:
    """One load a key and generation, nothing dead or too old, nobody kept waiting, nothing left behind."""
    book = load_model.run(OPERATIONS, seed)
    assert book.faults == []
    for what in ("loads", "failed", "deadline", "cancelled", "stale", "LoaderTimeout", "CancelledError"):
        assert book.counts[what] > 5, what


def _endless(self: Loader, deadline_s: float, threads: int) -> None:
    self._deadline_s, self._threads, self._pool = deadline_s * 1000, threads, None


def _displaced(_: Leading, view: Any, key: str, *__: object) -> None:
    view.space.flights.pop(view.map_key(key), None)


async def _undrained(_: Background, then: Callable[[], None]) -> None:
    then()


def _first_only(self: flight.Flight, outcome: Any) -> None:
    if self.outcome is None:
        self.outcome = outcome
        for future in list(self._waiters)[:1]:
            flight._settle(future, outcome)


def _anew(plan: Any, *_: object) -> float | None:
    limit: float | None = plan.hard_timeout
    return limit


def _never_gone(entry: Entry, now: float) -> Verdict:
    verdict = judge(entry, now)
    return Verdict.WHILE_REVALIDATE if verdict is Verdict.GONE else verdict


MUTANTS: dict[str, tuple[Any, str, Any, str]] = {
    "joins no load": (Leading, "joinable", _displaced, "began while load"),
    "keeps what was deleted": (Fills, "alive", lambda *_: True, "had been invalidated"),
    "hears of no tag": (Floors, "killer", lambda *_: 0, "had been invalidated"),
    "has no patience": (reading, "patience", lambda *_: 0.0, "raised LoaderTimeout"),
    "waits for ever": (reading, "patience", lambda *_: None, "with a hard_timeout of"),
    "begins to wait anew": (reading, "patience", _anew, "with a hard_timeout of"),
    "begins to wait anew for each key": (bulk, "patience", _anew, "with a hard_timeout of"),
    "serves what is too old": (reading, "judge", _never_gone, "after it was fresh"),
    "rests without a failure": (failing.Failing, "resting", lambda *_: True, "no load had failed"),
    "keeps places": (Leading, "_leave", lambda *_: None, "places taken"),
    "has no deadline": (Loader, "__init__", _endless, "no answer long after"),
    "leaves its tasks": (Background, "drain", _undrained, "left behind"),
    "tells only the first": (flight.Flight, "land", _first_only, "no answer long after"),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_the_model_sees_a_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one rule of the read path taken out, a few runs show it in so many words."""
    place, attribute, instead, words = MUTANTS[name]
    monkeypatch.setattr(place, attribute, instead)
    faults: list[str] = []
    for seed in range(8):
        faults += load_model.run(OPERATIONS // 3, seed).faults
        if any(words in fault for fault in faults):
            return
    pytest.fail(f"not seen; instead {faults[:3]}")

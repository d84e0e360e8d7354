"""A cache compared with a dict, step by step, through every verb, owner and namespace, and every move of the clock."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from genesis_cache import Cache
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.clock import FakeClock

KEYS = ["a", "b", "ab", "user:1", "user:2"]
TAGS = ["t", "u"]
VIEWS = [("", None), ("n", None), ("n/m", None), ("", "x"), ("n", "x"), ("n", "y")]
TIERS = {
    "memory": ("memory://?max_mb=20",),
    "disk": ("disk://{0}/disk?max_mb=10",),
    "memory+disk": ("memory://?max_mb=20", "disk://{0}/disk?max_mb=10"),
}

keys = st.sampled_from(KEYS)
views = st.sampled_from(VIEWS)
tags = st.lists(st.sampled_from(TAGS), unique=True)
ttls = st.sampled_from([1, 5, 100, None])
values = st.integers(0, 999) | st.none() | st.text(max_size=3)


class Held:
    """What the model knows of one entry."""

    def __init__(self, value: object, until: float, tags: list[str], stale_until: float) -> None:
        self.value, self.until, self.tags, self.stale_until = value, until, tags, stale_until


class CacheMachine(RuleBasedStateMachine):
    """The rules; `tiers` is set by the subclass."""

    tiers: tuple[str, ...] = TIERS["memory"]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.mkdtemp()
        self.clock = FakeClock()
        self.model: dict[tuple[str, str | None, str], Held] = {}
        self.open()

    def open(self) -> None:
        """A new cache on the same place."""
        urls = [tier.format(self.folder) for tier in self.tiers]
        self.cache = Cache(
            CacheSettings().with_urls(*urls).with_overrides(l1_cache_max_entries=12 if len(urls) > 1 else None),
            clock=self.clock,
        )
        self.run(self.cache.open())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a verb to its end."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def view(self, view: tuple[str, str | None]) -> Cache:
        """The cache as a namespace and an owner see it."""
        cache = self.cache.namespace(view[0]) if view[0] else self.cache
        return cache.owned_by(view[1]) if view[1] else cache

    def now(self) -> float:
        """The clock's time."""
        return self.clock.now()

    def fresh(self, place: tuple[str, str | None, str]) -> Held | None:
        """What a get must find."""
        held = self.model.get(place)
        return held if held is not None and self.now() < held.until else None

    def reached(self, view: tuple[str, str | None]) -> list[tuple[str, str | None, str]]:
        """The entries that an invalidation from a view reaches."""
        name, owner = view
        inside = [p for p in self.model if not name or p[0] == name or p[0].startswith(name + "/")]
        return [p for p in inside if owner is None or p[1] == owner]

    @rule(view=views, key=keys, value=values, ttl=ttls, tags=tags, stale=st.sampled_from([0, 0, 50]), low=st.booleans())
    def set(self, view: Any, key: str, value: object, ttl: Any, tags: Any, stale: float, low: bool) -> None:
        """Store a value."""
        priority = "LOW" if low else "NORMAL"
        self.run(self.view(view).set(key, value, ttl=ttl, tags=tags, stale_if_error=stale, priority=priority))
        until = float("inf") if ttl is None else self.now() + ttl
        self.model[(*view, key)] = Held(value, until, tags, until + stale)

    @rule(view=views, items=st.dictionaries(keys, values), tags=tags)
    def set_many(self, view: Any, items: dict[str, object], tags: Any) -> None:
        """Store several."""
        self.run(self.view(view).set_many(items, ttl=20, tags=tags))
        for key, value in items.items():
            self.model[(*view, key)] = Held(value, self.now() + 20, tags, self.now() + 20)

    @rule(view=views, key=keys)
    def get(self, view: Any, key: str) -> None:
        """Read one, fresh or stale."""
        held = self.fresh((*view, key))
        assert self.run(self.view(view).get(key, "absent")) == (held.value if held else "absent")
        old = self.model.get((*view, key))
        expected = old.value if old is not None and self.now() < max(old.until, old.stale_until) else "absent"
        assert self.run(self.view(view).get(key, "absent", allow_stale=True)) == expected

    @rule(view=views, wanted=st.lists(keys))
    def get_many(self, view: Any, wanted: list[str]) -> None:
        """Read several."""
        expected = {key: held.value for key in wanted if (held := self.fresh((*view, key)))}
        assert self.run(self.view(view).get_many(wanted)) == expected

    @rule(view=views, key=keys, value=values, ttl=ttls, tags=tags)
    def get_or_set(self, view: Any, key: str, value: object, ttl: Any, tags: Any) -> None:
        """Load what is missing."""

        async def load() -> object:
            return value

        found = self.run(self.view(view).get_or_set(key, load, ttl=ttl, tags=tags))
        held = self.fresh((*view, key))
        assert found == (held.value if held else value)
        if held is None:
            until = float("inf") if ttl is None else self.now() + ttl
            self.model[(*view, key)] = Held(value, until, tags, until)

    @rule(view=views, wanted=st.lists(keys, unique=True), value=values)
    def get_or_set_many(self, view: Any, wanted: list[str], value: object) -> None:
        """Load what is missing of several; the loader brings nothing for one key."""

        async def load(missing: list[str]) -> dict[str, object]:
            return {key: value for key in missing if key != "ab"}

        found = self.run(self.view(view).get_or_set_many(wanted, load, ttl=20))
        expected = {}
        for key in wanted:
            held = self.fresh((*view, key))
            if held is not None:
                expected[key] = held.value
            elif key != "ab":
                expected[key] = value
                self.model[(*view, key)] = Held(value, self.now() + 20, [], self.now() + 20)
        assert found == expected

    @rule(view=views, gone=st.lists(keys, min_size=1))
    def delete(self, view: Any, gone: list[str]) -> None:
        """Forget keys."""
        assert self.run(self.view(view).delete(*gone))
        for key in gone:
            self.model.pop((*view, key), None)

    @rule(view=views, key=keys)
    def expire(self, view: Any, key: str) -> None:
        """Make a key stale."""
        assert self.run(self.view(view).expire(key))
        held = self.model.get((*view, key))
        if held is not None:
            kept = held.stale_until - held.until if held.stale_until < float("inf") else None
            if kept == 0 or self.now() >= max(held.until, held.stale_until):
                del self.model[(*view, key)]
            elif self.now() < held.until:
                stale = 50.0
                held.until, held.stale_until = self.now(), self.now() + (stale if kept is None else kept)
                if kept is None and not getattr(held, "stale", False):
                    self.model.pop((*view, key))
                    self.run(self.view(view).delete(key))

    @rule(view=views, key=keys, ttl=ttls)
    def touch(self, view: Any, key: str, ttl: Any) -> None:
        """Give a new ttl."""
        held = self.fresh((*view, key))
        assert self.run(self.view(view).touch(key, ttl)) is (held is not None)
        if held is not None:
            kept = held.stale_until - held.until if held.stale_until < float("inf") else None
            if kept is None:  # whether it had a stale time cannot be told from infinity: start anew
                self.run(self.view(view).delete(key))
                del self.model[(*view, key)]
                return
            held.until = float("inf") if ttl is None else self.now() + ttl
            held.stale_until = held.until + kept

    @rule(view=views, tag=st.sampled_from(TAGS))
    def delete_by_tag(self, view: Any, tag: str) -> None:
        """Kill by tag."""
        assert self.run(self.view(view).delete_by_tag(tag))
        for place in self.reached(view):
            if tag in self.model[place].tags:
                del self.model[place]

    @rule(view=views, pattern=st.sampled_from(["user:*", "?", "a*", "*b", "*"]))
    def delete_by_pattern(self, view: Any, pattern: str) -> None:
        """Kill by pattern."""
        assert self.run(self.view(view).delete_by_pattern(pattern))
        matches = {"user:*": ["user:1", "user:2"], "?": ["a", "b"], "a*": ["a", "ab"], "*b": ["b", "ab"], "*": KEYS}[
            pattern
        ]
        for place in self.reached(view):
            if place[2] in matches:
                del self.model[place]

    @rule(view=views)
    def clear(self, view: Any) -> None:
        """Kill everything within reach."""
        assert self.run(self.view(view).clear())
        for place in self.reached(view):
            del self.model[place]

    @rule(seconds=st.sampled_from([0.005, 0.5, 1, 5, 30]))
    def time_passes(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule()
    def clean(self) -> None:
        """Run the clean-up."""

        async def sweep() -> None:
            self.cache._engine.background.clean()
            await asyncio.sleep(0)

        self.run(sweep())

    @rule()
    def restart(self) -> None:
        """Close and open again: what is only in memory is gone, the rest stays."""
        self.run(self.cache.close())
        if len(self.tiers) == 1 and self.tiers[0].startswith("memory"):
            self.model.clear()
        self.open()

    @invariant()
    def memory_is_sound(self) -> None:
        """Memory's books are right after every step."""
        core = self.cache._engine.core
        assert core.memory is None or core.memory.check() == []
        assert core.fills._active == 0

    def teardown(self) -> None:
        """Every store verifies its books at the end."""
        self.run(self.cache._engine.background.drain())
        faults = [fault for lane in self.cache._engine.core.lanes for fault in lane.tier.check()]
        self.run(self.cache.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)
        assert faults == []


def machine(tiers: tuple[str, ...]) -> type[CacheMachine]:
    """The machine over a line-up."""
    return type("CacheMachine", (CacheMachine,), {"tiers": tiers})


FULL_DOSE = 600  # histories over each line-up, of up to 40 steps


def prove(dose: float) -> dict[str, int]:
    """Run 600 histories of up to 40 steps over each line-up; one that differs from the dict raises."""
    examples = max(1, int(FULL_DOSE * dose))
    for tiers in TIERS.values():
        run_state_machine_as_test(
            machine(tiers),
            settings=settings(
                max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    return {"line-ups": len(TIERS), "histories each": examples}


@pytest.mark.parametrize("name", list(TIERS))
def test_a_cache_is_a_dict_with_times(name: str) -> None:
    """Whatever is done to it, a cache answers as a dict would that knows times, tags and owners."""
    run_state_machine_as_test(
        machine(TIERS[name]),
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

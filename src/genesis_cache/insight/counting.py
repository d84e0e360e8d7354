"""Counting: how many living entries in memory a change would reach, looked at in slices so that nobody is held up."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

from genesis_cache.engine.core import Core, View
from genesis_cache.engine.entries import tags_of
from genesis_cache.model.entry import Entry
from genesis_cache.model.patterns import compile_pattern
from genesis_cache.policies.freshness import gone

SLICE_S = 0.0005  # of the event loop, between two breaths
GLANCE_EVERY = 64  # entries between two looks at the clock

Wanted = Callable[[Entry], bool]


async def count(
    core: Core, view: View, keys: Sequence[str] | None, tags: Iterable[str] | None, pattern: str | None
) -> int | None:
    """Entries within reach of the view: of these keys, with one of these tags, matching; all where nothing is said.

    None where there is no memory to count in.
    """
    if core.memory is None:
        return None
    if keys is not None:
        held = (core.memory.get(view.space.number, view.map_key(key)) for key in dict.fromkeys(keys))
        return sum(entry is not None and _lives(core, entry) for entry in held)
    wanted = _wanted(None if tags is None else frozenset(tags), pattern)
    number, slice_end = 0, perf_counter() + SLICE_S
    for met, entry in enumerate(core.memory.items()):
        if met % GLANCE_EVERY == 0 and perf_counter() >= slice_end:
            await asyncio.sleep(0)
            slice_end = perf_counter() + SLICE_S
        if wanted(entry) and reaches(core, view, entry) and _lives(core, entry):
            number += 1
    return number


def reaches(core: Core, view: View, entry: Entry) -> bool:
    """Whether a view's tags, patterns and clear reach an entry: its namespace or one inside, its owner or any."""
    if view.owner is not None and (type(entry.key) is str or entry.key[0] != view.owner):
        return False
    name, outer = core.namespace_of(entry), view.space.name
    return not outer or name == outer or name.startswith(f"{outer}/")


def _wanted(tags: frozenset[str] | None, pattern: str | None) -> Wanted:
    if tags is not None:
        return lambda entry: not tags.isdisjoint(tags_of(entry))
    if pattern is not None:
        matches = compile_pattern(pattern)
        return lambda entry: matches(entry.key if type(entry.key) is str else entry.key[1])
    return lambda _: True


def _lives(core: Core, entry: Entry) -> bool:
    return not gone(entry, core.clock.now()) and (entry.epoch is core.floors.epoch or core.living(entry))

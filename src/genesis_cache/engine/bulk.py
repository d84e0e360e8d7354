"""Many keys at once: one load for all that are missing, in which each key is still a flight that others may join."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from genesis_cache.engine.core import Core, View
from genesis_cache.engine.entries import own_value
from genesis_cache.engine.failing import patience
from genesis_cache.engine.flight import Flight, Lost, Outcome
from genesis_cache.engine.hearing import Hearing
from genesis_cache.engine.leading import ended_by
from genesis_cache.engine.loading import Load, LoadContext, Loaded
from genesis_cache.engine.reading import SERVED, Reading
from genesis_cache.model.entry import Entry, Record
from genesis_cache.model.keys import Address
from genesis_cache.model.missing import MISSING
from genesis_cache.model.options import Plan
from genesis_cache.model.settings import ReadStrategy
from genesis_cache.policies.freshness import Verdict, judge, remaining
from genesis_cache.tiers.base import Late


class Bulk:
    """`Cache.get_many` and `Cache.get_or_set_many`: the read path, a batch a tier and one call of the loader."""

    def __init__(self, core: Core, hearing: Hearing, reading: Reading) -> None:
        self._core = core
        self._hearing = hearing
        self._reading = reading

    async def get_many(self, view: View, keys: Sequence[str]) -> dict[str, object]:
        """The fresh values of those keys that have one: memory first, then one batch a tier for all that is missing."""
        found, _ = await self._look(view, keys)
        for key in dict.fromkeys(keys):
            if key not in found:
                self._reading.missed(view, key)
        return found

    async def _look(
        self, view: View, keys: Sequence[str], *, sensitive: bool = False
    ) -> tuple[dict[str, object], dict[str, Entry]]:
        """As `get_many`, with the old values of tiers below memory; what is not found is not yet counted as missed."""
        if not self._core.opened:
            await self._reading.open()
        found: dict[str, object] = {}
        missing = [view.address(key) for key in self._still_missing(view, keys, found, sensitive=sensitive)]
        old = await self._further_many(view, missing, found, sensitive=sensitive) if missing else {}
        return found, old

    async def _further_many(
        self, view: View, missing: Sequence[Address], found: dict[str, object], *, sensitive: bool
    ) -> dict[str, Entry]:
        """Add what tiers below memory hold fresh to what was found; the old values of keys of which none does."""
        core = self._core
        if core.memory is not None:
            core.near_meter.misses += len(missing)
        old: dict[str, Record] = {}
        self._hearing.listen()
        token = core.fills.begin(core.floors.given)
        try:
            for lane in core.lanes:
                wanted = [address for address in missing if address.key not in found]
                if not wanted or lane.owed:
                    continue
                started = time.perf_counter()
                answers = await lane.get_many(wanted)
                for address, answer in zip(wanted, answers, strict=True):
                    if isinstance(answer, Late):
                        self._reading.late_replies.wait_for(view, lane, address, answer, token)
                        answer = None  # noqa: PLW2901  # the reader goes on without it
                    record, _ = await self._reading.carrying.accepted(view, lane, answer, address, sensitive=sensitive)
                    if record is not None and remaining(record, core.clock.wall()) > 0:
                        found[address.key] = own_value(self._reading.promoted(view, record, token, lane)[0])
                    else:
                        lane.meter.misses += 1
                        if record is not None:
                            old.setdefault(address.key, record)
                lane.meter.latency.add((time.perf_counter() - started) / len(wanted))
            stale = {key: record for key, record in old.items() if key not in found}
            return {key: self._reading.promoted(view, record, token, None)[0] for key, record in stale.items()}
        finally:
            core.fills.end()

    async def get_or_set_many(self, view: View, keys: Sequence[str], load: Load, plan: Plan) -> dict[str, object]:
        """The values of all keys that exist or that the loader brings, in the order asked."""
        found, stale = await self._look(view, keys, sensitive=plan.sensitive)
        if plan.refresh_ahead is not None or plan.early_refresh is not None or self._core.floors.spreads:
            self._refresh_ahead(view, found, load, plan)
        stale |= self._stale(view, [key for key in keys if key not in found], plan)
        found |= self._served_at_once(view, stale, load, plan)
        began = 0.0
        while missing := self._still_missing(view, keys, found, sensitive=plan.sensitive):
            joined = self._reading.position()
            flights = self._join_or_lead(view, missing, load, plan, stale)
            began = began or asyncio.get_running_loop().time()
            if not await self._wait_for(view, flights, found, stale, plan, began, joined):
                break
        return {key: found[key] for key in dict.fromkeys(keys) if key in found}

    async def _wait_for(  # what one round of waiting knows
        self,
        view: View,
        flights: Mapping[str, Flight],
        found: dict[str, object],
        stale: dict[str, Entry],
        plan: Plan,
        began: float,
        joined: int,
    ) -> bool:
        """Add what the flights bring, or what serves instead, to the found; whether some are lost."""
        failing, leading, lost = self._reading.failing, self._reading.leading, False
        with leading.holding(view, flights.values()) as turn:
            for key, flight in flights.items():
                old = stale.get(key)
                patience_s = patience(plan, old, flight, began, self._core.clock.now())
                turn(flight)
                outcome = await leading.wait(view, flight, patience_s)
                if isinstance(outcome, Entry) and not self._reading.killed_since(view, key, flight, outcome, joined):
                    found[key] = own_value(outcome)
                elif isinstance(outcome, Entry) or outcome is Lost.TASK:
                    lost = True
                elif outcome is not Lost.NOTHING and failing.is_outdated(view, key, flight, outcome, old, plan):
                    stale.pop(key, None)
                    lost = True
                elif outcome is not Lost.NOTHING:
                    found[key] = failing.fall_back(view, key, flight, outcome, old, plan)
        return lost

    def _still_missing(
        self, view: View, keys: Sequence[str], found: dict[str, object], *, sensitive: bool
    ) -> list[str]:
        """Those without a value, once what memory holds by now is added to what was found."""
        missing: list[str] = []
        for key in dict.fromkeys(keys):
            if key in found:
                continue
            entry, verdict = self._reading.near_sealed(view, key) if sensitive else self._reading.near(view, key)
            if entry is not None and verdict in SERVED:
                found[key] = self._reading.serve(view, key, entry)
            else:
                missing.append(key)
        return missing

    def _refresh_ahead(self, view: View, found: Iterable[str], load: Load, plan: Plan) -> None:
        """Load behind, in one batch, those that were served and are due for it."""
        core, failing, now = self._core, self._reading.failing, self._core.clock.now()
        if core.memory is None or core.settings.cache_read_strategy is ReadStrategy.CACHE_ASIDE:
            return
        due: list[str] = []
        for key in found:
            entry = core.memory.get(view.space.number, view.map_key(key))
            is_due = entry is not None and judge(entry, now) is Verdict.REFRESH
            if is_due and view.map_key(key) not in view.space.flights and not failing.resting(view.address(key)):
                due.append(key)
        if due and failing.admits_behind(view, [view.address(key) for key in due]):
            self._join_or_lead(view, due, load, plan, due, behind=True)

    def _stale(self, view: View, keys: Sequence[str], plan: Plan) -> dict[str, Entry]:
        """What memory holds of keys that have no fresh value."""
        near = self._reading.near_sealed if plan.sensitive else self._reading.near
        looks = {key: near(view, key) for key in keys}
        return {key: entry for key, (entry, verdict) in looks.items() if entry is not None and verdict not in SERVED}

    def _served_at_once(self, view: View, stale: Mapping[str, Entry], load: Load, plan: Plan) -> dict[str, object]:
        """The old values that may serve at once: new ones are loaded behind, or their failing load rests."""
        core, failing = self._core, self._reading.failing
        now = core.clock.now()
        resting = {key for key in stale if failing.resting(view.address(key))}
        behind: list[str] = []
        if core.settings.cache_read_strategy is not ReadStrategy.CACHE_ASIDE:
            while_revalidating = (key for key, entry in stale.items() if judge(entry, now) is Verdict.WHILE_REVALIDATE)
            behind = [key for key in while_revalidating if key not in resting]
            if behind and not failing.admits_behind(view, [view.address(key) for key in behind]):
                resting.update(behind)
                behind = []
        for key in (*behind, *resting):
            failing.stale_served(view, key)
        if behind:
            self._join_or_lead(view, behind, load, plan, stale, behind=True)
        return {key: own_value(stale[key]) for key in (*behind, *resting)}

    def _join_or_lead(
        self, view: View, missing: Sequence[str], load: Load, plan: Plan, old: Collection[str], *, behind: bool = False
    ) -> dict[str, Flight]:
        """``old``: the keys that have an old value.

        ``behind``: nobody waits, so the load runs in no caller's context and is counted as a refresh.
        """
        self._core.require_open()
        flights: dict[str, Flight] = {}
        mine: dict[str, Flight] = {}
        now, position, generation = self._core.clock.now(), self._reading.position(), self._core.floors.generation
        for key in missing:
            if (under_way := self._reading.leading.joinable(view, key, load, plan)) is not None:
                flights[key] = under_way
                view.space.meter.coalesced += 1
                continue
            if not behind:
                self._reading.missed(view, key)
            if (known := self._reading.failing.known(view, key, many=True)) is not None:
                flights[key] = known
                continue
            flight = Flight(position, now, generation)
            flight.address = view.address(key)
            flights[key] = view.space.flights.setdefault(view.map_key(key), flight)
            if flights[key] is flight:
                mine[key] = flight
        mates = tuple(mine.values())
        for flight in mates:
            flight.mates = mates
        if mine:
            if behind:
                view.space.gate.behind += 1
                view.space.meter.refreshes += len(mine)
            held = frozenset(key for key in mine if key in old)
            flying = self._fly(view, mine, load, plan, held, behind=behind)
            self._reading.leading.launch(flying, mine.values(), clean=behind)
        return flights

    async def _fly(
        self, view: View, mine: dict[str, Flight], load: Load, plan: Plan, old: Collection[str], *, behind: bool
    ) -> None:
        try:
            await self._bring(view, mine, load, plan, old)
        except asyncio.CancelledError as error:
            self._land_all(view, mine, ended_by(error))
            raise
        except BaseException as error:  # noqa: BLE001  # the loader's own, SystemExit too: its callers raise it
            self._core.log.load_failed(next(iter(mine)), error)
            for key in old:
                self._reading.failing.rest(view.address(key), plan.retry_after)
            self._land_all(view, mine, error)
        finally:
            if behind:
                view.space.gate.behind -= 1
            self._land_all(view, mine, Lost.NOTHING)
            if next(iter(mine.values())).abandoned:
                self._core.loads_abandoned -= 1

    async def _bring(self, view: View, mine: dict[str, Flight], load: Load, plan: Plan, old: Collection[str]) -> None:
        core, failing = self._core, self._reading.failing
        since = [lane.seq() for lane in core.lanes]
        seq = self._reading.position()
        token = core.fills.begin(core.floors.given)
        try:
            call = Load(partial(load.call, list(mine)), load.is_async, takes_context=False)
            first = next(iter(mine.values()))
            loaded = await self._reading.leading.run_load(view, call, first, None, plan.no_stale_on)
            values = _mapping(loaded.value)
            for key in mine:
                if key not in values:
                    failing.absent(view, key, plan, token, seq)
            share = loaded.cost_s / max(1, len(mine))

            async def keep(address: Address) -> None:
                flight = mine[address.key]
                view.space.outrun(view.map_key(address.key), flight)
                context = LoadContext(MISSING, None, None)
                context.skipped = flight.outrun
                one = Loaded(values[address.key], share, context)
                entry = await self._reading.leading.keep(view, address, plan, one, None, token, since, seq)
                failing.recovered(view, address)
                self._land(view, address.key, flight, entry)

            await asyncio.gather(*(keep(view.address(key)) for key in mine if key in values))
        except Exception as error:
            for key in mine:
                await failing.failed(view, view.address(key), plan, error, token, seq, has_old=key in old)
            raise
        finally:
            core.fills.end()

    def _land_all(self, view: View, mine: dict[str, Flight], outcome: BaseException | Lost) -> None:
        """Tell those who wait; where they have to look again, all keys are free by then, or they would meet again."""
        if isinstance(outcome, Lost):
            for key, flight in mine.items():
                view.space.free(view.map_key(key), flight)
        for key, flight in mine.items():
            self._land(view, key, flight, outcome)

    @staticmethod
    def _land(view: View, key: str, flight: Flight, outcome: Outcome) -> None:
        """Tell those who wait and free the key in one go, so that nobody joins a flight that is over."""
        flight.land(outcome)
        view.space.free(view.map_key(key), flight)


def _mapping(value: object) -> Mapping[Any, object]:
    if not isinstance(value, Mapping):
        msg = f"a loader of many keys must return a mapping of key to value, got {type(value).__name__}"
        raise TypeError(msg)
    return value

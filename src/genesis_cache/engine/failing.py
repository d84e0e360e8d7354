"""Failing: what becomes of a load that failed: the old value, a rest before the next attempt, a fallback, or the error.

An error may be kept (``error_ttl``) and is then raised again without a load, each time as an exception of its own: one
exception that is raised again and again would drag along every frame it has ever passed.
"""

from collections.abc import Sequence
from copy import copy

from genesis_cache.coherence.fills import Token
from genesis_cache.coherence.negatives import Negative
from genesis_cache.engine.core import Core, View
from genesis_cache.engine.entries import own_value, tags_of
from genesis_cache.engine.flight import Flight, Lost, left_of
from genesis_cache.engine.gate import PUT_OFF_S
from genesis_cache.engine.writing import Writing
from genesis_cache.model.entry import Entry
from genesis_cache.model.errors import LoaderTimeout
from genesis_cache.model.keys import Address
from genesis_cache.model.missing import MISSING
from genesis_cache.model.options import Plan

HUNG_S = 10.0  # after which a load that is slower than its callers' patience no longer holds its key
REMEMBERED_RESTS = 4096  # keys whose load failed lately; beyond it they are all tried again


def patience(plan: Plan, stale: Entry | None, flight: Flight, began: float, now: float) -> float | None:
    """Seconds that a caller goes on waiting for a load; None: as long as the load may take.

    It ``began`` to wait at that time of its event loop. Who has an old value does not wait at all for a load that has
    been slow already, at the monotonic second ``now``.
    """
    left = left_of(plan.hard_timeout, began)
    soft = left_of(plan.soft_timeout, began) if stale is not None else None
    if soft is None or plan.soft_timeout is None:
        return left
    if flight.called is not None:
        soft = min(soft, max(0.0, plan.soft_timeout - (now - flight.called)))
    return soft if left is None else min(left, soft)


def twin(error: Exception) -> Exception:
    """An exception that says the same, without the frames and the causes of this one; the same if none can be made."""
    for make in (_made_bare, copy):
        try:
            made = make(error)
        except Exception:  # noqa: BLE001, S112  # whatever a class of somebody else's does when it is made
            continue
        if type(made) is type(error) and made is not error and (made.args, str(made)) == (error.args, str(error)):
            made.__cause__ = made.__context__ = None
            if notes := getattr(error, "__notes__", None):
                made.__notes__ = list(notes)
            return made.with_traceback(None)
    return error.with_traceback(None)


def _made_bare(error: Exception) -> Exception:
    """Without ``__init__``, which may expect anything and say it all once more."""
    made = type(error).__new__(type(error), *error.args)
    made.__dict__.update(error.__dict__)
    return made


class Failing:
    """Answers where no load has brought a value."""

    def __init__(self, core: Core, writing: Writing) -> None:
        self._core = core
        self._writing = writing
        self._rests: dict[bytes, float] = {}

    # -- after a load --------------------------------------------------------------------------------------------------

    def rest(self, address: Address, seconds: float) -> None:
        """Let the old value serve for so long without another attempt."""
        if len(self._rests) >= REMEMBERED_RESTS:
            self._rests.clear()
        self._rests[address.digest] = self._core.clock.now() + seconds

    def resting(self, address: Address) -> bool:
        """Whether the key's load failed so lately that its old value serves without another attempt."""
        return bool(self._rests) and self._core.clock.now() < self._rests.get(address.digest, 0.0)

    def admits_behind(self, view: View, addresses: Sequence[Address]) -> bool:
        """Whether a load that nobody waits for may begin now; if not, these keys rest for a second."""
        if view.space.gate.admits_behind():
            return True
        view.space.meter.refreshes_put_off += len(addresses)
        for address in addresses:
            self.rest(address, PUT_OFF_S)
        return False

    async def failed(
        self, view: View, address: Address, plan: Plan, error: Exception, token: Token, seq: int, *, has_old: bool
    ) -> None:
        """Keep an error that is worth it; an answer that no old value may hide ends the old value everywhere.

        Unless the key was changed since the load began: then the load says nothing of what there is now.
        """
        self._writing.listen()  # while the load is still known under its key
        core, place = self._core, (view.space.number, view.map_key(address.key))
        changed = core.floors.killer(view.reach, address.key, plan.tags, seq)
        if changed or not core.fills.alive(token, place):
            return
        if has_old and isinstance(error, plan.no_stale_on):
            await self._writing.delete(view, [address.key])
            seq = self._writing.position()
            if core.memory is not None and core.memory.get(*place) is not None:
                return  # somebody has written it meanwhile
        self._keep(view, address.key, plan, error, seq)

    def _keep(self, view: View, key: str, plan: Plan, error: Exception, seq: int) -> None:
        span = plan.error_ttl_of(error)
        if not span and plan.fallback is not MISSING and not isinstance(error, plan.no_stale_on):
            span = plan.retry_after
        if span:
            now = self._core.clock.now()
            negative = Negative(twin(error), now, now + span, seq, plan.tags)
            self._core.fills.negatives.keep((view.space.number, view.map_key(key)), negative)

    def absent(self, view: View, key: str, plan: Plan, token: Token, seq: int) -> None:
        """A loader of many keys did not bring this one: remembered for ``negative_ttl``, where that is said."""
        core, place = self._core, (view.space.number, view.map_key(key))
        changed = core.floors.killer(view.reach, key, plan.tags, seq)
        if plan.negative_ttl and not changed and core.fills.alive(token, place):
            now = core.clock.now()
            core.fills.negatives.keep(place, Negative(Lost.NOTHING, now, now + plan.negative_ttl, seq, plan.tags))

    def recovered(self, view: View, address: Address) -> None:
        """A load of the key went well."""
        self._rests.pop(address.digest, None)
        self.disproved(view, address.key)

    def disproved(self, view: View, key: str) -> None:
        """There is a value."""
        if self._core.fills.negatives:
            self._core.fills.negatives.forget((view.space.number, view.map_key(key)))

    # -- before a load -------------------------------------------------------------------------------------------------

    def known(self, view: View, key: str, *, many: bool = False) -> Flight | None:
        """A flight that has landed with what an earlier load found out, if that still holds.

        ``many``: for callers who take "there is nothing" for an answer.
        """
        core, place = self._core, (view.space.number, view.map_key(key))
        if not core.fills.negatives or core.is_deaf:
            return None
        now = core.clock.now()
        negative = core.fills.negatives.look(place, now)
        if negative is None or (negative.finding is Lost.NOTHING and not many):
            return None
        if core.floors.killer(view.reach, key, negative.tags, negative.seq):
            core.fills.negatives.forget(place)
            return None
        view.space.meter.negatives_served += 1
        flight = Flight(negative.seq, negative.since, core.floors.generation)
        if isinstance(negative.finding, Exception):
            error = twin(negative.finding)
            if error is not negative.finding:
                error.add_note(f"kept by the cache: the load that raised it ended {now - negative.since:.3g} s ago")
            flight.land(error)
        else:
            flight.land(Lost.NOTHING)
        return flight

    # -- instead of a value --------------------------------------------------------------------------------------------

    def fall_back(
        self, view: View, key: str, flight: Flight, outcome: BaseException | Lost, stale: Entry | None, plan: Plan
    ) -> object:
        """The old value where one may serve; else the fallback; else the loader's error, or LoaderTimeout."""
        is_final = isinstance(outcome, plan.no_stale_on)
        if stale is not None and not is_final and self._core.clock.now() < _servable_until(stale):
            if outcome is Lost.WAIT and self._hangs(flight) and _given_up(view, flight):
                view.space.gate.origin.add(0.0, failed=True)
            self.stale_served(view, key)
            view.space.meter.stale_waited += 1
            return own_value(stale)
        error = self._timed_out(view, key, flight, plan) if isinstance(outcome, Lost) else outcome
        if plan.fallback is not MISSING and isinstance(error, Exception) and not is_final:
            view.space.meter.fallbacks += 1
            return plan.fallback(error) if callable(plan.fallback) else plan.fallback
        raise error.with_traceback(flight.trace)

    def is_outdated(
        self, view: View, key: str, flight: Flight, outcome: BaseException | Lost, stale: Entry | None, plan: Plan
    ) -> bool:
        """Whether the old value was invalidated while its caller waited, who then has to look again."""
        if stale is None or isinstance(outcome, plan.no_stale_on):
            return False
        self._writing.listen()
        return self.is_dead(view, key, flight, tags_of(stale), stale.seq)

    def is_dead(self, view: View, key: str, flight: Flight, tags: tuple[str, ...], seq: int) -> bool:
        """Whether what was known of a key when its load was asked for, at this sequence, may have been changed since.

        What did so may have been forgotten since, where the log was begun anew.
        """
        floors = self._core.floors
        if flight.is_outdated or flight.generation != floors.generation:
            return True
        return bool(floors.killer(view.reach, key, tags, seq))

    def _hangs(self, flight: Flight) -> bool:
        return flight.called is not None and self._core.clock.now() - flight.called > HUNG_S

    def _timed_out(self, view: View, key: str, flight: Flight, plan: Plan) -> LoaderTimeout:
        """The error of a caller whose patience ended; a hung load does not hold its key."""
        if _given_up(view, flight):
            view.space.gate.origin.add(0.0, failed=True)
        self._core.load_results["timeout"] += 1
        limit = plan.hard_timeout if plan.hard_timeout is not None else plan.soft_timeout
        error = LoaderTimeout(
            f"the loader of {key!r:.200} took longer than its hard_timeout of {limit:g} s and no older value may serve"
        )
        self._writing.listen()
        if not self.is_dead(view, key, flight, plan.tags, flight.since):
            self._keep(view, key, plan, error, self._writing.position())
        return error

    def stale_served(self, view: View, key: str) -> None:
        """An old value was the answer: counted, and told to who wants to know."""
        view.space.meter.stale_served += 1
        if self._core.events.wants("stale"):
            self._core.events.emit("stale", key=key, namespace=view.space.name)


def _given_up(view: View, flight: Flight) -> bool:
    """Let others load all keys of a load, of which each would cost a caller his patience; whether it held one."""
    flights = flight.mates or (flight,)
    keys = [(one, view.map_key(one.address.key)) for one in flights if one.address is not None]
    return sum(view.space.give_up(key, one) for one, key in keys) > 0


def _servable_until(stale: Entry) -> float:
    extra = stale.extra
    return stale.until if extra is None else max(stale.until, extra.swr_until, extra.sie_until)

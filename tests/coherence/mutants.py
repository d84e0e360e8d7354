"""Faults put into the protocol of coherence on purpose, one at a time: the checker must find each of them.

``python -m tests.coherence.mutants`` runs a cluster with each until the checker speaks, and prints how long that took;
``--mutant NAME`` runs one. A green run of the cluster proves as much as the mutants that it would have caught.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partialmethod
from typing import Any

import msgspec

from genesis_cache.codecs.codec import Codec
from genesis_cache.coherence.fills import Fills
from genesis_cache.coherence.floors import Floors
from genesis_cache.engine import core as engine_core
from genesis_cache.engine.carrying import Carrying
from genesis_cache.engine.core import Core, Lane
from genesis_cache.engine.delivery import Delivery, queue
from genesis_cache.engine.flight import Flight
from genesis_cache.engine.hearing import FOREVER, Hearing
from genesis_cache.engine.leading import Leading
from genesis_cache.engine.reading import Reading
from genesis_cache.engine.storing import Storing
from genesis_cache.engine.writing import DONE, Writing
from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.model.notice import Kind
from genesis_cache.tiers.base import Put
from genesis_cache.tiers.postgres.store import PostgresStore
from genesis_cache.tiers.redis import log as redis_log
from genesis_cache.tiers.redis.log import Log as RedisLog
from genesis_cache.tiers.remote import RemoteTier
from genesis_cache.tiers.remote_log import RemoteLog
from genesis_cache.tiers.wire import unpack_notices

CATCH_S = 60.0
DEBT_S = 1.0

STALE = frozenset({"staleness", "resurrection", "own change", "convergence"})


@dataclass(frozen=True)
class Mutant:
    """One fault of the protocol, and the cluster that shows it."""

    patch: Callable[[], None]
    lineup: str = "redis"
    faults: tuple[str, ...] = ()
    partition: str = "serve"
    caught_by: frozenset[str] = STALE
    pause_s: float = 0.7
    callers: int = 8


MUTANTS: dict[str, Mutant] = {}
Patch = Callable[[], None]


def mutant(name: str, **how: Any) -> Callable[[Patch], Patch]:
    """Remember a mutant; its function changes the classes of a worker."""

    def remember(patch: Patch) -> Patch:
        MUTANTS[name] = Mutant(patch, **how)
        return patch

    return remember


def apply(name: str) -> None:
    """Change the classes of this process, before a cache is made; nothing where no name is given."""
    if name:
        MUTANTS[name].patch()


def put(owner: object, name: str, function: object) -> None:
    """Replace a method or function; AttributeError where there is none of that name any more."""
    getattr(owner, name)
    setattr(owner, name, function)


# -- the log and what is heard of it -----------------------------------------------------------------------------------


@mutant("notices of keys are dropped")
def _drop_notices() -> None:
    heard = Hearing.apply
    put(Hearing, "apply", lambda self, notice: None if notice.kind is Kind.KEY else heard(self, notice))


@mutant("one notice in eight is lost")
def _lose_notices() -> None:
    heard = Hearing.apply
    put(Hearing, "apply", lambda self, notice: None if notice.seq % 8 == 0 else heard(self, notice))


@mutant("the log is heard only at the start")
def _never_listen() -> None:
    put(Hearing, "_catch_up", lambda self, *_: None if self._heard else self._start_over(*_))


@mutant("an embedded log is heard only at the start", lineup="disk")
def _never_listen_here() -> None:
    _never_listen()


@mutant("the near copy of another's change stays", lineup="sqlite")
def _keep_near() -> None:
    _drop_notices()


@mutant("gaps in the log are not noticed")
def _no_gaps() -> None:
    def gappy(page: Any, after: int) -> list[Any]:
        found: list[Any] = []
        for messages in (page or {}).values():
            for ident, fields in messages:
                notices = unpack_notices(fields[1], int(ident.partition(b"-")[0])) or []
                found += [notice for notice in notices if notice.seq > after and notice.seq % 8]
        return found

    judged = redis_log._judged

    def at_ease(books: Any, after: Any, notices: list[Any]) -> int | None:
        verdict = judged(books, after, notices)
        return verdict if verdict is None or notices else after.seq

    put(redis_log, "_notices", gappy)
    put(redis_log, "_judged", at_ease)


@mutant("no flush after a new epoch", faults=("FLUSHALL", "Redis restarted empty"))
def _no_flush() -> None:
    def start_over(self: Hearing, authority: Lane, position: Any) -> None:
        self._core.log_epoch = position.epoch
        self._core.floors.hear(position.seq)
        self._heard = position

    put(Hearing, "_start_over", start_over)


@mutant("a restart is not noticed", faults=("Redis restarted with an old snapshot",), pause_s=0.3)
def _same_run() -> None:
    put(redis_log, "identity_of", lambda _: (b"one", b"server"))
    join = RedisLog.join
    put(RedisLog, "join", lambda self, _known: join(self, None))


@mutant("records of an older log are believed", faults=("Redis restarted empty",), lineup="redis+database")
def _any_epoch() -> None:
    cores: list[Core] = []
    make, decode = Core.__init__, Codec.decode

    def remember(self: Core, *said: Any) -> None:
        make(self, *said)
        cores.append(self)

    def believing(self: Codec, answer: Any, address: Any) -> Any:
        record = decode(self, answer, address)
        if record is not None:
            record.epoch = cores[-1].log_epoch
            record.seq = max(record.seq, cores[-1].floors.seq)
        return record

    put(Core, "__init__", remember)
    put(Codec, "decode", believing)


@mutant(
    "records of an older log are judged by nobody",
    faults=("Redis restarted empty", "FLUSHALL"),
    lineup="redis+database",
)
def _no_books() -> None:
    kept = PostgresStore.kept

    async def careless(self: PostgresStore, address: Any) -> Any:
        found = await kept(self, address)
        return None if found is None else msgspec.structs.replace(found, kills=[])

    put(PostgresStore, "kept", careless)


@mutant("a database is not told of kills", faults=("Redis restarted empty", "FLUSHALL"), lineup="redis+database")
def _no_keepers() -> None:
    make = Core.__init__

    def forgetting(self: Core, *said: Any) -> None:
        make(self, *said)
        lanes = self.keepers
        self.keepers = ()
        put(Carrying, "accepted", partialmethod(_accepted, lanes))

    put(Core, "__init__", forgetting)


async def _accepted(self: Carrying, lanes: Any, view: Any, lane: Any, answer: Any, address: Any, **how: Any) -> Any:
    record = self._accept(view, lane, answer, address, **how)
    if record is None and answer is not None and lane in lanes:
        answer = await self._carried(view, lane, address, answer)
        record = self._accept(view, lane, answer, address, **how)
    return record, answer


@mutant("a process never knows that it does not hear", faults=("partition",), partition="bypass", pause_s=0.4)
def _never_deaf() -> None:
    put(Hearing, "_proven_until", lambda *_: FOREVER)


@mutant("bypass serves near copies", faults=("partition",), partition="bypass", pause_s=0.4)
def _no_bypass() -> None:
    proven = Hearing._proven_until

    def serving(self: Hearing, tier: Any, now: float) -> float:
        until = proven(self, tier, now)
        self._core.is_deaf = False
        return until

    put(Hearing, "_proven_until", serving)


@mutant("hearing is proven by the time of the answer", faults=("late replies",), pause_s=0.2)
def _time_of_answer() -> None:
    heard = RemoteLog.heard
    put(RemoteLog, "heard", lambda self, news, _: heard(self, news, time.monotonic()))


# -- floors ------------------------------------------------------------------------------------------------------------


@mutant("floors are not applied")
def _no_floors() -> None:
    put(Floors, "_apply", lambda *_: None)


@mutant("a process that begins does not read the floors", faults=("killed worker",), pause_s=0.2)
def _no_floors_at_first() -> None:
    put(RemoteTier, "floors", lambda _: [])


@mutant("tags are not judged")
def _no_tags() -> None:
    killer = Floors.killer
    put(Floors, "killer", lambda self, reach, key, _, seq, *judged: killer(self, reach, key, (), seq, *judged))


@mutant("patterns are forgotten")
def _no_patterns() -> None:
    apply_floor = Floors._apply
    put(Floors, "_apply", lambda self, n: None if n.kind is Kind.PATTERN else apply_floor(self, n))


@mutant("clear spares what is there")
def _no_clear() -> None:
    apply_floor = Floors._apply
    put(Floors, "_apply", lambda self, n: None if n.kind is Kind.CLEAR else apply_floor(self, n))


@mutant("invalidations stay in their namespace")
def _no_nesting() -> None:
    put(engine_core, "reach_of", lambda namespace, owner: tuple({(namespace, None), (namespace, owner)}))


@mutant("invalidations of all spare those of owners")
def _no_owners() -> None:
    reach_of = engine_core.reach_of
    put(engine_core, "reach_of", lambda name, owner: tuple(s for s in reach_of(name, owner) if s[1] == owner))


@mutant("tags known after the load are not kept")
def _no_late_tags() -> None:
    put(Storing, "_heed", staticmethod(lambda **_: None))


@mutant("entries count as judged for ever")
def _judged_for_ever() -> None:
    always = object()
    put(Floors, "epoch", property(lambda _: always, lambda _, __: None))


# -- loads and fills ---------------------------------------------------------------------------------------------------


@mutant("fills are never killed, and servers never refuse them")
def _immortal_fills() -> None:
    put(Fills, "alive", lambda *_: True)
    _newest_since()


@mutant("servers refuse no fill")
def _unrefused() -> None:
    _newest_since()


@mutant("promotions ask for no token", faults=("partition",), pause_s=0.2, callers=30)
def _no_token() -> None:
    promote = Writing.promote
    put(Writing, "promote", lambda self, view, record, _: promote(self, view, record, self._core.fills.now()))


def _newest_since() -> None:
    commit = RemoteTier.commit

    def unguarded(self: RemoteTier, changes: Sequence[Any]) -> Any:
        bare = [
            msgspec.structs.replace(one, since=None if one.since is None else self.seq() + 1_000)
            if isinstance(one, Put) and one.since is not None
            else one
            for one in changes
        ]
        return commit(self, bare)

    put(RemoteTier, "commit", unguarded)


@mutant("fills carry the time of their end")
def _stamp_after_load() -> None:
    keep = Storing.keep

    async def late(
        self: Storing, view: Any, address: Any, plan: Any, loaded: Any, stale: Any, _token: Any, _since: Any, _seq: int
    ) -> Any:
        core = self._core
        since = [lane.seq() for lane in core.lanes]
        return await keep(
            self, view, address, plan, loaded, stale, core.fills.now(), since, self.position()
        )  # fmt: skip

    put(Storing, "keep", late)


@mutant("callers join loads that an invalidation has overtaken", callers=30)
def _join_old_flights() -> None:
    flights: dict[int, dict[Any, Flight]] = {}

    def join_or_lead(self: Reading, view: Any, key: str, load: Any, plan: Any, stale: Any) -> Flight:
        known = flights.setdefault(id(view.space), {})
        old = known.get(view.map_key(key))
        if old is not None and old.outcome is None and not old.orphaned:
            return old
        new = known[view.map_key(key)] = joining(self, view, key, load, plan, stale)
        return new

    joining = Reading._join_or_lead
    put(Reading, "_join_or_lead", join_or_lead)
    put(Reading, "killed_since", lambda *_: False)


@mutant("everybody has the lease", caught_by=frozenset({"two loads"}))
def _no_lease() -> None:
    put(RemoteTier, "lease", lambda *_: True)


@mutant("each caller loads by itself", caught_by=frozenset({"two loads"}))
def _no_flight() -> None:
    def lead(self: Leading, job: Any) -> Flight:
        job.view.space.flights.pop(job.key, None)
        return leading(self, job)

    leading = Leading.lead
    put(Leading, "lead", lead)
    joining = Reading._join_or_lead

    def alone(self: Reading, view: Any, key: str, load: Any, plan: Any, stale: Any) -> Flight:
        view.space.flights.pop(view.map_key(key), None)
        return joining(self, view, key, load, plan, stale)

    put(Reading, "_join_or_lead", alone)


# -- changes -----------------------------------------------------------------------------------------------------------


@mutant("a delete forgets only the near copy")
def _delete_here() -> None:
    async def delete(self: Writing, view: Any, keys: Sequence[str]) -> Any:
        self._forget(view, keys)
        return DONE

    put(Writing, "delete", delete)


@mutant("a delete leaves the near copy")
def _delete_there() -> None:
    put(Writing, "_forget", lambda *_: None)


@mutant("what is owed is forgotten", faults=("Redis frozen", "partition"), pause_s=0.2)
def _no_debts() -> None:
    put(Lane, "owe", lambda *_: None)


@mutant("a tier that is owed something is believed", faults=("Redis frozen", "partition"), pause_s=0.2)
def _believe_debtors() -> None:
    pay = Delivery.pay

    async def late(self: Delivery) -> bool:
        await asyncio.sleep(DEBT_S)  # which by itself harms nobody
        return await pay(self)

    put(Lane, "_route", lambda lane: setattr(lane, "get", lane.tier.get))
    put(Delivery, "pay", late)


@mutant("degraded changes are called done", faults=("partition",), pause_s=0.2)
def _lie() -> None:
    commit = Writing._commit_lanes

    async def lying(self: Writing, lanes: Any, written: Any) -> Any:
        await commit(self, lanes, written)
        return DONE

    put(Writing, "_commit_lanes", lying)
    put(Writing, "_kill_slowly", _lied(Writing._kill_slowly))


def _lied(kill_slowly: Any) -> Any:
    async def lying(self: Writing, authority: Lane, kills: Any) -> Any:
        await kill_slowly(self, authority, kills)
        return DONE

    return lying


@mutant("the log is told before the other tier", lineup="redis+database")
def _log_first() -> None:
    async def answers(self: Delivery, lanes: Any, *, behind: bool = False) -> Any:
        found: dict[int, Any] = {}
        for lane, batch in sorted(lanes, key=lambda one: one[0] is not self._core.authority):
            found[id(lane)] = await self.answer(lane, batch, queue(lane, batch), behind=behind)
        return [found[id(lane)] for lane, _ in lanes]

    put(Delivery, "answers", answers)


# -- addresses ---------------------------------------------------------------------------------------------------------


@mutant("owners share their addresses", caught_by=frozenset({"mix-up"}))
def _no_owner() -> None:
    put(engine_core, "address_of", lambda scope, key: address_of(scope_of(scope.cache_name, scope.namespace), key))


@mutant("namespaces share their addresses", caught_by=frozenset({"mix-up"}))
def _no_namespace() -> None:
    put(engine_core, "address_of", lambda scope, key: address_of(scope_of(scope.cache_name, "", scope.owner), key))


# -- the run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caught:
    """How a mutant fared."""

    name: str
    seconds: float
    by: str
    """The checks that spoke; empty: it got away."""

    def row(self) -> str:
        return f"| {self.name} | {self.seconds:.0f} | {self.by or '**not caught**'} |"


def hunt(name: str, seed: int, limit_s: float = CATCH_S) -> Caught:
    """Run clusters with a mutant until the checker finds it, or the time is over."""
    from tests.coherence.run import Plan, run  # noqa: PLC0415  # the worker needs this module without the runner

    one = MUTANTS[name]
    plan = Plan(
        seed,
        7.0,
        4,
        one.lineup,
        one.faults,
        one.partition,
        one.pause_s,
        callers=one.callers,
        mutant=name,
    )
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        report = run(plan)
        kinds = sorted({violation.check for violation in report.violations})
        if one.caught_by & set(kinds):
            return Caught(name, time.monotonic() - started, ", ".join(kinds))
        plan = replace(plan, seed=plan.seed + 2, seconds=min(plan.seconds * 2, 15.0))
    return Caught(name, time.monotonic() - started, "")


def lame() -> list[str]:
    """Mutants that cannot be applied, because what they change has another name by now; a process for each."""
    found = []
    for name in MUTANTS:
        child = os.fork()
        if not child:
            try:
                apply(name)
            except BaseException:  # noqa: BLE001  # whatever it is, it is not the fault that was meant
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            found.append(name)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """From the command line; 0 where all were caught."""
    parser = argparse.ArgumentParser(description="Mutants of the protocol, each hunted by the checker.")
    parser.add_argument("--mutant", action="append", choices=list(MUTANTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--look", action="store_true", help="only see whether each can be applied")
    said = parser.parse_args(words)
    if said.look:
        print(f"{len(MUTANTS)} mutants, lame: {lame()}")
        return 0
    away = 0
    for name in said.mutant or MUTANTS:
        caught = hunt(name, said.seed)
        away += not caught.by
        print(caught.row(), flush=True)
    return int(away > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Random calls of a cache over an origin that fails, hangs, dawdles and is cancelled, judged by a model of what may be.

The model keeps a book of every load: when the loader began (a tick, which orders all that happens, and a time), how it
ended, and what may free its key for another one. Each answer is judged when it comes: by which load it was made, what
invalidated it since, how old it is, and how long its caller waited.
"""

import asyncio
import contextlib
import gc
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import leaping

from genesis_cache import Cache, CacheError, CacheSettings, LoadContext, LoaderTimeout
from genesis_cache.model.errors import CacheClosed
from genesis_cache.model.missing import MISSING
from genesis_cache.testing.clock import FakeClock

KEYS = [f"k{n}" for n in range(8)]
STREAM = "s"
"""A key of its own: what it holds is a tuple."""
ALL = [*KEYS, STREAM]
TAGS = {key: f"t{n % 3}" for n, key in enumerate(ALL)}
PUT_OFF_S = 1.0
DEADLINE_S = 8.0
MAX_LOADS = 6
MAX_ABANDONED = 5
MOST_CALLERS = 40
SLACK_S = 0.001
FOREVER = float("inf")

PROFILES: tuple[dict[str, Any], ...] = (
    {"ttl": 2},
    {"ttl": 2, "stale_while_revalidate": 3},
    {"ttl": 2, "stale_if_error": 6, "retry_after": 0.5},
    {"ttl": 1, "stale_if_error": 6, "soft_timeout": 0.3},
    {"ttl": 1, "stale_if_error": 4, "soft_timeout": 0.2, "hard_timeout": 0.6},
    {"ttl": 2, "hard_timeout": 0.4},
    {"ttl": 1, "stale_while_revalidate": 1, "stale_if_error": 5, "hard_timeout": 1},
    {"ttl": 4, "refresh_ahead": 0.5},
)
FATES = ("well",) * 14 + ("slow",) * 4 + ("fail",) * 5 + ("hang", "cancelled", "told", "skipped", "unchanged")


class Down(Exception):
    """The origin's own error; says by which load."""


@dataclass
class Load:
    """One run of a loader."""

    number: int
    key: str
    options: dict[str, Any]
    asked: int
    """The tick of the call whose loader it is: what was invalidated after it is of another generation."""
    began: int
    since: float
    run: int = 0
    """The first load of the same call of a loader."""
    ended: int | None = None
    until: float = FOREVER
    how: str = ""
    keeps: bool = True
    """Whether what it brings may be stored."""
    old: "Load | None" = None
    """Whose value it found unchanged."""


@dataclass
class Life:
    """One time that a value was stored: from when it is fresh and until when it may serve."""

    began: int
    stored: int
    fresh_until: float
    stale_for: float
    revalidate_for: float
    cut: tuple[int, float] = (0, 0.0)
    """Made stale by hand at this tick; until when it would have been fresh otherwise."""

    def fresh(self, tick: int) -> float:
        """Until when it is fresh for who asked at that tick."""
        return self.cut[1] if tick <= self.cut[0] else self.fresh_until


@dataclass
class Blow:
    """An invalidation of some keys: everything that began before ``begin`` is dead for calls after ``end``."""

    begin: int
    spares_stored: bool
    """It only makes stale what is stored (`Cache.expire`)."""
    end: float = FOREVER


@dataclass
class Call:
    """One caller: what it asked, when, and how long it may wait."""

    kind: str
    keys: list[str]
    options: dict[str, Any]
    begun: int
    at: float
    leaves: bool = False
    waited: float | None = None
    """How long for the first item of a stream."""


@dataclass
class Book:
    """What happened, and what was wrong with it."""

    clock: FakeClock
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    loads: list[Load] = field(default_factory=list)
    running: dict[str, list[Load]] = field(default_factory=dict)
    lives: dict[int, list[Life]] = field(default_factory=dict)
    blows: dict[str, list[Blow]] = field(default_factory=dict)
    put_off_at: float = -FOREVER
    """When a refresh was last put off because the origin was in trouble: its key rests, as after a failure."""
    freed: dict[str, int] = field(default_factory=dict)
    """The last tick at which a key was given free by a caller whose patience had ended."""
    failures: dict[str, list[tuple[int, float, str]]] = field(default_factory=dict)
    ticks: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    many: list[Call] = field(default_factory=list)
    """The calls of many keys under way, whose loads may not have begun."""
    numbers: int = 0
    is_closed: bool = False

    def tick(self) -> int:
        """The next moment; from any thread."""
        return next(self.ticks)

    def fault(self, sentence: str) -> None:
        """Something that may not be."""
        self.faults.append(f"at {self.clock.now() - 1000:.3f} s: {sentence}")

    # -- loads -------------------------------------------------------------------------------------------------------

    def begin(self, key: str, call: Call) -> Load:
        """A loader begins: no other of its key may run, unless the key was freed since that was asked for."""
        self.numbers += 1
        load = Load(self.numbers, key, call.options, call.begun, self.tick(), self.clock.now())
        self.counts["loads"] += 1
        for other in self.running.setdefault(key, []):
            older = min(other.asked, load.asked)
            if self.freed.get(key, 0) < older and not any(blow.begin > older for blow in self.blows.get(key, ())):
                self.fault(f"load {load.number} of {key} began while load {other.number} ran")
        self.running[key].append(load)
        return load

    def bound(self, keys: Iterable[str]) -> set[str]:
        """These keys, and those that one call of a loader is to bring, or may be, together with one of them."""
        found = set(keys)
        under_way = [load for loads in self.running.values() for load in loads]
        runs = {load.run for load in under_way if load.run and load.key in found}
        found.update(load.key for load in under_way if load.run in runs)
        for call in self.many:
            if not found.isdisjoint(call.keys):
                found.update(call.keys)
        return found

    def end(self, load: Load, how: str) -> None:
        """A loader ends; what it brings may be stored from now on."""
        load.ended, load.until, load.how = self.tick(), self.clock.now(), how
        self.running[load.key].remove(load)
        self.counts[how] += 1
        if how in ("failed", "deadline", "cancelled"):
            self.failures.setdefault(load.key, []).append((load.ended, load.until, how))
        if how == "brought" and load.keeps:
            self.live((load.old or load).number, load.options, load.began)

    def live(self, number: int, options: dict[str, Any], began: int) -> None:
        """A value is stored."""
        swr, sie = options.get("stale_while_revalidate", 0), options.get("stale_if_error", 0)
        life = Life(began, self.tick(), self.clock.now() + options["ttl"], max(swr, sie), swr)
        self.lives.setdefault(number, []).append(life)

    # -- invalidations -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def blow(self, keys: list[str], *, spares_stored: bool = False) -> Iterator[None]:
        """Keys are being invalidated: other loads of them may begin from now on, and the old are dead in the end."""
        blow = Blow(self.tick(), spares_stored)
        for key in keys:
            self.blows.setdefault(key, []).append(blow)
        yield
        end = self.tick()
        blow.end = end
        for key in keys if spares_stored else ():
            for number in self.loads_of(key):
                for life in self.lives.get(number, ()):
                    if life.stored < blow.begin and life.fresh_until > self.clock.now():
                        life.cut = (end, life.fresh_until)
                        life.fresh_until = self.clock.now()

    def loads_of(self, key: str) -> list[int]:
        """The numbers of a key's values."""
        return [load.number for load in self.loads if load.key == key]

    def is_dead(self, key: str, life: Life, call: Call) -> bool:
        """Whether something killed that life before the call."""
        return any(
            life.began < blow.begin and blow.end <= call.begun and not (blow.spares_stored and life.stored < blow.begin)
            for blow in self.blows.get(key, ())
        )

    # -- answers -----------------------------------------------------------------------------------------------------

    def judge(self, call: Call, key: str, value: object) -> None:
        """A value as an answer: made by a load of this key, alive when asked for, no older than the options allow."""
        number = value if isinstance(value, int) else -1
        load = next((load for load in reversed(self.loads) if load.number == number), None)
        if load is None or load.key != key:
            self.fault(f"{call.kind} of {key} gave {value!r}, which nobody made for it")
            return
        if load.ended is not None and load.ended >= call.begun and not load.keeps:
            return  # what is not kept reaches those who waited for it
        lives = [life for life in self.lives.get(number, ()) if not self.is_dead(key, life, call)]
        if not lives:
            self.fault(f"{call.kind} of {key}, begun at tick {call.begun}, gave {number}, which had been invalidated")
            return
        if any(life.stored >= call.begun or call.at < life.fresh(call.begun) for life in lives):
            self.counts["fresh"] += 1
            return
        self.counts["stale"] += 1
        objections = [self._objection(call, key, life) for life in lives]
        if all(objections):
            self.fault(f"{call.kind} of {key} gave {number}, {objections[-1]}")

    def _objection(self, call: Call, key: str, life: Life) -> str:
        """Why a stale value may not be the answer, if it may not."""
        now = call.at if call.kind == "many" else self.clock.now()  # many are looked at first and then waited for
        age = f"{now - life.fresh_until:.3f} s after it was fresh"
        if call.kind == "get" or now >= life.fresh_until + life.stale_for + SLACK_S:
            return age
        if call.at >= life.fresh_until + life.revalidate_for and not self._may_fall_back(call, key):
            return f"{age}, though no load had failed or was late"
        return ""

    def _may_fall_back(self, call: Call, key: str) -> bool:
        """Whether an old value may have been the answer: a load failed lately, or the caller's patience ended."""
        limits = [call.options[name] for name in ("soft_timeout", "hard_timeout") if name in call.options]
        waited = self.clock.now() - call.at
        if (limits and waited >= min(limits) - SLACK_S) or call.at <= self.put_off_at + PUT_OFF_S:
            return True
        soft = call.options.get("soft_timeout", FOREVER)  # who comes to a load that is slow already does not wait
        slow_since = self.clock.now() - soft + SLACK_S
        if any(one.key == key and one.since <= slow_since and one.until >= call.at for one in self.loads):
            return True
        rest = max((profile.get("retry_after", 1) for profile in PROFILES), default=1)
        return any(at >= call.at - rest - SLACK_S for _, at, _ in self.failures.get(key, ()))

    def ended(self, call: Call) -> None:
        """A caller has its answer, whatever it is: not later than its hard_timeout."""
        limit = call.options.get("hard_timeout")
        waited = self.clock.now() - call.at if call.waited is None else call.waited
        self.counts["calls"] += 1
        if limit is not None and waited > limit + SLACK_S:
            self.fault(f"{call.kind} of {call.keys} waited {waited:.3f} s with a hard_timeout of {limit}")

    def refused(self, call: Call, error: BaseException) -> None:
        """An error as an answer: the origin's own of a load that ran meanwhile, or a timeout that is one."""
        failures = (one for key in call.keys for one in self.failures.get(key, ()))
        # What a thread has ended is told to callers a little later, at the same time of the clock.
        happened = [(tick, at, how) for tick, at, how in failures if tick > call.begun or at >= call.at]
        waited = self.clock.now() - call.at
        limit = min((call.options[n] for n in ("hard_timeout", "soft_timeout") if n in call.options), default=FOREVER)
        self.counts[type(error).__name__] += 1
        match error:
            case Down():
                fine = any(how == "failed" for _, _, how in happened)
            case LoaderTimeout():
                is_late = any(how == "deadline" for _, _, how in happened) or "no place" in str(error)
                fine = is_late or waited >= limit - SLACK_S
                for key in self.bound(call.keys):
                    self.freed[key] = self.tick()
            case asyncio.CancelledError():
                fine = call.leaves or any(how == "cancelled" for _, _, how in happened)
            case CacheError():
                is_told = "said that it failed" in str(error) and any(how == "failed" for _, _, how in happened)
                fine = is_told or (self.is_closed and isinstance(error, CacheClosed))
            case _:
                fine = False
        if not fine:
            self.fault(f"{call.kind} of {call.keys} raised {error!r} after {waited:.3f} s")


class Players:
    """Runs random operations against a cache."""

    def __init__(self, seed: int, clock: FakeClock) -> None:
        self.dice = random.Random(seed)
        self.book = Book(clock)
        self.clock = clock
        settings = CacheSettings(
            cache_load_deadline=DEADLINE_S, cache_max_loads=MAX_LOADS, cache_max_abandoned_loads=MAX_ABANDONED
        ).with_urls("memory://")
        self.cache = Cache(settings, clock=clock)
        self.callers: set[asyncio.Task[None]] = set()
        self.put_off = 0
        self.is_hasty = seed % 2 == 1

    async def play(self, operations: int) -> None:
        """So many operations, then let everything end, or close the cache in the midst of it; nothing may be left."""
        async with self.cache:
            for _ in range(operations):
                await self.step()
            if self.is_hasty:
                self.book.is_closed = True
                await self.cache.close()
                mine = {asyncio.current_task(), *self.callers}
                for task in asyncio.all_tasks() - mine:
                    self.book.fault(f"left behind when the cache was closed: {task}")
            await self.last()
            await asyncio.sleep(DEADLINE_S * 2)
            for sentence in left_behind(self.cache):
                self.book.fault(sentence)

    async def last(self) -> None:
        """Every caller has an answer in the end."""
        if self.callers:
            _, late = await asyncio.wait(self.callers, timeout=DEADLINE_S * (MOST_CALLERS + 2))
            if late:
                self.book.fault(f"{len(late)} callers have no answer long after the deadline of every load")

    async def step(self) -> None:
        """One operation."""
        dice = self.dice
        choice = dice.random()
        if choice < 0.80 and len(self.callers) < MOST_CALLERS:
            self.call()
        elif choice < 0.88:
            await self.invalidate()
        if dice.random() < 0.5:
            await asyncio.sleep(dice.choice((0, 0, 0.01, 0.05, 0.1, 0.3)))
        self.watch()

    def watch(self) -> None:
        """The bounds that hold at every moment."""
        core = self.cache._engine.core
        running = len({load.run for loads in self.book.running.values() for load in loads})
        if running - core.loads_abandoned > MAX_LOADS:
            self.book.fault(f"{running} loads run, {core.loads_abandoned} of them abandoned, at most {MAX_LOADS} may")
        if core.loads_abandoned > MAX_ABANDONED + 1:
            self.book.fault(f"{core.loads_abandoned} loads are abandoned")

    def note(self) -> None:
        """Whether a refresh was put off."""
        put_off = sum(space.meter.refreshes_put_off for space in self.cache._engine.core.spaces.values())
        if put_off != self.put_off:
            self.put_off = put_off
            self.book.put_off_at = self.clock.now()

    # -- callers -----------------------------------------------------------------------------------------------------

    def call(self) -> None:
        """A caller of some kind comes, and may leave before it has its answer."""
        dice = self.dice
        kind = dice.choice(("get_or_set",) * 6 + ("get", "get", "refresh", "many", "many", "stream"))
        keys = [dice.choice(KEYS)]
        if kind == "many":  # which share their tags
            tag = dice.choice(sorted(set(TAGS.values())))
            keys = [key for key in KEYS if TAGS[key] == tag and dice.random() < 0.7] or keys
        if kind == "stream":
            keys = [STREAM]
        options = dict(dice.choice(PROFILES))
        call = Call(kind, keys, options, self.book.tick(), self.clock.now())
        task = asyncio.ensure_future(self.answered(call))
        self.callers.add(task)
        task.add_done_callback(self.callers.discard)
        if dice.random() < 0.15:
            asyncio.get_running_loop().call_later(dice.random() * 0.3, self.leave, task, call)

    @staticmethod
    def leave(task: asyncio.Task[None], call: Call) -> None:
        """A caller is cancelled."""
        if not task.done():
            call.leaves = True
            task.cancel()

    async def answered(self, call: Call) -> None:
        """One call to its end, and the judgement."""
        try:
            found = await self.asked(call)
            self.note()
        except BaseException as error:  # noqa: BLE001  # every answer is judged
            self.book.refused(call, error)
        else:
            for key, value in found.items():
                self.book.judge(call, key, value)
        self.book.ended(call)

    async def asked(self, call: Call) -> dict[str, object]:
        """The values that a call brings."""
        (key, *_), tags = call.keys, [TAGS[call.keys[0]]]
        match call.kind:
            case "get":
                value = await self.cache.get(key, MISSING)
                return {} if value is MISSING else {key: value}
            case "many":
                loader = self.loader_of_many(call)
                self.book.many.append(call)
                try:
                    return await self.cache.get_or_set_many(call.keys, loader, tags=tags, **call.options)
                finally:
                    self.book.many.remove(call)
            case "stream":
                return await self.streamed(call, key, tags)
            case "refresh":
                return {key: await self.cache.refresh(key, self.loader(call), tags=tags, **call.options)}
            case _:
                return {key: await self.cache.get_or_set(key, self.loader(call), tags=tags, **call.options)}

    async def streamed(self, call: Call, key: str, tags: list[str]) -> dict[str, object]:
        """The one item of a stream, which is judged by when it came."""
        found: dict[str, object] = {}
        async for item in self.cache.stream(key, self.source(call), tags=tags, **call.options):
            call.waited = self.clock.now() - call.at
            found[key] = item
        return found

    # -- origin ------------------------------------------------------------------------------------------------------

    def loader(self, call: Call) -> Any:
        """A loader with a fate of its own."""
        fate = self.dice.choice(FATES)
        delay_s = self.dice.choice((0, 0, 0.01, 0.1)) if fate != "slow" else self.dice.choice((0.5, 0.5, 1, 3, 30))

        async def load(ctx: LoadContext) -> object:
            with self.loading(call.keys, call) as (mine,):
                await asyncio.sleep(FOREVER_S if fate == "hang" else delay_s)
                return self.fated(fate, mine, ctx)

        def plain(ctx: LoadContext) -> object:
            with self.loading(call.keys, call) as (mine,):
                return self.fated(fate, mine, ctx)

        return plain if fate in ("well", "fail") and self.dice.random() < 0.1 else load

    def fated(self, fate: str, mine: Load, ctx: LoadContext) -> object:
        """What a loader returns or raises."""
        if fate == "fail":
            raise Down(str(mine.number))
        if fate == "cancelled":
            raise asyncio.CancelledError
        if fate == "told":
            ctx.fail("no good")
            mine.how = "failed"
        elif fate == "skipped":
            ctx.skip()
            mine.keeps = False
        elif fate == "unchanged" and isinstance(ctx.stale_value, int):
            mine.old = next(load for load in self.book.loads if load.number == ctx.stale_value)
            return ctx.not_modified()
        return mine.number

    def loader_of_many(self, call: Call) -> Any:
        """The same for many keys; it forgets some of them now and then."""
        fate = self.dice.choice(("well",) * 7 + ("slow", "slow", "fail", "fail", "hang"))
        delay_s = self.dice.choice((0, 0.01, 0.1)) if fate != "slow" else self.dice.choice((0.5, 0.5, 1, 3, 30))

        async def load(keys: list[str]) -> dict[str, object]:
            with self.loading(keys, call) as mine:
                await asyncio.sleep(FOREVER_S if fate == "hang" else delay_s)
                if fate == "fail":
                    raise Down("many")
                return {load.key: load.number for load in mine}

        return load

    def source(self, call: Call) -> Any:
        """A stream of one or no number, then a pause, then its end, good or bad."""
        fate = self.dice.choice(("well",) * 7 + ("slow", "slow", "fail", "fail", "hang"))
        delay_s = self.dice.choice((0, 0.01, 0.1)) if fate != "slow" else self.dice.choice((0.5, 0.5, 1, 3, 30))

        async def items() -> AsyncIterator[object]:
            with self.loading([STREAM], call) as (mine,):
                await asyncio.sleep(delay_s)
                yield mine.number
                await asyncio.sleep(FOREVER_S if fate == "hang" else delay_s)
                if fate == "fail":
                    raise Down("stream")

        return items

    @contextlib.contextmanager
    def loading(self, keys: list[str], call: Call) -> Iterator[list[Load]]:
        """Books the loads of a loader, and how it ends."""
        mine: list[Load] = []
        for key in keys:
            mine.append(self.book.begin(key, call))
            mine[-1].run = mine[0].number
            self.book.loads.append(mine[-1])
        how = "brought"
        try:
            yield mine
            how = mine[0].how or how
        except Down:
            how = "failed"
            raise
        except asyncio.CancelledError:
            past = self.clock.now() - mine[0].since >= DEADLINE_S - SLACK_S
            how = "deadline" if past else "cancelled"
            raise
        except GeneratorExit:
            how = "cancelled"
            raise
        finally:
            for load in mine:
                self.book.end(load, how)

    # -- changes -----------------------------------------------------------------------------------------------------

    async def invalidate(self) -> None:
        """Something is changed or invalidated."""
        book, cache = self.book, self.cache
        key = self.dice.choice(ALL)
        tag = self.dice.choice(sorted(set(TAGS.values())))
        match self.dice.choice(("delete", "delete", "tag", "expire", "expire", "set", "pattern", "clear")):
            case "delete":
                with book.blow([key]):
                    await cache.delete(key)
            case "tag":
                with book.blow([one for one in ALL if TAGS[one] == tag]):
                    await cache.delete_by_tag(tag)
            case "expire":
                with book.blow([key], spares_stored=True):
                    await cache.expire(key)
            case "pattern":
                with book.blow([one for one in ALL if one[0] == key[0]]):
                    await cache.delete_by_pattern(f"{key[0]}*")
            case "clear":
                with book.blow(ALL):
                    await cache.clear()
            case _:
                await self.set(self.dice.choice(KEYS))

    async def set(self, key: str) -> None:
        """Store a value by hand."""
        options = {
            name: value
            for name, value in self.dice.choice(PROFILES).items()
            if name in ("ttl", "stale_if_error", "stale_while_revalidate")
        }
        self.book.numbers += 1
        with self.book.blow([key]):
            made = Load(self.book.numbers, key, options, 0, self.book.tick(), self.clock.now())
            self.book.loads.append(made)
            made.ended = self.book.tick()
            self.book.live(made.number, options, made.began)
            await self.cache.set(key, made.number, tags=[TAGS[key]], **options)


FOREVER_S = 10_000_000.0


def left_behind(cache: Cache) -> list[str]:
    """What must be at rest when all calls have ended."""
    core, reading = cache._engine.core, cache._engine.reading
    left = [f"flights of {list(space.flights)}" for space in core.spaces.values() if space.flights]
    left += [f"{space.gate.running} places taken" for space in core.spaces.values() if space.gate.running]
    left += [f"{core.fills._active} fills"] if core.fills._active else []
    left += [f"{core.loads_abandoned} abandoned"] if core.loads_abandoned else []
    left += [f"leases {reading.leading._leased}"] if reading.leading._leased else []
    left += [f"task {task}" for task in cache._engine.background._tasks if not task.done()]
    return left + ([] if core.memory is None else core.memory.check())


def run(operations: int, seed: int) -> Book:
    """One run on a clock of its own; its book has what was wrong."""
    clock = FakeClock()
    players = Players(seed, clock)
    complaints: list[str] = []
    leaping.run(clock, players.play(operations), complaints)
    players.cache._engine.reading.leading.close()  # a fault may have begun a thread on a closed cache
    gc.collect()
    players.book.faults += complaints
    return players.book

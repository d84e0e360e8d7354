"""One process of the cluster under test: a cache of its own, seeded random work, everything written into a history.

Run by `run.py` with a JSON file that says what to do. It does what it is told on its standard input, a line each:
``stall SECONDS``, ``fork``, ``settle`` (stop working, pay what is owed), ``verify`` (read everything, then end).
"""

import asyncio
import gc
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from tests.coherence import mutants
from tests.coherence.universe import LATE_TAGS, NAMESPACES, OWNERS, PATTERNS, PLACES, TAGS, Place, Truth, covered, names

from genesis_cache import Cache, LoadContext
from genesis_cache.testing.history import Change, Get, Recorder, named_value, read_named

CALL_S = 20.0  # a call that takes longer hangs
SETTLE_S = 60.0  # for owed changes to be paid once nothing is broken
FORK_LIVES_S = 2.0
TTLS_S = (0.7, 5.0, 60.0)
LOAD_MS = (0, 0, 1, 3, 10, 30)
NAP_S = 0.05
STEP = 10_000
STEP_WORD = b"step\n"
"""Said after so many operations."""
CHILD = -2  # the number of a forked child, which says nothing and sets no keys
WARM_PLACES = 8

VERBS = {"get": 42, "get_or_set": 34, "get_many": 3, "own": 9, "invalidate": 6, "kill": 3, "bulk": 1, "peek": 2}
CALM_RATES = {"own": 1.5, "invalidate": 2.0, "kill": 0.25, "bulk": 0.3}  # a second: so few that what is missed stays
PHASE_S = 2.0  # of three phases one is busy: then as much is changed as comes about


@dataclass
class Task:
    """What a worker is to do."""

    name: str
    number: int
    """From 0; workers that come in the place of a killed one have a number of their own, and set no keys."""
    workers: int
    seed: int
    folder: str
    urls: list[str]
    settings: dict[str, Any]
    callers: int = 8
    pace_ms: float = 2.0
    cancel: float = 0.03
    """The share of calls that are cancelled."""
    clears: bool = True
    mutant: str = ""
    burst: int = 0
    """How many plain reads a caller makes after each thing that it does."""


@dataclass
class Figures:
    """What a worker has done."""

    operations: int = 0
    hits: int = 0
    deaf: int = 0
    degraded: int = 0
    cancelled: int = 0
    slowest_get_ms: float = 0.0
    slowest_change_ms: float = 0.0
    trouble: list[str] = field(default_factory=list)


class Worker:
    """The work of one process."""

    def __init__(self, task: Task, cache: Cache, recorder: Recorder) -> None:
        self.task = task
        self.cache = cache
        self.recorder = recorder
        self.figures = Figures()
        self.staleness_s = float(task.settings["cache_max_staleness"])
        self.truth = Truth(Path(task.folder) / "truth")
        self.dice = random.Random(f"{task.seed}/{task.name}")
        self.locks = {place.number: asyncio.Lock() for place in PLACES}
        self.mine = [place for place in PLACES if place.is_set and place.writer(task.workers) == task.number]
        self.free = [place for place in PLACES if not place.is_set]
        self.views = {(namespace, owner): self._view(namespace, owner) for namespace in NAMESPACES for owner in OWNERS}
        self.working = asyncio.Event()
        self.told = 0
        self.may_change_at = dict.fromkeys(CALM_RATES, 0.0)
        self.deeds: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "get": self.get,
            "get_or_set": self.get_or_set,
            "get_many": self.get_many,
            "own": self.write,
            "invalidate": self.invalidate,
            "kill": self.kill,
            "bulk": self.bulk,
            "peek": self.peek,
        }

    def _view(self, namespace: str, owner: str | None) -> Cache:
        view = self.cache.namespace(namespace) if namespace else self.cache
        return view.owned_by(owner) if owner else view

    def view(self, place: Place) -> Cache:
        return self.views[place.namespace, place.owner]

    def place(self) -> Place:
        """A few of the places are much in demand."""
        return PLACES[int(len(PLACES) * self.dice.random() ** 2)]

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def hears(self) -> bool:
        """What the process says of itself."""
        return not self.cache._engine.core.is_cut_off

    def could_hear(self) -> bool:
        """Whether what was heard is young enough now; whoever was stopped has not said yet that it is not."""
        authority = self.cache._engine.core.authority
        if authority is None or not authority.tier.is_shared:
            return True
        heard_at = authority.tier.heard_at
        return heard_at is not None and time.monotonic() < heard_at + self.staleness_s

    def got(self, place: Place, begin: int, value: object, *, fresh: bool = True, heard: bool = True) -> None:
        """Write a read down; ``heard``: at its beginning."""
        get = Get(place.name, begin, self.recorder.now(), fresh=fresh, hears=heard and self.hears)
        if value is not None:
            named = read_named(value)
            self.figures.hits += 1
            get.version, get.maker, get.named = (
                (0, "", "") if named is None else (named.version, named.maker, named.key)
            )
        self.figures.deaf += not get.hears
        self.figures.slowest_get_ms = max(self.figures.slowest_get_ms, (get.end - begin) / 1e6)
        self.recorder.got(get)

    async def reading(self, place: Place, call: Callable[[], Awaitable[object]], *, fresh: bool = True) -> None:
        begin, heard = self.recorder.now(), self.could_hear()
        try:
            value = await call()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # a violation: it goes into the history
            said = f"{type(error).__name__}: {error}"
            self.recorder.got(Get(place.name, begin, self.recorder.now(), error=said))
        else:
            self.got(place, begin, value, fresh=fresh, heard=heard)

    async def get(self) -> None:
        place = self.place()
        stale = self.dice.random() < 0.1
        view = self.view(place)
        await self.reading(place, lambda: view.get(place.key, allow_stale=stale), fresh=not stale)

    async def peek(self) -> None:
        place = self.place()
        begin, heard = self.recorder.now(), self.could_hear()
        self.got(place, begin, self.view(place).peek(place.key), heard=heard)

    async def get_many(self) -> None:
        place = self.place()
        some = [one for one in PLACES if (one.namespace, one.owner) == (place.namespace, place.owner)][:5]
        begin, heard = self.recorder.now(), self.could_hear()
        found = await self.view(place).get_many([one.key for one in some])
        for one in some:
            self.got(one, begin, found.get(one.key), heard=heard)

    async def get_or_set(self) -> None:
        place = self.place()
        options: dict[str, Any] = {"ttl": self.dice.choice(TTLS_S), "tags": [place.tag]}
        fresh = self.dice.random() < 0.8
        if not fresh:
            options["stale_while_revalidate"] = 3.0
        load = self.loader(place, options["ttl"])
        await self.reading(place, lambda: self.view(place).get_or_set(place.key, load, **options), fresh=fresh)

    def loader(self, place: Place, ttl_s: float) -> Callable[[LoadContext], Awaitable[object]]:
        before, after = self.dice.choice(LOAD_MS) / 1000, self.dice.choice(LOAD_MS) / 1000
        padding = self.dice.choice((0, 0, 0, 3000))

        async def load(context: LoadContext) -> object:
            with self.recorder.load(place.name, ttl_s) as span:
                await asyncio.sleep(before)
                span.version = self.truth.read(place)
                await asyncio.sleep(after)
                context.tags.add(place.late_tag)
                return named_value(place.name, span.version, span.name, padding)

        return load

    # -- changing -------------------------------------------------------------------------------------------------

    def commit(self, place: Place) -> int:
        """A new version in the source of truth."""
        self.truth.lock(place)
        try:
            version = self.truth.read(place) + 1
            with self.recorder.commit(place.name, version):
                self.truth.write(place, version)
        finally:
            self.truth.unlock(place)
        return version

    async def changing(self, change: Change, call: Callable[[Change], Awaitable[object]]) -> None:
        """Do it, with its outcome on record; what does not come back is a fault too."""
        try:
            with self.recorder.change(change):
                try:
                    async with asyncio.timeout(CALL_S):
                        told = await call(change)
                except TimeoutError:
                    change.outcome = "hung"
                else:
                    change.outcome = "ok" if told else "degraded"
                    change.error = ",".join(getattr(told, "degraded", ()))
        except Exception:  # noqa: BLE001  # it is on record
            return
        self.figures.degraded += change.outcome == "degraded"
        took_ms = ((change.end or 0) - change.begin) / 1e6
        self.figures.slowest_change_ms = max(self.figures.slowest_change_ms, took_ms)

    async def write(self) -> None:
        """Set or delete a key that nobody else sets."""
        if not self.mine:
            return
        place = self.dice.choice(self.mine)
        view = self.view(place)
        async with self.locks[place.number]:
            version = self.commit(place)
            if self.dice.random() < 0.25:
                await self.changing(Change("delete", (place.name,)), lambda _: view.delete(place.key))
                return
            ttl = self.dice.choice(TTLS_S)
            change = Change("set", (place.name,), version, ttl_s=ttl)
            tags = [place.tag, place.late_tag]
            await self.changing(
                change,
                lambda made: view.set(place.key, named_value(place.name, version, made.name), ttl=ttl, tags=tags),
            )

    async def invalidate(self) -> None:
        """Commit, then delete."""
        place = self.dice.choice(self.free)
        self.commit(place)
        await self.changing(Change("delete", (place.name,)), lambda _: self.view(place).delete(place.key))

    async def bulk(self) -> None:
        """Commit some, then delete or set them together."""
        sets = bool(self.mine) and self.dice.random() < 0.5
        home = self.dice.choice(self.mine if sets else self.free)
        where = (home.namespace, home.owner)
        some = [one for one in (self.mine if sets else self.free) if (one.namespace, one.owner) == where]
        view = self.view(home)
        if not sets:
            for one in some:
                self.commit(one)
            await self.changing(Change("delete", names(some)), lambda _: view.delete(*[one.key for one in some]))
            return
        async with AsyncExitStack() as held:
            for one in some:
                await held.enter_async_context(self.locks[one.number])
            await self._set_together(view, some)

    async def _set_together(self, view: Cache, some: list[Place]) -> None:
        ttl = self.dice.choice(TTLS_S)
        tags = {tag for one in some for tag in (one.tag, one.late_tag)}  # more than each needs: it dies more often
        changes = [Change("set", (one.name,), self.commit(one), ttl_s=ttl) for one in some]
        for change in changes[1:]:
            self.recorder.begin(change)

        async def call(first: Change) -> object:
            made = zip(some, [first, *changes[1:]], strict=True)
            values = {one.key: named_value(one.name, change.version or 0, change.name) for one, change in made}
            return await view.set_many(values, ttl=ttl, tags=tags)

        await self.changing(changes[0], call)
        for change in changes[1:]:
            change.outcome = changes[0].outcome
            self.recorder.end(change)

    async def kill(self) -> None:
        """Commit a little, then invalidate by tag, pattern or scope."""
        namespace, owner = self.dice.choice(list(self.views))
        view = self.views[namespace, owner]
        kind = self.dice.choices(("tag", "pattern", "clear"), (8, 3, 1))[0]
        name = {"tag": self.dice.choice((*TAGS, *LATE_TAGS)), "pattern": self.dice.choice(PATTERNS), "clear": ""}[kind]
        if kind == "clear" and not self.task.clears:
            return
        places = covered(kind, namespace, owner, name)
        changed = [place for place in places if not place.is_set]
        for place in self.dice.sample(changed, min(len(changed), 3)):
            self.commit(place)
        verbs: dict[str, Callable[[Change], Awaitable[object]]] = {
            "tag": lambda _: view.delete_by_tag(name),
            "pattern": lambda _: view.delete_by_pattern(name),
            "clear": lambda _: view.clear(),
        }
        await self.changing(Change(kind, names(places)), verbs[kind])

    # -- the life of a caller -------------------------------------------------------------------------------------

    async def live(self) -> None:
        """One caller among many: it does one thing after the other while there is work."""
        while self.working.is_set():
            verb = self.verb()
            self.count(1)
            if self.dice.random() < self.task.cancel:
                await self.leave(self.deeds[verb]())
            else:
                await self.deeds[verb]()
            if self.task.burst:
                await self.read_on()
            if self.task.pace_ms:
                await asyncio.sleep(self.dice.expovariate(1000 / self.task.pace_ms))
            elif self.figures.operations % 8 == 0:
                await asyncio.sleep(0)

    def count(self, operations: int) -> None:
        """So many were done, or begun; whoever started this hears of it from time to time."""
        self.figures.operations += operations
        while self.task.number != CHILD and self.figures.operations >= self.told + STEP:
            self.told += STEP
            os.write(1, STEP_WORD)

    def verb(self) -> str:
        """What to do next; in calm phases most changes are replaced by reads."""
        verb = self.dice.choices(list(VERBS), list(VERBS.values()))[0]
        now = time.monotonic()
        if verb not in CALM_RATES or int(now / PHASE_S) % 3 == 0:
            return verb
        if now < self.may_change_at[verb]:
            return self.dice.choice(("get", "get_or_set"))
        self.may_change_at[verb] = now + self.dice.expovariate(CALM_RATES[verb])
        return verb

    async def read_on(self) -> None:
        """Nothing but reads, round and round, of some keys that are there: as where a cache is warm."""
        places = [self.place() for _ in range(WARM_PLACES)]
        left = self.task.burst
        while places and left > 0 and self.working.is_set():
            for place in list(places):
                begin, heard = self.recorder.now(), self.could_hear()
                value = await self.view(place).get(place.key)
                self.got(place, begin, value, heard=heard)
                if value is None:
                    places.remove(place)
                left -= 1
            await asyncio.sleep(0)
        self.count(self.task.burst - left)

    async def leave(self, call: Coroutine[Any, Any, None]) -> None:
        """Begin something and cancel it in the middle."""
        task = asyncio.create_task(call)
        await asyncio.sleep(self.dice.choice((0, 0, 0.0005, 0.002, 0.01)))
        if not task.done():
            self.figures.cancelled += 1
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise

    async def work(self) -> None:
        """All callers, until there is no more work."""
        self.working.set()
        await asyncio.gather(*(self.live() for _ in range(self.task.callers)))

    async def settle(self) -> bool:
        """Wait until nothing is owed and every tier works; False where that does not come about."""
        core = self.cache._engine.core
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end:
            await self.cache.get("nothing")
            if self.hears and not any(lane.owed or lane.tier.down for lane in core.lanes):
                return True
            await asyncio.sleep(NAP_S)
        for lane in core.lanes:
            self.figures.trouble.append(f"{self.task.name}: {lane.label} owed {lane.owed}, down {lane.tier.down}")
        self.figures.trouble.append(f"{self.task.name} did not recover within {SETTLE_S:g} s; hears {self.hears}")
        return False

    async def verify(self) -> None:
        """Read everything once more."""
        for place in PLACES:
            view = self.view(place)
            await self.reading(place, lambda view=view, place=place: view.get(place.key))  # type: ignore[misc]

    # -- fork -----------------------------------------------------------------------------------------------------

    def fork(self, number: int) -> int:
        """A child that goes on with the same cache for a while, with its own history; its number."""
        self.recorder.flush()
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            asyncio._set_running_loop(None)
            name = f"{self.task.name}f{number}"
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(FORK_LIVES_S * 10))
            recorder = Recorder(Path(self.task.folder) / f"{name}.jsonl", name)
            gc.disable()  # what the parent was doing must not be brought to an end here
            child_task = Task(**{**asdict(self.task), "name": name, "number": CHILD, "callers": 3})
            worker = Worker(child_task, self.cache, recorder)
            asyncio.run(worker.live_briefly())
            recorder.close()
            status = 0
        except BaseException as error:  # noqa: BLE001  # nothing of the parent's may run on in the child
            os.write(2, f"child {number}: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)

    async def live_briefly(self) -> None:
        """The life of a forked child."""
        working = asyncio.create_task(self.work())
        await asyncio.sleep(FORK_LIVES_S)
        self.working.clear()
        await working


class Life:
    """A worker and whoever tells it what to do."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.orders: asyncio.Queue[list[str]] = asyncio.Queue()
        self.children: list[int] = []
        self._rest = b""

    def listen(self) -> None:
        os.set_blocking(0, False)
        asyncio.get_running_loop().add_reader(0, self._hear)

    def _hear(self) -> None:
        data = os.read(0, 65536)
        if not data:
            os._exit(3)  # whoever started this has ended
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.orders.put_nowait(line.decode().split())

    async def run(self) -> None:
        """Until told to verify."""
        self.listen()
        worker = self.worker
        say("ready")
        working = asyncio.create_task(worker.work())
        while True:
            match await self.orders.get():
                case ["stall", seconds]:
                    time.sleep(float(seconds))  # noqa: ASYNC251  # that is the fault
                case ["fork"]:
                    self.children.append(worker.fork(len(self.children)))
                case ["settle"]:
                    worker.working.clear()
                    await working
                    await self._reap()
                    await worker.settle()
                    say("settled")
                case ["verify"]:
                    await worker.verify()
                    return

    async def _reap(self) -> None:
        for child in self.children:
            while True:
                pid, status = os.waitpid(child, os.WNOHANG)  # noqa: ASYNC222  # it does not wait
                if pid:
                    break
                await asyncio.sleep(NAP_S)
            if status:
                self.worker.figures.trouble.append(f"{self.worker.task.name}: a forked child ended with {status}")


def say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


async def main(task: Task) -> Figures:
    """The whole life of the process."""
    mutants.apply(task.mutant)
    cache = Cache.from_url(*task.urls, **task.settings)
    recorder = Recorder(Path(task.folder) / f"{task.name}.jsonl", task.name)
    worker = Worker(task, cache, recorder)
    async with cache:
        await Life(worker).run()
    recorder.close()
    return worker.figures


if __name__ == "__main__":
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Task)
    figures = asyncio.run(main(spec))
    say(msgspec.json.encode(figures).decode())

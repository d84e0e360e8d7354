"""The demo: the same traffic without and with the cache, a price that changes, a server that hangs, a restart."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from genesis_cache.cache import Cache
from genesis_cache.demo import figures
from genesis_cache.demo.backend import ANSWER_SECONDS, ANSWER_USD, ROW_SECONDS, Backend
from genesis_cache.demo.load import TICK_SECONDS, Progress, play, reprice, stroll
from genesis_cache.demo.page import Page
from genesis_cache.demo.places import VARIABLES, Places, in_folder, on_servers
from genesis_cache.demo.screen import screen
from genesis_cache.demo.service import Service, service
from genesis_cache.demo.telling import COMPARED, Teller
from genesis_cache.demo.traffic import QUESTION_EVERY, SOURCE, recorded
from genesis_cache.demo.words import words
from genesis_cache.model.errors import SettingsError

RUN_SECONDS = 10.0  # each of the two runs, where no limit is given
REAL_WAITS_SECONDS = 16.0  # with less time than this for everything, the backend is sped up
MAX_RATE = 9_000  # requests a second; above it a small machine measures itself
MAX_RATE_SHARED = 5_000  # the same where servers of this machine need their share of it
MIN_RATE_SHARED = 1_000
TRIAL_VISITS = 1_000
VISITING_SHARE = 0.2  # of this process's time, for what visits without the cache take; with it and cold they take more
MIN_SECONDS = 3.0
MAX_SPEED = 1_000.0
STROLL_RATE = 200.0  # requests a second
STROLLERS = 10  # who send them
PRICES_RATE = 3.0  # changes a second meanwhile
REDRAW_SECONDS = 0.12
PRODUCT = 3 * QUESTION_EVERY - 1  # a product that visitors ask the assistant about
NEW_PRICE_CENTS = 1234
FROZEN_SECONDS = 2.0
BACK_SECONDS = 5.0  # for the frozen server to be in use again
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class Demo:
    """One run of the demo, with what it needs at every step."""

    def __init__(
        self, teller: Teller, speed: float, run_seconds: float, places: Places, page: Page | None = None
    ) -> None:
        self.page = Page() if page is None else page
        self.teller = teller
        self.speed = speed
        self.run_seconds = run_seconds
        self.places = places
        self.traffic = recorded()[: int(MAX_RATE * run_seconds)]
        self.cache = places.cache()

    async def tell(self) -> dict[str, Any]:
        """The whole story; its figures as one JSON document."""
        url = self.page.url
        if self.places.is_shared:
            self.traffic = self.traffic[: int(await self._bearable_rate() * self.run_seconds)]
        requests, objects = len(self.traffic), len(set(self.traffic))
        rate = requests / self.run_seconds
        self.teller.introduce(
            requests=requests, objects=objects, rate=rate, speed=self.speed, url=url, tiers=self._tiers()
        )
        before = await self.measure(self.teller.words.without, None)
        after = await self.measure(self.teller.words.with_cache, self.cache)
        self.teller.compare(before, after)
        update = await self.update()
        self.teller.update(update)
        freeze = await self.freeze()
        if freeze is not None:
            self.teller.freeze(freeze)
        restart = await self.restart()
        self.teller.restart(restart, shared=self.places.is_shared)
        return {
            "traffic": SOURCE,
            "requests": requests,
            "objects": objects,
            "speed": self.speed,
            "usd_per_answer": ANSWER_USD,
            "before": msgspec.to_builtins(before),
            "after": msgspec.to_builtins(after),
            "change": {name: figures.change(getattr(before, name), getattr(after, name)) for name in COMPARED},
            "hit_ratio": after.hit_ratio,
            "tiers": ["memory", *self.places.urls],
            "update": msgspec.to_builtins(update),
            "freeze": msgspec.to_builtins(freeze),
            "restart": msgspec.to_builtins(restart),
            "url": url,
        }

    async def measure(self, label: str, cache: Cache | None) -> figures.Figures:
        """Play the traffic once, showing how it goes."""
        backend, progress = Backend(self.speed), Progress(len(self.traffic))
        drawing = asyncio.create_task(self._draw(label, progress, cache))
        await play(self.traffic, service(backend, cache), self.run_seconds, progress)
        await drawing
        return figures.figures(self.traffic, progress, backend, None if cache is None else _hit_ratio(cache))

    async def update(self) -> figures.Update:
        """Change a price at the source, invalidate by tag, and ask again at once."""
        backend = Backend(self.speed)
        visit = service(backend, self.cache)
        await visit(PRODUCT)
        old, old_ms = await _timed(visit, PRODUCT)
        backend.reprice(PRODUCT, NEW_PRICE_CENTS)
        await self.cache.delete_by_tag(f"product:{PRODUCT}")
        new, new_ms = await _timed(visit, PRODUCT)
        _, again_ms = await _timed(visit, PRODUCT)
        return figures.Update(
            number=PRODUCT,
            old_answer=str(old),
            new_answer=str(new),
            old_ms=old_ms,
            new_ms=new_ms,
            again_ms=again_ms,
            fresh=f"{NEW_PRICE_CENTS / 100:.2f}" in str(new),
        )

    async def freeze(self) -> figures.Freeze | None:
        """Stop our own Redis in mid-traffic; None where there is none. The same traffic goes before it and during."""
        server = self.places.own.get("redis")
        if server is None:
            return None
        before = await self._played(FROZEN_SECONDS / 2)
        server.freeze()
        try:
            during = await self._played(FROZEN_SECONDS)
        finally:
            server.thaw()
        return figures.Freeze(
            seconds=FROZEN_SECONDS,
            requests=during.done,
            before_p99_ms=figures.quantile_ms(sorted(before.latencies), 0.99),
            during_p99_ms=figures.quantile_ms(sorted(during.latencies), 0.99),
            back_ms=await self._until_back(),
        )

    async def restart(self) -> figures.Restart:
        """Close the cache, open a new one over the same tiers, and ask for everything once."""
        await self.cache.close()
        self.cache = self.places.cache()
        await self.cache.open()
        self.page.show(self.cache)
        backend = Backend(self.speed)
        visit = service(backend, self.cache)
        numbers = sorted(set(self.traffic))
        ordered_s = sorted([(await _timed(visit, number))[1] / 1000 for number in numbers])
        return figures.Restart(
            asked=len(numbers),
            backend_calls=backend.queries + backend.answers,
            latency_p50_ms=figures.quantile_ms(ordered_s, 0.50),
            latency_p99_ms=figures.quantile_ms(ordered_s, 0.99),
        )

    async def serve(self, seconds: float | None) -> None:
        """Keep light traffic going until the time is over or the process is told to stop."""
        if seconds is None:
            self.teller.serving(f"{self.page.url}?window=60", self.page.token)
        elif seconds <= 0:
            return
        stop = asyncio.Event()
        _on_signals(stop.set, signal.SIGINT, signal.SIGTERM)
        backend = Backend(self.speed)
        visit = service(backend, self.cache)
        starts = range(0, len(self.traffic), -(-len(self.traffic) // STROLLERS))
        strolling = [
            asyncio.create_task(stroll([*self.traffic[start:], *self.traffic[:start]], visit, STROLL_RATE / STROLLERS))
            for start in starts
        ]
        repricing = asyncio.create_task(reprice(self.traffic, backend, self.cache, PRICES_RATE))
        stopping = asyncio.create_task(stop.wait())
        tasks = (stopping, repricing, *strolling)
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def leave(self) -> None:
        """Close the cache, and take what the demo left on servers that others run."""
        if self.places.given:
            numbers = sorted(set(self.traffic))
            await self.cache.delete(*(f"{what}:{number}" for number in numbers for what in ("product", "answer")))
            await self.cache.clear()
        await self.cache.close()

    async def _bearable_rate(self) -> float:
        """Requests a second that this machine can send beside its servers; an open loop would drown it in more."""
        visit = service(Backend(MAX_SPEED), None)
        began = perf_counter()
        await asyncio.gather(*(visit(number) for number in self.traffic[:TRIAL_VISITS]))
        bearable = VISITING_SHARE * TRIAL_VISITS / (perf_counter() - began)
        return min(max(bearable, MIN_RATE_SHARED), MAX_RATE_SHARED)

    async def _played(self, seconds: float) -> Progress:
        traffic = self.traffic[: max(1, int(len(self.traffic) * seconds / self.run_seconds))]
        progress = Progress(len(traffic))
        await play(traffic, service(Backend(self.speed), self.cache), seconds, progress)
        return progress

    async def _until_back(self) -> float | None:
        """Milliseconds until every tier is in use again; None where that takes too long to wait for."""
        began = perf_counter()
        while perf_counter() - began < BACK_SECONDS:
            if all(row["up"] for row in _layers(self.cache).values()):
                return (perf_counter() - began) * 1000
            await asyncio.sleep(TICK_SECONDS)
        return None

    def _tiers(self) -> Sequence[str]:
        """The tiers in look-up order, each with whose server it is, and why it is not in use."""
        told = []
        for row in _layers(self.cache).values():
            kind = row["tier"]
            notes = [VARIABLES[kind]] if kind in self.places.given else []
            notes += [self.teller.words.own_server] if kind in self.places.own else []
            notes += [] if row["up"] else [str(row["reason"])]
            told.append(f"{kind} ({', '.join(notes)})" if notes else kind)
        return told

    async def _draw(self, label: str, progress: Progress, cache: Cache | None) -> None:
        while True:
            done = progress.done
            self.teller.screen.running(label, progress, None if cache is None else _hit_ratio(cache))
            if done == progress.total:
                return
            await asyncio.sleep(REDRAW_SECONDS)


def run(
    *,
    seconds: float | None = None,
    speed: float | None = None,
    servers: Sequence[str] = (),
    as_json: bool = False,
    language: str = "en",
    page: Page | None = None,
) -> int:
    """Run the demo; the exit code.

    ``seconds`` is for all of it; without, it serves until it is stopped. ``speed`` divides the backend's waits; not
    given it is 1, and more only where ``seconds`` leaves no time for real waits. ``servers`` are the kinds of tiers
    (``redis``, ``database``) that stand behind memory instead of the disk; `CacheError` where one cannot be had. With
    ``as_json`` the figures are the only thing printed, and it ends when they are there. ``page`` says where the
    dashboard is served; by default on a free port of this machine.
    """
    began = perf_counter()
    teller = Teller(words(language), screen(words(language), silent=as_json))
    _plan(seconds, speed)  # refuses what cannot be before anything is started
    with _places(servers) as places:
        left = None if seconds is None else seconds - (perf_counter() - began) - _freezing(places)
        pace, run_seconds = _plan(left if left is None else max(left, MIN_SECONDS), speed)
        demo = Demo(teller, pace, run_seconds, places, page)
        ends = None if seconds is None else began + seconds
        try:
            document = asyncio.run(_main(demo, ends, serve=not as_json))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return INTERRUPTED
    if as_json:
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        teller.screen.say(teller.words.stopped_servers if places.own else teller.words.stopped)
    return 0


@contextmanager
def _places(servers: Sequence[str]) -> Iterator[Places]:
    """The tiers below memory, for as long as the demo runs."""
    if servers:
        with on_servers(list(servers)) as places:
            yield places
        return
    with tempfile.TemporaryDirectory(prefix="genesis-cache-demo-") as folder:
        yield in_folder(Path(folder).resolve())


def _freezing(places: Places) -> float:
    """Seconds that the part with the frozen server takes."""
    return 2 * FROZEN_SECONDS if "redis" in places.own else 0.0


async def _main(demo: Demo, ends: float | None, *, serve: bool) -> dict[str, Any]:
    task = asyncio.current_task()
    if task is not None:
        _on_signals(task.cancel, signal.SIGTERM)
    async with demo.page:
        try:
            await demo.cache.open()
            demo.page.show(demo.cache)
            document = await demo.tell()
            if serve:
                await demo.serve(None if ends is None else ends - perf_counter())
        finally:
            await demo.leave()
    return document


def _plan(seconds: float | None, speed: float | None) -> tuple[float, float]:
    """How much faster than real the backend is, and for how many seconds each of the two runs sends requests."""
    if seconds is not None and seconds < MIN_SECONDS:
        raise SettingsError(f"seconds={seconds:g} is too short to measure anything: give {MIN_SECONDS:g} or more")
    if speed is not None and not 0 < speed <= MAX_SPEED:
        raise SettingsError(f"speed={speed:g} is not possible: give a number above 0 and up to {MAX_SPEED:g}")
    if seconds is None:
        return speed or 1.0, RUN_SECONDS
    usable = seconds - 1.0  # opening, reading the traffic, closing
    pace = speed or max(1.0, (REAL_WAITS_SECONDS / usable) ** 2)
    answers = 4 * (ANSWER_SECONDS + ROW_SECONDS) / pace  # a run ends with one, the price change waits for two
    return pace, max(0.5, min(RUN_SECONDS, (usable - answers) / 2))


def _on_signals(react: Callable[[], object], *numbers: signal.Signals) -> None:
    if sys.platform != "win32":  # which ends a process without asking
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, react)


def _layers(cache: Cache) -> dict[str, Any]:
    rows: dict[str, Any] = cache.analytics()["layer_statistics"]
    return rows


def _hit_ratio(cache: Cache) -> float:
    """As the cache itself counts it: a request that waits for a load of another one is no hit."""
    return float(cache.analytics()["global_statistics"]["global_hit_ratio"])


async def _timed(visit: Service, number: int) -> tuple[object, float]:
    """The answer to a visit and the milliseconds it took."""
    began = perf_counter()
    answer = await visit(number)
    return answer, (perf_counter() - began) * 1000

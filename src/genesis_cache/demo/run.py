"""The demo: the same traffic without and with the cache, a price that changes, a restart, and a page to watch."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from genesis_cache.cache import Cache
from genesis_cache.demo import figures
from genesis_cache.demo.backend import ANSWER_SECONDS, ANSWER_USD, ROW_SECONDS, Backend
from genesis_cache.demo.load import Progress, play, stroll
from genesis_cache.demo.page import Page
from genesis_cache.demo.screen import screen
from genesis_cache.demo.service import Service, service
from genesis_cache.demo.telling import COMPARED, Teller
from genesis_cache.demo.traffic import QUESTION_EVERY, SOURCE, recorded
from genesis_cache.demo.words import words
from genesis_cache.model.errors import SettingsError

RUN_SECONDS = 10.0  # each of the two runs, where no limit is given
REAL_WAITS_SECONDS = 16.0  # with less time than this for everything, the backend is sped up
MAX_RATE = 9_000  # requests a second; above it a small machine measures itself
MIN_SECONDS = 3.0
MAX_SPEED = 1_000.0
STROLL_RATE = 40.0  # requests a second
REDRAW_SECONDS = 0.12
PRODUCT = 3 * QUESTION_EVERY - 1  # a product that visitors ask the assistant about
NEW_PRICE_CENTS = 1234
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class Demo:
    """One run of the demo, with what it needs at every step."""

    def __init__(self, teller: Teller, speed: float, run_seconds: float, folder: Path) -> None:
        self.teller = teller
        self.speed = speed
        self.run_seconds = run_seconds
        self.folder = folder
        self.traffic = recorded()[: int(MAX_RATE * run_seconds)]
        self.cache = _cache(folder)

    async def tell(self, url: str) -> dict[str, Any]:
        """The whole story; its figures as one JSON document."""
        requests, objects = len(self.traffic), len(set(self.traffic))
        rate = requests / self.run_seconds
        self.teller.introduce(requests=requests, objects=objects, rate=rate, speed=self.speed, url=url)
        before = await self.measure(self.teller.words.without, None)
        after = await self.measure(self.teller.words.with_cache, self.cache)
        self.teller.compare(before, after)
        update = await self.update()
        self.teller.update(update)
        restart = await self.restart()
        self.teller.restart(restart)
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
            "update": msgspec.to_builtins(update),
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

    async def restart(self) -> figures.Restart:
        """Close the cache, open a new one on the same folder, and ask for everything once."""
        await self.cache.close()
        self.cache = _cache(self.folder)
        await self.cache.open()
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

    async def serve(self, url: str, seconds: float | None) -> None:
        """Keep light traffic going until the time is over or the process is told to stop."""
        if seconds is None:
            self.teller.serving(f"{url}/monitoring/cache")
        elif seconds <= 0:
            return
        stop = asyncio.Event()
        _on_signals(stop.set, signal.SIGINT, signal.SIGTERM)
        strolling = asyncio.create_task(stroll(self.traffic, service(Backend(self.speed), self.cache), STROLL_RATE))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, strolling}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, strolling):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _draw(self, label: str, progress: Progress, cache: Cache | None) -> None:
        while True:
            done = progress.done
            self.teller.screen.running(label, progress, None if cache is None else _hit_ratio(cache))
            if done == progress.total:
                return
            await asyncio.sleep(REDRAW_SECONDS)


def run(
    *, seconds: float | None = None, speed: float | None = None, as_json: bool = False, language: str = "en"
) -> int:
    """Run the demo; the exit code.

    ``seconds`` is for all of it; without, it serves until it is stopped. ``speed`` divides the backend's waits; not
    given it is 1, and more only where ``seconds`` leaves no time for real waits. With ``as_json`` the figures are the
    only thing printed, and it ends when they are there.
    """
    began = perf_counter()
    pace, run_seconds = _plan(seconds, speed)
    teller = Teller(words(language), screen(words(language), silent=as_json))
    with tempfile.TemporaryDirectory(prefix="genesis-cache-demo-") as folder:
        demo = Demo(teller, pace, run_seconds, Path(folder).resolve())
        ends = None if seconds is None else began + seconds
        try:
            document = asyncio.run(_main(demo, ends, serve=not as_json))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return INTERRUPTED
    if as_json:
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        teller.screen.say(teller.words.stopped)
    return 0


async def _main(demo: Demo, ends: float | None, *, serve: bool) -> dict[str, Any]:
    task = asyncio.current_task()
    if task is not None:
        _on_signals(task.cancel, signal.SIGTERM)
    async with Page(lambda: demo.cache.analytics()) as page:  # noqa: PLW0108  # a restart puts another cache there
        try:
            await demo.cache.open()
            document = await demo.tell(page.url)
            if serve:
                await demo.serve(page.url, None if ends is None else ends - perf_counter())
        finally:
            await demo.cache.close()
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


def _cache(folder: Path) -> Cache:
    return Cache.from_url("memory://?max_mb=50", f"disk://{folder / 'cache'}?max_mb=200")


def _hit_ratio(cache: Cache) -> float:
    """As the cache itself counts it: a request that waits for a load of another one is no hit."""
    return float(cache.analytics()["global_statistics"]["global_hit_ratio"])


async def _timed(visit: Service, number: int) -> tuple[object, float]:
    """The answer to a visit and the milliseconds it took."""
    began = perf_counter()
    answer = await visit(number)
    return answer, (perf_counter() - began) * 1000

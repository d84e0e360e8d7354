"""The demo's story: the same traffic without and with the cache, a price that changes, a restart, and a page to watch."""

import asyncio
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
from genesis_cache.demo.screen import Row, Screen, screen
from genesis_cache.demo.service import Service, service
from genesis_cache.demo.traffic import QUESTION_EVERY, SOURCE, recorded
from genesis_cache.demo.words import Words, words
from genesis_cache.model.errors import SettingsError

RUN_SECONDS = 10.0  # each of the two runs, where no limit is given
MAX_RATE = 9_000  # requests a second; above it a small machine measures itself
MIN_SECONDS = 3.0
STROLL_RATE = 40.0
REDRAW_SECONDS = 0.12
TENTHS = 10
PRODUCT = 3 * QUESTION_EVERY - 1  # a product that visitors ask the assistant about
NEW_PRICE_CENTS = 1234


class Demo:
    """One run of the demo, with what it needs at every step."""

    def __init__(self, language: Words, shown: Screen, speed: float, run_seconds: float, folder: str) -> None:
        self.words = language
        self.screen = shown
        self.speed = speed
        self.run_seconds = run_seconds
        traffic = recorded()
        self.traffic = traffic[: min(len(traffic), int(MAX_RATE * run_seconds))]
        self.cache = _cache(folder)
        self.folder = folder
        self.tenths: list[float] = []

    def introduce(self, url: str) -> None:
        """Say what is about to be measured."""
        say, language, number = self.screen.say, self.words, self.words.number
        waits = language.waits_real if self.speed == 1 else language.waits_scaled.format(speed=number(self.speed, 1))
        self.screen.heading(language.title)
        say(language.traffic.format(requests=number(len(self.traffic)), objects=number(len(set(self.traffic)))))
        say(f"         {SOURCE}", "dim")
        costs = {"row": language.ms(ROW_SECONDS * 1000), "answer": language.ms(ANSWER_SECONDS * 1000)}
        say(language.backend.format(usd=number(ANSWER_USD, 3), **costs))
        say(language.pace.format(rate=number(len(self.traffic) / self.run_seconds), waits=waits))
        say(language.page.format(url=url), "bold")
        say("")

    async def measure(self, label: str, cache: Cache | None) -> figures.Figures:
        """Play the traffic once, showing how it goes."""
        backend, progress = Backend(self.speed), Progress(len(self.traffic))
        drawing = asyncio.create_task(self._draw(label, progress, cache))
        await play(self.traffic, service(backend, cache), self.run_seconds, progress)
        await drawing
        return figures.figures(self.traffic, progress, backend, None if cache is None else _hit_ratio(cache))

    async def _draw(self, label: str, progress: Progress, cache: Cache | None) -> None:
        asked = hits = 0
        while True:
            done = progress.done
            self.screen.running(label, progress, None if cache is None else _hit_ratio(cache))
            if cache is not None and done >= (len(self.tenths) + 1) * progress.total // TENTHS:
                whole = cache.analytics()["global_statistics"]
                self.tenths.append((whole["hits"] - hits) / max(1, whole["requests"] - asked))
                asked, hits = whole["requests"], whole["hits"]
            if done == progress.total:
                return
            await asyncio.sleep(REDRAW_SECONDS)

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
        seconds = sorted([(await _timed(visit, number))[1] / 1000 for number in numbers])
        return figures.Restart(
            asked=len(numbers),
            backend_calls=backend.queries + backend.answers,
            latency_p50_ms=figures.quantile_ms(seconds, 0.50),
            latency_p99_ms=figures.quantile_ms(seconds, 0.99),
        )

    async def tell(self, url: str) -> dict[str, Any]:
        """The whole story; the figures as one JSON document."""
        self.introduce(url)
        before = await self.measure(self.words.without, None)
        after = await self.measure(self.words.with_cache, self.cache)
        self._compare(before, after)
        update = await self.update()
        self._tell_update(update)
        restart = await self.restart()
        self._tell_restart(restart)
        return {
            "traffic": SOURCE,
            "speed": self.speed,
            "requests": len(self.traffic),
            "usd_per_answer": ANSWER_USD,
            "before": msgspec.to_builtins(before),
            "after": msgspec.to_builtins(after),
            "change": _changes(before, after),
            "hit_ratio": after.hit_ratio,
            "hit_ratio_by_tenth": self.tenths,
            "update": msgspec.to_builtins(update),
            "restart": msgspec.to_builtins(restart),
            "url": url,
        }

    def _compare(self, before: figures.Figures, after: figures.Figures) -> None:
        language = self.words
        tenths = " ".join(language.number(share * 100) for share in self.tenths)
        self.screen.say(language.warm_up.format(tenths=tenths), "dim")
        self.screen.say("")
        self.screen.table(("", language.before, language.after, language.change), _rows(language, before, after))
        reached = (
            (language.goal_latency, figures.change(before.latency_mean_ms, after.latency_mean_ms) <= -0.80),
            (language.goal_hits, (after.hit_ratio or 0) >= 0.85),
            (language.goal_database, figures.change(before.database_queries, after.database_queries) <= -0.70),
            (language.goal_cost, figures.change(before.model_usd, after.model_usd) <= -0.60),
        )
        marks = "   ".join(f"{'✓' if held else '✗'} {name}" for name, held in reached)
        self.screen.say(f"{language.goals}: {marks}", "green" if all(held for _, held in reached) else "yellow")

    def _tell_update(self, update: figures.Update) -> None:
        say, language = self.screen.say, self.words
        self.screen.heading(language.update_title)
        say(language.update_old.format(took=language.ms(update.old_ms), answer=_short(update.old_answer)))
        say(language.update_done.format(number=update.number), "bold")
        say(language.update_new.format(took=language.ms(update.new_ms), answer=_short(update.new_answer)))
        say(language.update_again.format(took=language.ms(update.again_ms)))

    def _tell_restart(self, restart: figures.Restart) -> None:
        language = self.words
        self.screen.heading(language.restart_title)
        told = {"asked": language.number(restart.asked), "calls": language.number(restart.backend_calls)}
        times = {"p50": language.ms(restart.latency_p50_ms), "p99": language.ms(restart.latency_p99_ms)}
        self.screen.say(language.restart.format(**told, **times))


def run(*, seconds: float | None = None, speed: float | None = None, as_json: bool = False, language: str = "en") -> int:
    """Run the demo; the exit code. ``seconds`` is for all of it; without, it serves until it is stopped.

    ``speed`` divides the backend's waits; not given it is 1, more only where ``seconds`` leaves no time for real waits.
    """
    if seconds is not None and seconds < MIN_SECONDS:
        raise SettingsError(f"seconds={seconds:g} is too short to measure anything: give {MIN_SECONDS:g} or more")
    if speed is not None and not 0 < speed <= 1000:
        raise SettingsError(f"speed={speed:g} is not possible: give a number above 0 and up to 1000")
    began = perf_counter()
    pace, run_seconds = _plan(seconds, speed)
    spoken = words(language)
    shown = screen(spoken, silent=as_json)
    with tempfile.TemporaryDirectory(prefix="genesis-cache-demo-") as folder:
        try:
            document = asyncio.run(_main(Demo(spoken, shown, pace, run_seconds, folder), seconds, began, serve=not as_json))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
    if as_json:
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        shown.say(spoken.stopped)
    return 0


def _plan(seconds: float | None, speed: float | None) -> tuple[float, float]:
    """How much faster than real the backend is, and how long each of the two runs sends requests."""
    if seconds is None:
        return speed or 1.0, RUN_SECONDS
    usable = seconds - 1.0  # opening, reading the traffic, closing
    pace = speed or max(1.0, 15.0 / usable)
    answers = 5 * (ANSWER_SECONDS + ROW_SECONDS) / pace  # each run ends with one, the price change needs two or three
    return pace, max(0.5, min(RUN_SECONDS, (usable - answers) / 2))


async def _main(demo: Demo, seconds: float | None, began: float, *, serve: bool) -> dict[str, Any]:
    stop = asyncio.Event()
    async with Page(lambda: demo.cache.analytics()) as page:
        try:
            await demo.cache.open()
            document = await demo.tell(page.url)
            if serve:
                _on_signals(stop.set)
                await _serve(demo, page.url, None if seconds is None else began + seconds - perf_counter(), stop)
        finally:
            await demo.cache.close()
    return document


async def _serve(demo: Demo, url: str, left: float | None, stop: asyncio.Event) -> None:
    if left is None:
        demo.screen.say("")
        demo.screen.say(demo.words.serving.format(url=f"{url}/monitoring/cache"), "bold")
    elif left <= 0:
        return
    strolling = asyncio.create_task(stroll(demo.traffic, service(Backend(demo.speed), demo.cache), STROLL_RATE))
    try:
        async with asyncio.timeout(left):
            await stop.wait()
    except TimeoutError:
        pass  # the time given is over
    finally:
        strolling.cancel()
        await asyncio.gather(strolling, return_exceptions=True)


def _on_signals(stop: Callable[[], None]) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop)


def _cache(folder: str) -> Cache:
    return Cache.from_url("memory://?max_mb=50", f"disk://{Path(folder).resolve() / 'cache'}?max_mb=200")


def _hit_ratio(cache: Cache) -> float:
    return float(cache.analytics()["global_statistics"]["global_hit_ratio"])


async def _timed(visit: Service, number: int) -> tuple[object, float]:
    began = perf_counter()
    answer = await visit(number)
    return answer, (perf_counter() - began) * 1000


def _short(answer: str) -> str:
    return answer.split(";")[0]


def _rows(language: Words, before: figures.Figures, after: figures.Figures) -> list[Row]:
    rows: list[Row] = []
    for name, label in _COMPARED.items():
        old, new = getattr(before, name), getattr(after, name)
        told = language.ms if name.endswith("_ms") else lambda value: language.number(value, 2 if value < 100 else 0)
        rows.append((getattr(language, label), told(old), told(new), language.percent(figures.change(old, new))))
    rows.append((language.hit_ratio, "-", language.percent(after.hit_ratio or 0), ""))
    return rows


def _changes(before: figures.Figures, after: figures.Figures) -> dict[str, float]:
    return {name: figures.change(getattr(before, name), getattr(after, name)) for name in _COMPARED}


_COMPARED = {
    "latency_mean_ms": "latency_mean",
    "latency_p50_ms": "latency_p50",
    "latency_p99_ms": "latency_p99",
    "answer_mean_ms": "answer_mean",
    "row_mean_ms": "row_mean",
    "database_queries_per_minute": "queries",
    "model_calls_per_minute": "calls",
    "model_usd_per_hour": "usd",
}

"""History: what a cache did in each second of the last quarter of an hour, for a page that is opened late.

Figures are plain counters that only grow; a point is the difference of two readings, by the second. Reading them costs
about a ten-thousandth of a core.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from genesis_cache.cache import Cache
from genesis_cache.model.measures import Histogram, LayerMeasures

EVERY_S = 1.0
KEPT = 900  # points
LATENCY_POINTS = 10  # over so many a quantile is taken: one second has too few reads that were timed
DIGITS = 4  # of a figure, that matter

Point = dict[str, float | None]
Columns = dict[str, list[float | None]]


class History:
    """The last points, each with a number that grows by one."""

    def __init__(
        self, cache: Cache, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._cache = cache
        self._monotonic = monotonic
        self._wall = wall
        self._points: deque[Point] = deque(maxlen=KEPT)
        self._counted: dict[str, float] = {}
        self._timed: deque[dict[str, Histogram]] = deque(maxlen=LATENCY_POINTS)
        self._taken_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.number = 0
        """Of the newest point; 0 where there is none."""

    def start(self) -> None:
        """Take a point every second on the running event loop."""
        self.stop()
        self.take()
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.start)

    def stop(self) -> None:
        """Take no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self) -> None:
        """Add a point, if a second has passed since the last."""
        now = self._monotonic()
        passed_s = None if self._taken_at is None else now - self._taken_at
        if passed_s is not None and passed_s < EVERY_S * 0.9:
            return
        self._taken_at = now
        figures, measures = self._cache.analytics()["global_statistics"], self._cache.measures()
        counted: dict[str, float] = {
            "requests": figures["requests"],
            "stale": figures["stale_served"],
            "waited": figures["coalesced"],
            "missed": figures["misses"],
            "loaded": measures.loads.get("ok", 0),
            "failed": sum(number for result, number in measures.loads.items() if result != "ok"),
        }
        for layer, row in measures.layers.items():
            counted |= _counts(layer, row)
        timed = {layer: row.latency for layer, row in measures.layers.items()} | {"load": measures.load_latency}
        if passed_s is not None:
            point: Point = {"t": round(self._wall(), 2)}
            point |= {name: _short((n - self._counted.get(name, 0)) / passed_s) for name, n in counted.items()}
            point |= {f"size.{layer}": float(row.size_bytes) for layer, row in measures.layers.items()}
            for name, histogram in timed.items():
                point |= _quantiles(name, histogram, self._timed[0].get(name))
            self._points.append(point)
            self.number += 1
        self._counted = counted
        self._timed.append(timed)

    def since(self, number: int) -> Columns:
        """The points after this number, a list for each figure: rates by the second, milliseconds, bytes."""
        count = min(max(self.number - number, 0), len(self._points))
        points = list(islice(self._points, len(self._points) - count, None))
        names = dict.fromkeys(name for point in points for name in point)
        return {name: [point.get(name) for point in points] for name in names}


def _counts(layer: str, row: LayerMeasures) -> dict[str, float]:
    return {
        f"hits.{layer}": row.hits,
        f"misses.{layer}": row.misses,
        f"evicted.{layer}": sum(n for reason, n in row.evictions.items() if reason != "explicit"),
    }


def _quantiles(name: str, now: Histogram, before: Histogram | None) -> Point:
    counts = now.counts if before is None else [n - then for n, then in zip(now.counts, before.counts, strict=True)]
    return {f"p50.{name}": quantile_ms(counts, 0.5), f"p99.{name}": quantile_ms(counts, 0.99)}


def quantile_ms(counts: Iterable[int], share: float) -> float | None:
    """Milliseconds below which that share of durations lies, evenly spread within a bucket; None where there is none.

    ``counts[n]`` took less than 2^n nanoseconds, not less than half.
    """
    numbers = list(counts)
    wanted, seen = share * sum(numbers), 0
    for bits, number in enumerate(numbers):
        if number and seen + number >= wanted:
            low, high = (0 if bits == 0 else 2 ** (bits - 1)), 2**bits
            return _short((low + (high - low) * (wanted - seen) / number) / 1e6)
        seen += number
    return None


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

"""What a run came to: the seed's before-and-after figures, computed from the timings and the backend's own counts."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from genesis_cache.demo.backend import Backend
from genesis_cache.demo.load import Progress
from genesis_cache.demo.traffic import is_question


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One run's figures; latencies in milliseconds, money in US dollars."""

    requests: int
    seconds: float
    latency_mean_ms: float
    latency_p50_ms: float
    latency_p99_ms: float
    answer_mean_ms: float
    row_mean_ms: float
    database_queries: int
    database_queries_per_minute: float
    model_calls: int
    model_calls_per_minute: float
    model_usd: float
    model_usd_per_hour: float
    at_once_by_tenth: list[float]
    """Share of requests in each tenth of the run that took less than half of a row's wait, so did not wait for one."""
    hit_ratio: float | None = None
    """As the cache counts it; None without the cache."""


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    """What visitors saw of a Redis server that hung in mid-traffic; milliseconds, and seconds of the freeze."""

    seconds: float
    requests: int
    before_p99_ms: float
    during_p99_ms: float
    back_ms: float | None
    """From the thaw until the tier was in use again; None where that was not waited for."""


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """What the reopened cache answered without the backend."""

    asked: int
    backend_calls: int
    latency_p50_ms: float
    latency_p99_ms: float


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What an invalidation did: the answer before, the first after it, and the one after that."""

    number: int
    old_answer: str
    new_answer: str
    old_ms: float
    new_ms: float
    again_ms: float
    fresh: bool
    """Whether the first answer after the invalidation had the new price."""


def figures(traffic: Sequence[int], progress: Progress, backend: Backend, hit_ratio: float | None) -> Figures:
    """The figures of a run that has ended."""
    ordered = sorted(progress.latencies)
    questions = [is_question(number) for number in traffic]
    minutes = progress.seconds / 60
    return Figures(
        requests=progress.done,
        seconds=progress.seconds,
        latency_mean_ms=_mean_ms(ordered),
        latency_p50_ms=quantile_ms(ordered, 0.50),
        latency_p99_ms=quantile_ms(ordered, 0.99),
        answer_mean_ms=_mean_ms(_where(progress.latencies, questions, wanted=True)),
        row_mean_ms=_mean_ms(_where(progress.latencies, questions, wanted=False)),
        database_queries=backend.queries,
        database_queries_per_minute=backend.queries / minutes,
        model_calls=backend.answers,
        model_calls_per_minute=backend.answers / minutes,
        model_usd=backend.usd,
        model_usd_per_hour=backend.usd / minutes * 60,
        at_once_by_tenth=_at_once(progress.latencies, backend.row_seconds / 2),
        hit_ratio=hit_ratio,
    )


def change(before: float, after: float) -> float:
    """The relative change: -0.9 where nine tenths are gone; 0.0 from nothing."""
    return after / before - 1 if before else 0.0


def quantile_ms(ordered_seconds: Sequence[float], share: float) -> float:
    """Milliseconds below which that share of ordered durations lies."""
    return ordered_seconds[min(len(ordered_seconds) - 1, int(share * len(ordered_seconds)))] * 1000


def _at_once(seconds: Sequence[float], limit: float) -> list[float]:
    edges = [len(seconds) * tenth // 10 for tenth in range(11)]
    parts = [seconds[start:end] for start, end in pairwise(edges)]
    return [sum(duration < limit for duration in part) / max(1, len(part)) for part in parts]


def _mean_ms(seconds: Sequence[float]) -> float:
    return sum(seconds) / len(seconds) * 1000 if seconds else 0.0


def _where(seconds: Iterable[float], flags: Iterable[bool], *, wanted: bool) -> list[float]:
    return [duration for duration, flag in zip(seconds, flags, strict=True) if flag is wanted]

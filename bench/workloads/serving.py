"""A service over HTTP: what a near hit costs beside a constant, and a thousand connections that stay open and busy."""

# ruff: noqa: S603  # it starts this interpreter on this benchmark

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.report import Section, Table, Verdict

ROOT = Path(__file__).parents[2]
ROUTES = {
    "a handler that returns a constant": "/constant",
    "**genesis_cache** a handler that is a near hit": "/hit",
    "**genesis_cache** @endpoint, the whole response": "/endpoint",
}
ROUNDS = 9
ROUND_S = 2.0
CONNECTIONS = 32
HELD = 1_000
HELD_S = 15.0
BUSY = 0.4  # of the rate of near hits
LEAST = 0.9  # of the constant's rate
MOST_MS = 100.0


def section(*, quick: bool) -> Section:
    """Requests a second, and then a thousand connections."""
    rounds, round_s, held, held_s = (1, 0.5, 100, 1.0) if quick else (ROUNDS, ROUND_S, HELD, HELD_S)
    with _service() as port:
        rates: dict[str, list[float]] = {name: [] for name in ROUTES}
        for n in range(-1, rounds):  # the first is a warm-up
            for name, path in list(ROUTES.items())[:: 1 if n % 2 else -1]:
                found = _ask(port, path, CONNECTIONS, round_s)
                if n >= 0:
                    rates[name].append(found["rate"])
        constant, hit, _ = (median(seen) for seen in rates.values())
        ratio = median(ours / theirs for ours, theirs in zip(*list(rates.values())[1::-1], strict=True))
        many = _ask(port, "/hit", held, held_s, rate=BUSY * hit)
    rows = [[name, f"{median(seen):,.0f}", f"{median(seen) / constant:.3f}"] for name, seen in rates.items()]
    busy = [f"{held:,}", f"{many['rate']:,.0f}", f"{many['errors']:,.0f}", *(f"{many[p]:.1f}" for p in _P)]
    return Section(
        "HTTP",
        f"FastAPI on uvicorn in one process, the client in another: {CONNECTIONS} connections that ask again as soon "
        "as they are answered, the routes in turns. Then connections that are held open while all of them together "
        f"ask for near hits at {BUSY:.0%} of that rate; an answer's time counts from when its request was due.",
        [
            Table("Requests a second", ["route", "a second", "x constant"], rows),
            Table("Held open and busy", ["connections", "requests a second", "errors", "p50 ms", "p99 ms"], [busy]),
        ],
        [
            Verdict("HTTP near hit", "90% of a constant's rate", f"{ratio:.1%}", ratio >= LEAST),
            Verdict(
                f"{held:,} connections busy at {BUSY:.0%}",
                "no error, p99 under 100 ms",
                f"{many['errors']:.0f} errors, p99 {many['p99_ms']:.1f} ms",
                not many["errors"] and many["p99_ms"] < MOST_MS,
            ),
        ],
    )


_P = ("p50_ms", "p99_ms")


@contextmanager
def _service() -> Iterator[int]:
    """The port of a service that runs meanwhile."""
    command = [sys.executable, "-m", "bench.workloads.service"]
    service = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        told = service.stdout.readline() if service.stdout is not None else ""
        yield int(told)
    finally:
        service.terminate()
        service.communicate(timeout=30)


def _ask(port: int, path: str, connections: int, seconds: float, rate: float = 0.0) -> dict[str, float]:
    asked = {"port": port, "path": path, "connections": connections, "seconds": seconds, "rate": rate}
    options = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "bench.workloads.client", *options]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout)
    return found

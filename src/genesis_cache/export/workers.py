"""Workers: the figures of several processes of one service added up, by a file of counters that each of them keeps.

Whichever process is scraped reads the files of all. What a process that has ended counted is kept, so that sums never
go down while the service runs; what an earlier run of the service left is wiped by the first process to start.
"""

import asyncio
import contextlib
import fcntl
import os
import time
import weakref
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec

from genesis_cache.cache import Cache
from genesis_cache.model.measures import Histogram, Measures, summed

WRITE_EVERY_S = 2.0
LOCK_PATIENCE_S = 5.0
RETIRED = "retired.json"

_numbers = count()  # of the caches of one process
_all_workers: "weakref.WeakSet[Workers]" = weakref.WeakSet()


class Workers:
    """This process among those that share a folder, which must be of this service alone.

    Safe across ``fork``: a child counts from 0, under its own name.
    """

    def __init__(self, cache: Cache, folder: str | Path) -> None:
        self._cache = cache
        self._folder = Path(folder)
        self._baseline: Measures | None = None
        self._name = ""
        self._timer: asyncio.TimerHandle | None = None
        _all_workers.add(self)

    def start(self) -> None:
        """Write this process' file now, and every two seconds on the running event loop. OSError: no usable folder."""
        self.stop()
        self.write()
        self._wake()

    def _wake(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self._again)

    def _again(self) -> None:
        with contextlib.suppress(OSError):  # a full disk stops no service; the next scrape will say it
            self.write()
        self._wake()

    def stop(self) -> None:
        """Write no more; what was written stays until another process takes it in."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def write(self) -> None:
        """Bring this process' file up to date."""
        if not self._name:
            self._name = f"{os.getpid()}-{_started(os.getpid())}-{next(_numbers)}.json"
            with self._locked():
                if not any(_is_alive(path) for path in self._others()):
                    self._wipe()
        _replace(self._folder / self._name, self._own())

    def total(self) -> Measures:
        """This process and all others, those that have ended too. May wait for the folder's lock; OSError after 5 s."""
        self.write()
        found = [self._own()]
        with self._locked():
            retired = _read(self._folder / RETIRED)
            for path in self._others():
                measures = _read(path)
                if measures is None or _is_alive(path):
                    found += [] if measures is None else [measures]
                    continue
                _ended(measures)
                retired = measures if retired is None else summed((retired, measures))
                _replace(self._folder / RETIRED, retired)
                path.unlink()
        return summed(found if retired is None else [*found, retired])

    def _own(self) -> Measures:
        measures = self._cache.measures()
        if self._baseline is not None:
            _subtract(measures, self._baseline)
        return measures

    def _others(self) -> list[Path]:
        return [path for path in self._folder.glob("*-*.json") if path.name != self._name]

    def _wipe(self) -> None:
        for path in self._folder.glob("*.json"):
            path.unlink()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _after_fork(self) -> None:
        self._baseline = self._cache.measures()
        self._name = ""
        self._timer = None


def _lock(descriptor: int) -> None:
    """Take a lock; one that another process holds for long, because it was stopped, is not waited for without end."""
    end = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                msg = f"another worker has held the lock of the metrics' folder for {LOCK_PATIENCE_S:g} s: it may hang"
                raise TimeoutError(msg) from None
            time.sleep(0.005)
        else:
            return


def _replace(path: Path, measures: Measures) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(measures))
    new.replace(path)


def _read(path: Path) -> Measures | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Measures)
    except (OSError, msgspec.DecodeError):
        return None


def _is_alive(path: Path) -> bool:
    """Whether the process that wrote a file is still that process, and not another that was given its number."""
    pid, _, rest = path.stem.partition("-")
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return _started(int(pid)) == rest.partition("-")[0]


def _started(pid: int) -> str:
    """When a process began, in the system's own ticks; "0" where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _ended(measures: Measures) -> None:
    """What is left of a process that is no more: its counts, not what it held."""
    measures.invalidation_lag_s = 0.0
    for layer in measures.layers.values():
        layer.up, layer.circuit = True, "closed"
        layer.entries = layer.size_bytes = 0
        layer.capacity_bytes = None if layer.capacity_bytes is None else 0


def _subtract(measures: Measures, base: Measures) -> None:
    """Take off what the parent had counted when this process was made by fork."""
    for label, layer in measures.layers.items():
        before = base.layers.get(label)
        if before is None:
            continue
        layer.hits -= before.hits
        layer.misses -= before.misses
        _less(layer.latency, before.latency)
        if layer.tier == "memory":
            layer.evictions = {why: n - before.evictions.get(why, 0) for why, n in layer.evictions.items()}
    measures.loads = {result: n - base.loads.get(result, 0) for result, n in measures.loads.items()}
    measures.invalidations = {
        scope: n - base.invalidations.get(scope, 0) for scope, n in measures.invalidations.items()
    }
    for mine, before_fork in (
        (measures.canaries, base.canaries), (measures.behind, base.behind), (measures.inconsistent, base.inconsistent),
    ):  # fmt: skip
        for name in mine:
            mine[name] -= before_fork.get(name, 0)
    _less(measures.load_latency, base.load_latency)
    _less(measures.propagation, base.propagation)
    measures.coalesced -= base.coalesced
    measures.stale_served -= base.stale_served


def _less(histogram: Histogram, before: Histogram) -> None:
    histogram.counts = [now - then for now, then in zip(histogram.counts, before.counts, strict=True)]
    histogram.total_s -= before.total_s


def _after_fork_in_child() -> None:
    for workers in list(_all_workers):
        workers._after_fork()  # noqa: SLF001  # a part of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

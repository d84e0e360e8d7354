"""Spike: which disk engine. Measures LMDB, SQLite, diskcache and the segment store side by side; about a minute.

Run ``PYTHONPATH=src python bench/spike_disk.py``. Needs ``lmdb`` and ``diskcache``. It prints four tables: time per
operation (interleaved rounds, medians), what a reading child does after damage done while closed, what is left after
``kill -9`` of writers, and what happens at the size limit.
"""

# ruff: noqa: D102  # the verbs of every engine are those of `Engine`

import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import diskcache
import lmdb

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.tiers.base import Put, Remove
from genesis_cache.tiers.segments.store import SegmentStore

MIB = 2**20
SCOPE = scope_of("spike")
FORK = multiprocessing.get_context("fork")
FOREVER = float("inf")


class Engine(Protocol):
    """The few verbs that the spike compares."""

    def get(self, key: str) -> object: ...
    def put(self, items: list[tuple[str, bytes]]) -> None: ...
    def delete(self, key: str) -> None: ...
    def close(self) -> None: ...


class Lmdb:
    """LMDB without sync, as it comes."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.env = lmdb.open(str(path), map_size=max_bytes, sync=False, metasync=False, max_readers=64)

    def get(self, key: str) -> object:
        with self.env.begin(buffers=False) as txn:
            return txn.get(address_of(SCOPE, key).digest)

    def put(self, items: list[tuple[str, bytes]]) -> None:
        with self.env.begin(write=True) as txn:
            for key, value in items:
                txn.put(address_of(SCOPE, key).digest, value)

    def delete(self, key: str) -> None:
        with self.env.begin(write=True) as txn:
            txn.delete(address_of(SCOPE, key).digest)

    def close(self) -> None:
        self.env.close()


class GuardedLmdb(Lmdb):
    """LMDB behind a child that walks the whole tree before each open; if it dies, the store is thrown away."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        walker = FORK.Process(target=walk, args=(path, max_bytes))
        walker.start()
        walker.join()
        if walker.exitcode != 0:
            shutil.rmtree(path, ignore_errors=True)
        super().__init__(path, max_bytes)


def walk(path: Path, max_bytes: int) -> None:
    """In a child: read every page of the tree, values included."""
    os.close(2)
    engine = Lmdb(path, max_bytes)
    with engine.env.begin() as txn, txn.cursor() as cursor:
        for _key, value in cursor:
            zlib.crc32(value)


class Sqlite:
    """SQLite in WAL mode, digest as the key of a table without rowid."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        path.mkdir(exist_ok=True)
        self.db = sqlite3.connect(path / "db", isolation_level=None, timeout=5)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=OFF")
        self.db.execute(f"PRAGMA mmap_size={max_bytes}")
        self.db.execute("CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")

    def get(self, key: str) -> object:
        row = self.db.execute("SELECT v FROM t WHERE k = ?", (address_of(SCOPE, key).digest,)).fetchone()
        return row[0] if row else None

    def put(self, items: list[tuple[str, bytes]]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        rows = [(address_of(SCOPE, key).digest, value) for key, value in items]
        self.db.executemany("INSERT OR REPLACE INTO t VALUES (?, ?)", rows)
        self.db.execute("COMMIT")

    def delete(self, key: str) -> None:
        self.db.execute("DELETE FROM t WHERE k = ?", (address_of(SCOPE, key).digest,))

    def close(self) -> None:
        self.db.close()


class Diskcache:
    """The reference, as it comes."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.cache = diskcache.Cache(str(path), size_limit=max_bytes)

    def get(self, key: str) -> object:
        return self.cache.get(key)

    def put(self, items: list[tuple[str, bytes]]) -> None:
        for key, value in items:
            self.cache.set(key, value)

    def delete(self, key: str) -> None:
        self.cache.delete(key)

    def close(self) -> None:
        self.cache.close()


class Segments:
    """The segmented log with a shared index."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.store = SegmentStore(path, max_bytes, SystemClock())
        self.store.open()

    def get(self, key: str) -> object:
        return self.store.get(address_of(SCOPE, key))

    def put(self, items: list[tuple[str, bytes]]) -> None:
        self.store.commit([Put(address_of(SCOPE, key), value, FOREVER) for key, value in items])

    def delete(self, key: str) -> None:
        self.store.commit([Remove(address_of(SCOPE, key))])

    def close(self) -> None:
        self.store.close()


ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "diskcache": Diskcache,
    "sqlite WAL": Sqlite,
    "lmdb nosync": Lmdb,
    "walked lmdb": GuardedLmdb,
    "segments": Segments,
}


def value_of(key: str, size: int) -> bytes:
    """Incompressible bytes that name their key."""
    name = key.encode()
    body = len(name).to_bytes(2, "little") + name + random.Random(key).randbytes(size - 6 - len(name))
    return body + zlib.crc32(body).to_bytes(4, "little")


def is_of(key: str, value: bytes) -> bool:
    """Whether a value is the one made for this key, in full."""
    return value == value_of(key, len(value)) and len(value) in {1024, 5000}


# --- time ---------------------------------------------------------------------------------------------------------


def timed(work: Callable[[], object], times: int) -> float:
    """Microseconds per operation of one round that does ``times`` of them."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / times * 1e6


def times(root: Path) -> None:
    """Interleaved rounds over all engines, medians, microseconds."""
    small = [f"small:{number}" for number in range(2000)]
    large = [f"large:{number}" for number in range(30)]
    payload = {key: value_of(key, 1024) for key in small} | {key: value_of(key, 100 * 1024) for key in large}
    engines = {name: make(root / name, 500 * MIB) for name, make in ENGINES.items()}
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in engines}
    for engine in engines.values():
        engine.put([(key, payload[key]) for key in small + large])
    for turn in range(5):
        for name, engine in engines.items():
            batches = [[(f"{turn}:{key}", payload[key]) for key in small[at : at + 64]] for at in range(0, 640, 64)]
            rounds: dict[str, tuple[Callable[[], object], int]] = {
                "get 1 KB": (lambda engine=engine: [engine.get(key) for key in small], len(small)),
                "get 100 KB": (lambda engine=engine: [engine.get(key) for key in large], len(large)),
                "set 1 KB x64": (lambda engine=engine, batches=batches: [engine.put(b) for b in batches], 640),
            }
            for label, (work, count) in rounds.items():
                figures[name].setdefault(label, []).append(timed(work, count))
    base = {label: statistics.median(row) for label, row in figures["diskcache"].items()}
    for name, rows in figures.items():
        medians = {label: statistics.median(row) for label, row in rows.items()}
        cells = [f"{label} {median:8.2f} ({base[label] / median:5.1f}x)" for label, median in medians.items()]
        print(f"  {name:12}", " | ".join(cells))
    for engine in engines.values():
        engine.close()


def checked(value: object) -> bytes | None:
    """What a checksum of our own would leave: only whole values. Engines that have one don't need it."""
    if not isinstance(value, bytes | memoryview) or zlib.crc32(value[:-4]).to_bytes(4, "little") != value[-4:]:
        return None
    return bytes(value)


# --- damage while closed ------------------------------------------------------------------------------------------


def damage(folder: Path, seed: int) -> None:
    """Flip 40 bytes, or zero a page, or cut the tail of one file."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0)
    path = rng.choice([path for path in files if path.name not in {"lock.mdb", ".gitignore"}])
    size = path.stat().st_size
    with path.open("r+b") as file:
        kind = rng.choice(["flip", "flip", "zero", "cut"])
        if kind == "cut":
            file.truncate(rng.randrange(size))
        elif kind == "zero":
            file.seek(rng.randrange(size) // 4096 * 4096)
            file.write(bytes(min(4096, size - file.tell())))
        else:
            for _ in range(40):
                file.seek(rng.randrange(size))
                byte = file.read(1)[0] ^ rng.randrange(1, 256)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte]))


def read_all(name: str, folder: Path, count: int) -> None:
    """In a child: read every key, say the worst that was met, by exit code."""
    os.close(2)
    signal.alarm(20)
    worst = 0
    try:
        engine = ENGINES[name](folder, 8 * MIB)
        for number in range(count):
            value = engine.get(f"k{number}")
            value = checked(value)
            if value is not None and not is_of(f"k{number}", bytes(value)):  # type: ignore[call-overload]  # bytes-like
                worst = 2
        for number in range(200):
            engine.put([(f"after{number}", value_of(f"after{number}", 1024))])
    except BaseException:  # noqa: BLE001  # any exception is the finding
        worst = worst or 1
    os._exit(worst)


def damages(root: Path, rounds: int = 60) -> None:
    """How a child ends that opens, reads and writes a damaged store; values pass a checksum of our own."""
    words = {0: "fine", 1: "raised", 2: "WRONG VALUE"}
    for name, make in ENGINES.items():
        pristine = root / f"pristine {name}"
        engine = make(pristine, 8 * MIB)
        engine.put([(f"k{number}", value_of(f"k{number}", 1024 if number % 10 else 5000)) for number in range(1000)])
        engine.close()
        ends: Counter[str] = Counter()
        for seed in range(rounds):
            folder = root / "damaged"
            shutil.copytree(pristine, folder)
            damage(folder, seed)
            child = FORK.Process(target=read_all, args=(name, folder, 1000))
            child.start()
            child.join()
            code = child.exitcode or 0
            ends[words[code] if code >= 0 else f"DIED {signal.Signals(-code).name}"] += 1
            shutil.rmtree(folder)
        print(f"  {name:12}", dict(ends))


# --- kill -9 ------------------------------------------------------------------------------------------------------


def write_on(name: str, folder: Path, seed: int) -> None:
    """In a child: write until killed."""
    engine = ENGINES[name](folder, 8 * MIB)
    rng = random.Random(seed)
    while True:
        keys = [f"k{rng.randrange(1000)}" for _ in range(8)]
        engine.put([(key, value_of(key, 1024 if rng.random() < 0.8 else 5000)) for key in keys])


def kills(root: Path, rounds: int = 15) -> None:
    """Two writers, killed at a random moment; then every value is read."""
    for name, make in ENGINES.items():
        folder = root / f"kills-{name}"
        make(folder, 8 * MIB).close()
        wrong = failed = 0
        for seed in range(rounds):
            writers = [FORK.Process(target=write_on, args=(name, folder, seed * 2 + n)) for n in range(2)]
            for writer in writers:
                writer.start()
            time.sleep(0.03 + random.Random(seed).random() * 0.05)
            for writer in writers:
                writer.kill()
                writer.join()
            try:
                engine = make(folder, 8 * MIB)
                for number in range(1000):
                    value = engine.get(f"k{number}")
                    wrong += value is not None and not is_of(f"k{number}", bytes(value))  # type: ignore[call-overload]
                engine.close()
            except Exception:  # noqa: BLE001  # any exception is the finding
                failed += 1
        print(f"  {name:12} {rounds * 2} kills: {wrong} wrong values, {failed} failed opens")


# --- the size limit -----------------------------------------------------------------------------------------------


def folder_bytes(folder: Path) -> int:
    """Bytes of all files as the directory shows them."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fill(engine: Engine, start: int, count: int) -> Iterator[str]:
    """Write batches of 50; names the exception of each batch that failed."""
    for at in range(start, start + count, 50):
        try:
            engine.put([(f"f{number}", value_of(f"f{number}", 1024)) for number in range(at, at + 50)])
        except Exception as error:  # noqa: BLE001  # any exception is the finding
            yield type(error).__name__


def limits(root: Path) -> None:
    """Write three times the limit, delete half, write again: failures and bytes."""
    for name, make in ENGINES.items():
        folder = root / f"limit-{name}"
        engine = make(folder, 8 * MIB)
        full = Counter(fill(engine, 0, 24_000))
        peak = folder_bytes(folder)
        deletes: Counter[str] = Counter()
        for number in range(0, 24_000, 2):
            try:
                engine.delete(f"f{number}")
            except Exception as error:  # noqa: BLE001  # any exception is the finding
                deletes[type(error).__name__] += 1
                if sum(deletes.values()) > 20:
                    break
        again = Counter(fill(engine, 30_000, 2_000))
        end = folder_bytes(folder) / MIB
        print(f"  {name:12} {peak / MIB:5.1f} of 8 MiB; failed: {sum(full.values())} of 480 batches {set(full)}, then")
        print(
            f"  {'':12} {sum(deletes.values())} deletes, {sum(again.values())} of 40 more batches; {end:.1f} MiB left"
        )
        engine.close()


def main() -> None:
    """All four tables."""
    for title, table in [("time, us (times diskcache)", times), ("damage while closed", damages),
                         ("kill -9 of two writers", kills), ("at the limit of 8 MiB", limits)]:  # fmt: skip
        root = Path(tempfile.mkdtemp(prefix="spike-disk-"))
        start = time.perf_counter()
        print(title, flush=True)
        table(root)
        print(f"  [{time.perf_counter() - start:.0f} s]", flush=True)
        shutil.rmtree(root)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

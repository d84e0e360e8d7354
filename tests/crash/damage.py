"""Damages a closed disk store in every file and proves what is left: ``python damage.py --bytes 100000``.

Each round flips, zeroes or cuts bytes, or swaps, copies or deletes whole files, of a copy of a sound store, and a child
opens it. The child must not die and nothing may be raised; each value must be the one that was last set for its key or
absent; a removed one must be absent; an invalidation by tag must still be told unless the store was made anew under
another identity; and the store must work afterwards.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.tiers.base import Kill, Kind, Notice, Put, Remove, StoreError
from genesis_cache.tiers.segments.layout import PAGE
from genesis_cache.tiers.segments.store import SegmentStore

SCOPE = scope_of("damage")
MAX_BYTES = 1 << 20
KEYS = 400
TAGS = 20
ROUNDS_PER_CHILD = 10
NEVER = float("inf")
MEMORY = Path("/dev/shm")  # noqa: S108  # where flushing costs nothing: kills and damage are the same there


@dataclass
class Report:
    """What was seen."""

    rounds: int = 0
    damaged_bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    """Values that were still there, over all rounds."""
    rebuilt: int = 0
    """Rounds in which the store was made anew."""
    faults: list[str] = field(default_factory=list)


def at(key: int) -> Address:
    return address_of(SCOPE, f"key:{key}")


def value_of(key: int, version: int) -> bytes:
    """A value that names itself, of a size that depends on the key, some of them large."""
    size = 70_000 if key % 100 == 0 else 200 + key % 7 * 300
    return f"{key}:{version}:".encode() + random.Random(key * 10 + version).randbytes(size)


def expected(key: int) -> bytes | None:
    """The newest value of a key; every fifth was removed."""
    return None if key % 5 == 0 else value_of(key, 2 if key % 3 == 0 else 1)


def new_store(folder: Path) -> SegmentStore:
    store = SegmentStore(folder, MAX_BYTES, SystemClock())
    store.open()
    return store


def make_pristine(folder: Path) -> int:
    """A store with values, older versions of them, removed ones and invalidations; its epoch."""
    store = new_store(folder)
    for key in range(KEYS):
        store.commit([Put(at(key), value_of(key, 1), NEVER)])
    for key in range(0, KEYS, 3):
        store.commit([Put(at(key), value_of(key, 2), NEVER)])
    store.commit([Remove(at(key)) for key in range(0, KEYS, 5)])
    store.commit([Kill(Notice(Kind.TAG, "", None, f"tag{number}")) for number in range(TAGS)])
    epoch = store.position().epoch
    store.close()
    return epoch


# --- damage -------------------------------------------------------------------------------------------------------


def harm(folder: Path, rng: random.Random, dose: int) -> tuple[str, int]:
    """Damage a store's files; what was done and how many bytes it touched."""
    files = {path.name: path for path in folder.iterdir() if path.stat().st_size}
    segments = sorted(name for name in files if name.startswith("seg-"))
    target = rng.choice(["books", "buckets", "log", "segment", "segment", "any"])
    name = {
        "books": "index",
        "buckets": "index",
        "log": rng.choice(["log-0", "log-1"]),
        "segment": rng.choice(segments or sorted(files)),
        "any": rng.choice(sorted(files)),
    }[target]
    path = files.get(name)
    if path is None:  # deleted a moment ago
        return f"{target} gone", 0
    size = path.stat().st_size
    low, high = {"books": (0, PAGE), "buckets": (PAGE, size), "log": (0, 8000)}.get(target, (0, size))
    if not low < min(high, size):  # cut a moment ago
        low = 0
    high = min(high, size)
    kind = rng.choice(["flips", "flips", "few flips", "zeros", "noise", "cut", "longer", "swap", "delete"])
    done = _HARMS[kind](path, rng, low, high, dose) if kind in _HARMS else _whole(kind, files, name, segments, rng)
    return f"{target} {kind}", done


def _flips(path: Path, rng: random.Random, low: int, high: int, dose: int) -> int:
    data = bytearray(path.read_bytes())
    for _ in range(dose):
        data[rng.randrange(low, high)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return dose


def _few_flips(path: Path, rng: random.Random, low: int, high: int, _dose: int) -> int:
    return _flips(path, rng, low, high, rng.randrange(1, 5))


def _overwrite(path: Path, rng: random.Random, low: int, high: int, data: bytes) -> int:
    start = rng.randrange(low, high)
    data = data[: high - start]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)
    return len(data)


def _zeros(path: Path, rng: random.Random, low: int, high: int, dose: int) -> int:
    return _overwrite(path, rng, low, high, bytes(rng.choice([8, 64, dose, PAGE])))


def _noise(path: Path, rng: random.Random, low: int, high: int, dose: int) -> int:
    return _overwrite(path, rng, low, high, rng.randbytes(rng.choice([8, 64, dose, PAGE])))


def _cut(path: Path, rng: random.Random, low: int, high: int, _dose: int) -> int:
    size = path.stat().st_size
    left = rng.randrange(low, high)
    os.truncate(path, left)
    return size - left


def _longer(path: Path, rng: random.Random, _low: int, _high: int, dose: int) -> int:
    with path.open("ab") as file:
        return file.write(rng.randbytes(dose))


_HARMS = {"flips": _flips, "few flips": _few_flips, "zeros": _zeros, "noise": _noise, "cut": _cut, "longer": _longer}


def _whole(kind: str, files: dict[str, Path], name: str, segments: list[str], rng: random.Random) -> int:
    """Swap two segments, or delete a file."""
    if kind == "delete" or len(segments) < 2:
        size = files[name].stat().st_size
        files[name].unlink()
        return size
    first, second = (files[one] for one in rng.sample(segments, 2))
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    return len(one) + len(two)


# --- judgement ----------------------------------------------------------------------------------------------------


def inspect(folder: Path, epoch: int) -> tuple[int, bool, list[str]]:
    """Open a damaged store: how many values are left, whether it was made anew, and what is wrong."""
    store = new_store(folder)
    faults = []
    kept = 0
    anew = store.position().epoch != epoch
    for key in range(KEYS):
        value = store.get(at(key))
        kept += value is not None
        if value is not None and (anew or value != expected(key)):
            faults.append(f"key {key}: a value that was never its newest: {bytes(value[:20])!r}")
    floors = {floor.name for floor in store.floors()}
    if not anew and floors != {f"tag{number}" for number in range(TAGS)}:
        faults.append("an invalidation by tag was lost")
    _use(store, faults)
    store.close()
    return kept, anew, faults


def _use(store: SegmentStore, faults: list[str]) -> None:
    """The store must take, serve, remove and count again."""
    for key in range(KEYS):
        store.commit([Put(at(key), value_of(key, 3), NEVER)])
        if store.get(at(key)) != value_of(key, 3):
            faults.append(f"key {key}: a value written after the damage isn't served")
    list(store.scan())
    store.sweep(1.0)
    store.check()
    store.stats()
    store.commit([Remove(at(key)) for key in range(KEYS)])
    faults += [f"key {key}: it is there after its removal" for key in range(KEYS) if store.get(at(key)) is not None]


def one_round(pristine: Path, folder: Path, epoch: int, seed: int, dose: int) -> dict[str, object]:
    rng = random.Random(seed)
    shutil.copytree(pristine, folder)
    what, done = "", 0
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        more, size = harm(folder, rng, dose)
        what, done = f"{what}, {more}" if what else more, done + size
    try:
        kept, anew, faults = inspect(folder, epoch)
    except (StoreError, Exception) as error:  # noqa: BLE001  # whatever is raised is the finding
        kept, anew, faults = 0, False, [f"raised {error!r}"]
    shutil.rmtree(folder)
    return {"what": what, "bytes": done, "kept": kept, "anew": anew, "faults": faults}


def _rounds(scratch: Path, epoch: int, seeds: range, dose: int) -> tuple[list[str], int]:
    """Some rounds in a child: what it printed, and how it ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with os.fdopen(writing, "w") as pipe:
                for seed in seeds:
                    print(f"round {seed}", file=pipe, flush=True)
                    seen = one_round(scratch / "pristine", scratch / f"round-{seed}", epoch, seed, dose)
                    print(repr(seen), file=pipe, flush=True)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    return lines, os.waitpid(pid, 0)[1]


def _take(report: Report, lines: list[str]) -> None:
    for line in lines:
        if line.startswith("round "):
            continue
        seen = eval(line)  # noqa: S307  # repr() of plain data that our own child printed
        report.rounds += 1
        report.damaged_bytes += seen["bytes"]
        report.kinds.update(seen["what"].split(", "))
        report.kept += seen["kept"]
        report.rebuilt += seen["anew"]
        report.faults += [f"{seen['what']}: {fault}" for fault in seen["faults"]]


def run(scratch: Path, damaged_bytes: int, seed: int = 1, dose: int = 200, limit_s: float = NEVER) -> Report:
    """Rounds until so many bytes were damaged (a cut or swapped file counts as one dose) or time is up."""
    report = Report()
    pristine = scratch / "pristine"
    epoch = make_pristine(pristine)
    end = time.monotonic() + limit_s
    first = seed * 1_000_000
    while report.rounds * dose < damaged_bytes and time.monotonic() < end:
        seeds = range(first, first + ROUNDS_PER_CHILD)
        first += ROUNDS_PER_CHILD
        lines, status = _rounds(scratch, epoch, seeds, dose)
        _take(report, lines)
        if status != 0 or len(lines) != 2 * ROUNDS_PER_CHILD:
            report.faults.append(f"the child died (status {status}) in {lines[-1] if lines else 'its start'}")
    return report


def main() -> int:
    """Full dose, by hand or from `make prove`."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bytes", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    chosen = arguments.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="damage-", dir=MEMORY if MEMORY.exists() else None))
    start = time.monotonic()
    try:
        report = run(scratch, chosen.bytes, chosen.seed)
    finally:
        shutil.rmtree(scratch)
    print(f"seed {chosen.seed}: {report.rounds} rounds, {report.damaged_bytes} bytes damaged in all,")
    print(f"{report.kept} values kept and right, made anew in {report.rebuilt} rounds, {len(report.faults)} faults,")
    print(f"{time.monotonic() - start:.0f} s; {dict(report.kinds)}")
    print("\n".join(report.faults[:20]))
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())

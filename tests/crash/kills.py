"""Kills writers of a disk store with SIGKILL at random moments and proves what is left: ``kills.py --kills 500``.

Each writer owns some keys and notes in shared memory, before and after each commit, what it is about to do and what
was acknowledged. Writers also read everybody's keys. Then and after the kill every value that can be read must name its
key, be whole, be no older than what was acknowledged and no newer than what was attempted; what was removed stays away;
a view that was handed out never changes; the books agree.
"""

import argparse
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.tiers.base import Change, Kill, Kind, Notice, Put, Remove
from genesis_cache.tiers.segments.store import SegmentStore

SCOPE = scope_of("kills")
KEYS_EACH = 40
MAX_BYTES = 1 << 20
NEVER = float("inf")
MEMORY = Path("/dev/shm")  # noqa: S108  # where flushing costs nothing: kills and damage are the same there


@dataclass
class Report:
    """What was seen."""

    kills: int = 0
    commits: int = 0
    read: int = 0
    read_meanwhile: int = 0
    rebuilt: int = 0
    faults: list[str] = field(default_factory=list)


class Ledger:
    """Shared memory: for each key the last attempted and the last acknowledged version, and whether that removed it."""

    def __init__(self, keys: int) -> None:
        self.words = memoryview(mmap.mmap(-1, 8 * (2 * keys + 3))).cast("Q")

    def attempt(self, key: int, version: int) -> None:
        self.words[2 * key] = version

    def acknowledge(self, key: int, version: int, *, removed: bool) -> None:
        self.words[2 * key + 1] = 2 * version + removed  # one word: a kill must not part them
        self.words[-1] += 1

    def of(self, key: int) -> tuple[int, int, bool]:
        attempted, acknowledged = self.words[2 * key], self.words[2 * key + 1]
        return attempted, acknowledged >> 1, acknowledged & 1 == 1

    def met(self, *, fault: bool) -> None:
        """Count a value read by a writer, and a fault in it."""
        self.words[-2] += 1
        self.words[-3] += fault

    @property
    def meanwhile(self) -> tuple[int, int]:
        """Values that writers read, and faults in them."""
        return self.words[-2], self.words[-3]

    @property
    def commits(self) -> int:
        return self.words[-1]


def at(key: int) -> Address:
    return address_of(SCOPE, f"key:{key}")


def value_of(key: int, version: int, size: int) -> bytes:
    """A value that names itself and cannot be cut or mixed unseen."""
    body = f"{key}:{version}:".encode() + random.Random(version).randbytes(size)
    return body + zlib.crc32(body).to_bytes(4, "little")


def read_value(value: bytes) -> tuple[int, int] | None:
    """Key and version that a value names; None if it isn't whole."""
    body, checksum = value[:-4], value[-4:]
    if zlib.crc32(body).to_bytes(4, "little") != checksum:
        return None
    key, version, _ = body.split(b":", 2)
    return int(key), int(version)


def new_store(folder: Path) -> SegmentStore:
    store = SegmentStore(folder, MAX_BYTES, SystemClock())
    store.open()
    return store


def write(folder: Path, ledger: Ledger, writer: int, writers: int, seed: int) -> None:
    """In a child: change its own keys until killed."""
    rng = random.Random(seed)
    store = new_store(folder)
    mine = range(writer * KEYS_EACH, (writer + 1) * KEYS_EACH)
    everybody = range(writers * KEYS_EACH)
    held: list[tuple[memoryview, bytes]] = []
    while True:
        batch = rng.sample(mine, rng.randrange(1, 9))
        changes: list[Change] = []
        plans = []
        for key in batch:
            version = ledger.of(key)[0] + 1
            ledger.attempt(key, version)
            removed = rng.random() < 0.2
            size = rng.choice([10, 300, 1000, 5000, 70_000]) if rng.random() < 0.3 else 500
            put = Put(at(key), b"" if removed else value_of(key, version, size), NEVER)
            changes.append(Remove(at(key)) if removed else put)
            plans.append((key, version, removed))
        if rng.random() < 0.1:
            changes.append(Kill(Notice(Kind.TAG, "", None, f"tag{rng.randrange(50)}")))
        store.commit(changes)
        for key, version, removed in plans:
            ledger.acknowledge(key, version, removed=removed)
        for key in rng.sample(everybody, 6):
            look(store, ledger, key, held)


def look(store: SegmentStore, ledger: Ledger, key: int, held: list[tuple[memoryview, bytes]]) -> None:
    """Read a key that others may be changing; large values are held as views and looked at again later."""
    _, acknowledged, removed = ledger.of(key)
    value = store.get(at(key))
    attempted = ledger.of(key)[0]
    if value is not None:
        fault = _fault(key, bytes(value), attempted, acknowledged, removed=removed)
        ledger.met(fault=fault is not None)
    if isinstance(value, memoryview):
        held.append((value, bytes(value)))
    if len(held) > 8:
        view, copy = held.pop(0)
        ledger.met(fault=view != copy)


def judge(ledger: Ledger, key: int, value: bytes | memoryview | None) -> str | None:
    """What is wrong with a value found after the kill."""
    if value is None:
        return None
    attempted, acknowledged, removed = ledger.of(key)
    return _fault(key, bytes(value), attempted, acknowledged, removed=removed)


def _fault(key: int, value: bytes, attempted: int, acknowledged: int, *, removed: bool) -> str | None:
    named = read_value(value)
    if named is None:
        return f"key {key}: a torn value"
    if named[0] != key:
        return f"key {key}: the value of key {named[0]}"
    if not acknowledged <= named[1] <= attempted:
        return f"key {key}: version {named[1]} after {acknowledged} was acknowledged and {attempted} attempted"
    if removed and named[1] == acknowledged:
        return f"key {key}: version {named[1]}, which was removed"
    return None


def inspect(folder: Path, ledger: Ledger, keys: int, report: Report) -> None:
    """Open the store and judge everything in it."""
    report.faults += too_many_bytes(folder)  # as the kill left it
    store = new_store(folder)
    try:
        for key in range(keys):
            value = store.get(at(key))
            report.read += value is not None
            fault = judge(ledger, key, value)
            if fault:
                report.faults.append(fault)
        report.faults += store.check()
        report.rebuilt = store.stats().rebuilt
    finally:
        store.close()
    report.faults += too_many_bytes(folder)


def too_many_bytes(folder: Path) -> list[str]:
    total = sum(entry.stat().st_size for entry in folder.iterdir())
    return [f"the files have {total} bytes"] if total > MAX_BYTES else []


def spawn(folder: Path, ledger: Ledger, writer: int, writers: int, seed: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            write(folder, ledger, writer, writers, seed)
        finally:
            os._exit(1)
    return pid


def run(folder: Path, kills: int, seed: int = 1, writers: int = 3, longest_s: float = 0.06) -> Report:
    """Kill so many writers; some while the others write on, which then finish what the dead one began."""
    rng = random.Random(seed)
    report = Report()
    ledger = Ledger(writers * KEYS_EACH)
    new_store(folder).close()
    while report.kills < kills:
        pids = [spawn(folder, ledger, writer, writers, rng.randrange(2**32)) for writer in range(writers)]
        time.sleep(0.01)
        for pid in rng.sample(pids, len(pids)):
            time.sleep(rng.random() * longest_s / writers)
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if not os.WIFSIGNALED(status):
                report.faults.append("a writer ended by itself")
            report.kills += 1
        inspect(folder, ledger, writers * KEYS_EACH, report)
    report.commits = ledger.commits
    report.read_meanwhile, faults = ledger.meanwhile
    if faults:
        report.faults.append(f"{faults} faults in values that were read meanwhile")
    return report


def main() -> int:
    """Full dose, by hand or from `make prove`."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=500)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-", dir=MEMORY if MEMORY.exists() else None))
    start = time.monotonic()
    try:
        report = run(folder / "store", chosen.kills, chosen.seed)
    finally:
        shutil.rmtree(folder)
    print(
        f"seed {chosen.seed}: {report.kills} kills, {report.commits} changes acknowledged, {report.read} values read,"
    )
    print(f"{report.read_meanwhile} values read while others wrote,")
    print(f"rebuilt {report.rebuilt} times, {len(report.faults)} faults, {time.monotonic() - start:.0f} s")
    print("\n".join(report.faults[:20]))
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())

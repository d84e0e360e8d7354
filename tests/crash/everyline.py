"""Kills a writer at every line of the code that writes, one after the other: ``python everyline.py``.

A child makes the same changes each time (sets, replacements, removals, fills, versions, eviction with survivors, a
compaction of the log) and is killed by SIGKILL at its n-th line, or interrupted there by an exception as Ctrl-C would
be. Then, in a process that had the store open all the time or in one that opens it anew: each value is what was
acknowledged or attempted; what others were told of has happened; fills that began before are refused; the books agree.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from kills import Ledger, at, judge, read_value, value_of

from genesis_cache.model.clock import SystemClock
from genesis_cache.tiers.base import Change, Drop, Kill, Kind, Notice, Position, Put, Remove
from genesis_cache.tiers.segments.store import SegmentStore

MAX_BYTES = 256 * 1024
KEYS = 24
NEVER = float("inf")
MEMORY = Path("/dev/shm")  # noqa: S108  # where flushing costs nothing: kills and damage are the same there
CODE = "/tiers/segments/"
NOT_INTERRUPTED = (
    "store.py",
    "locks.py",
)  # a lock that is being taken or freed cannot survive an exception from nowhere


@dataclass
class Report:
    """What was seen."""

    kills: int = 0
    lines: set[tuple[str, int]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


class _Reached(KeyboardInterrupt):
    """Stands for Ctrl-C."""


def new_store(folder: Path) -> SegmentStore:
    store = SegmentStore(folder, MAX_BYTES, SystemClock(), version_of=lambda envelope: read_value(bytes(envelope))[1])
    store.open()
    return store


def prepare(folder: Path, ledger: Ledger) -> None:
    """A store whose next segment has to evict and whose log has to be compacted soon."""
    store = new_store(folder)
    for key in range(KEYS):
        ledger.attempt(key, 1)
        store.commit([Put(at(key), value_of(key, 1, 200), NEVER, priority=2)])
        ledger.acknowledge(key, 1, removed=False)
    number = 1000
    since = store.position().seq
    while len(list(folder.glob("seg-*"))) < 5 or store.try_commit([_filler(number, since)]) is not None:
        number += 1
        store.commit([_filler(number, since)])
    while store.try_commit([Remove(at(5000))] * 3) is not None:
        pass
    store.close()


def _filler(number: int, since: int) -> Put:
    return Put(at(number), value_of(number, 1, 3000), NEVER, since=since)


def change(store: SegmentStore, ledger: Ledger) -> None:
    """The changes of the child, each noted before and after."""
    key = 0
    for batch in range(6):
        changes: list[Change] = []
        plans = []
        for step in range(4):
            key = (key + 5) % KEYS
            version = ledger.of(key)[0] + 1
            ledger.attempt(key, version)
            removed = step == 1
            versioned = version if step == 2 else None
            put = Put(at(key), value_of(key, version, 400 if step else 2500), NEVER, version=versioned)
            changes.append(Remove(at(key)) if removed else put)
            plans.append((key, version, removed))
        changes += [
            Kill(Notice(Kind.TAG, "", None, f"t{batch}")),
            Drop(at(2000 + batch)),
            _filler(3000 + batch, store.position().seq),
        ]
        store.commit(changes)
        for key, version, removed in plans:
            ledger.acknowledge(key, version, removed=removed)


def stop_at(line: int, *, kill: bool) -> None:
    """From now on die, or raise, at the n-th line of the store's code."""
    left = line

    def local(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                if kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise _Reached(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        return local

    def enter(frame: FrameType, _event: str, _argument: object) -> object:
        name = frame.f_code.co_filename
        return local if CODE in name and (kill or not name.endswith(NOT_INTERRUPTED)) else None

    sys.settrace(enter)


def child(folder: Path, ledger: Ledger, line: int, *, kill: bool) -> bool:
    """Make the changes in a child that stops at a line; whether it came to that line."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            store = new_store(folder)
            stop_at(line, kill=kill)
            with suppress(_Reached):
                change(store, ledger)
                code = 0
            sys.settrace(None)
            if code:
                faults = _after_interrupt(store)
                code = 4 if faults else 3
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) not in {0, 3}:
        raise AssertionError(f"line {line}: the child ended with {os.WEXITSTATUS(status)}")
    return status != 0


def _after_interrupt(store: SegmentStore) -> list[str]:
    """The process that was interrupted goes on with the same handle."""
    store.commit([Remove(at(4000))])
    return store.check()


def inspect(store: SegmentStore, ledger: Ledger, start: Position, faults: list[str]) -> None:
    """Judge everything after the child's end."""
    told = {notice.name: notice.seq for notice in store.notices(start) or []}
    if store.notices(start) is None:
        told = {f"key:{key}": 1 for key in range(KEYS) if ledger.of(key)[1] > 1}
    refills = [
        Put(at(key), value_of(key, 0, 10), NEVER, since=start.seq) for key in range(KEYS) if f"key:{key}" in told
    ]
    if not all(receipt.refused for receipt in store.commit([*refills, Remove(at(4001))])[:-1]):
        faults.append("a fill that began before a change was told was not refused")
    for key in range(KEYS):
        value = store.get(at(key))
        fault = judge(ledger, key, value)
        if fault:
            faults.append(fault)
        if value is not None and f"key:{key}" in told and read_value(bytes(value)) == (key, 1):
            faults.append(f"key {key}: its first version, though others were told that it changed")
    faults += store.check()


def one(scratch: Path, first: Ledger, line: int, *, kill: bool, watched: bool) -> tuple[bool, list[str]]:
    """One child, stopped at a line; whether it came so far, and what is wrong."""
    folder = scratch / "round"
    shutil.copytree(scratch / "pristine", folder)
    ledger = Ledger(KEYS)
    ledger.words[:] = first.words
    watcher = new_store(folder) if watched else None
    start = position_of(folder) if watcher is None else watcher.position()
    reached = child(folder, ledger, line, kill=kill)
    faults = _too_many_bytes(folder)
    store = watcher or new_store(folder)
    inspect(store, ledger, start, faults)
    store.close()
    faults += _too_many_bytes(folder)
    shutil.rmtree(folder)
    return reached, [f"line {line} ({'killed' if kill else 'interrupted'}, watched {watched}): {one}" for one in faults]


def _too_many_bytes(folder: Path) -> list[str]:
    total = sum(entry.stat().st_size for entry in folder.iterdir())
    return [f"the files have {total} bytes"] if total > MAX_BYTES else []


def position_of(folder: Path) -> Position:
    store = new_store(folder)
    position = store.position()
    store.close()
    return position


def run(scratch: Path, step: int = 1, first: int = 1, limit_s: float = NEVER) -> Report:
    """Every ``step``-th line, killed and interrupted by turns, watched and not by turns."""
    report = Report()
    ledger = Ledger(KEYS)
    prepare(scratch / "pristine", ledger)
    end = time.monotonic() + limit_s
    line, reached = first, True
    while reached and time.monotonic() < end:
        kill, watched = report.kills % 3 != 2, report.kills % 2 == 0
        reached, faults = one(scratch, ledger, line, kill=kill, watched=watched)
        report.kills += reached
        report.faults += faults
        line += step
    return report


def main() -> int:
    """Full dose, by hand or from `make prove`."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--step", type=int, default=1)
    arguments.add_argument("--first", type=int, default=1)
    chosen = arguments.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="everyline-", dir=MEMORY if MEMORY.exists() else None))
    start = time.monotonic()
    try:
        report = run(scratch, chosen.step, chosen.first)
    finally:
        shutil.rmtree(scratch)
    print(f"stopped at {report.kills} lines, {len(report.faults)} faults, {time.monotonic() - start:.0f} s")
    print("\n".join(report.faults[:20]))
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())

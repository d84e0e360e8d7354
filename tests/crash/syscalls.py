"""Makes system calls of a disk store fail, one at a time, with strace: ``python syscalls.py``.

A child does everything a store can do; its n-th call of one kind fails with one error. Nothing but `StoreError` may be
raised, no value may be wrong, what was removed stays away, and afterwards the same store works and its books agree.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kills import MEMORY, at, read_value, value_of

from genesis_cache.model.clock import SystemClock
from genesis_cache.tiers.base import Kill, Kind, Notice, Put, Remove, StoreError
from genesis_cache.tiers.segments.store import SegmentStore

MAX_BYTES = 256 * 1024
NEVER = float("inf")
KEYS = 60
SOURCE = Path(__file__).parents[2] / "src"
CALLS = {
    "openat": ("EMFILE", "EACCES", "EIO"),
    "pwrite64": ("EIO", "ENOSPC"),
    "pread64": ("EIO",),
    "fallocate": ("ENOSPC", "EIO"),
    "flock": ("EIO",),
    "fcntl": ("EIO",),
    "unlinkat": ("EIO", "EACCES"),
    "renameat": ("EIO",),
    "newfstatat": ("EIO",),
    "getdents64": ("EIO",),
    "fsync": ("EIO",),
    "msync": ("EIO",),
}


@dataclass
class Report:
    """What was seen."""

    cases: int = 0
    struck: int = 0
    """Cases in which an error was really met."""
    faults: list[str] = field(default_factory=list)


# --- the child ----------------------------------------------------------------------------------------------------


class Child:
    """Does everything, notes what went wrong, expects only `StoreError`."""

    def __init__(self, folder: Path) -> None:
        self.store = SegmentStore(folder, MAX_BYTES, SystemClock())
        self.errors = 0
        self.faults: list[str] = []
        self.removed: set[int] = set()

    def attempt(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except StoreError:
            self.errors += 1
            return False
        except Exception as error:  # noqa: BLE001  # whatever else is raised is the finding
            self.faults.append(f"raised {error!r}")
            return False
        return True

    def everything(self) -> None:
        store = self.store
        for _ in range(3):
            if self.attempt(store.open):
                break
        for key in range(KEYS):
            self.attempt(lambda key=key: store.commit([Put(at(key), value_of(key, 1, 6000), NEVER)]))
            self.attempt(lambda key=key: store.get(at(key - 3)))
            if key % 7 == 0 and self.attempt(lambda key=key: store.commit([Remove(at(key))])):
                self.removed.add(key)
        start = None if not self.attempt(store.position) else store.position()
        self.attempt(lambda: store.commit([Kill(Notice(Kind.TAG, "", None, "t"))]))
        self.attempt(lambda: start and store.notices(start))
        for work in (store.floors, store.stats, store.check, lambda: list(store.scan()), lambda: store.sweep(1.0)):
            self.attempt(work)
        self.attempt(lambda: store.lease(at(1)))
        self.attempt(lambda: store.release(at(1)))
        self.attempt(lambda: store.try_commit([Put(at(1), value_of(1, 1, 100), NEVER)]))
        self.attempt(store.close)

    def judge(self) -> None:
        """The error was met once; from here on all must be well."""
        self.store.open()
        for key in range(KEYS):
            value = self.store.get(at(key))
            if value is not None and (key in self.removed or read_value(bytes(value)) != (key, 1)):
                self.faults.append(f"key {key}: a wrong or removed value")
        self.store.commit([Put(at(1), value_of(1, 1, 100), NEVER)])
        self.faults += self.store.check()
        self.store.close()


def child_main(folder: Path) -> int:
    child = Child(folder)
    print("ready", flush=True)
    sys.stdin.readline()
    child.everything()
    child.attempt(child.judge)
    print(f"errors {child.errors}", flush=True)
    print("\n".join(child.faults), flush=True)
    return bool(child.faults)


# --- the parent ---------------------------------------------------------------------------------------------------


def case(folder: Path, call: str, error: str, when: int) -> tuple[int, str]:
    """One child with one failing call: how many errors it met, and what went wrong."""
    child = subprocess.Popen(  # noqa: S603  # ourselves
        [sys.executable, __file__, "--child", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    inject = f"inject={call}:error={error}:when={when}"
    tracer = subprocess.Popen(  # noqa: S603
        ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, "-p", str(child.pid)],  # noqa: S607
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    tracer.stderr.readline()  # "attached"
    output, _ = child.communicate("go\n", timeout=60)
    tracer.wait()
    tracer.stderr.close()
    lines = output.splitlines()
    if child.returncode not in {0, 1} or not lines:
        return 0, f"the child ended with {child.returncode}"
    return int(lines[0].split()[1]), "; ".join(line for line in lines[1:] if line)


def run(
    scratch: Path, calls: dict[str, tuple[str, ...]] = CALLS, whens: tuple[int, ...] = (1, 2, 3, 5, 9, 20)
) -> Report:
    """Every call with every error at several turns."""
    report = Report()
    for call, errors in calls.items():
        for error in errors:
            for when in whens:
                folder = scratch / f"{call}-{error}-{when}"
                struck, fault = case(folder, call, error, when)
                report.cases += 1
                report.struck += struck > 0
                if fault:
                    report.faults.append(f"{call} {error} at {when}: {fault}")
                shutil.rmtree(folder, ignore_errors=True)
    return report


def main() -> int:
    """Full dose, by hand or from `make prove`."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--child", type=Path)
    chosen = arguments.parse_args()
    if chosen.child:
        return child_main(chosen.child)
    scratch = Path(tempfile.mkdtemp(prefix="syscalls-", dir=MEMORY if MEMORY.exists() else None))
    start = time.monotonic()
    try:
        report = run(scratch)
    finally:
        shutil.rmtree(scratch)
    print(f"{report.cases} cases, an error met in {report.struck}, {len(report.faults)} faults,")
    print(f"{time.monotonic() - start:.0f} s")
    print("\n".join(report.faults[:20]))
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())

"""What an operator should know of an embedded store: its size, its health, its place, each judged.

Decides apart from looking: `look` asks the machine, `judge` says what that means.
"""

import os
import stat
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from genesis_cache.model.finding import Finding, Severity
from genesis_cache.model.settings import BYTES_PER_MB
from genesis_cache.tiers.base import StoreStats
from genesis_cache.tiers.machine import Volume, volume

LEAST_FREE_BYTES = 64 * BYTES_PER_MB  # below it a store soon cannot write
OVERFULL = 1.1  # times its capacity: more than the contract allows after a sweep
FUTURE_S = 120.0  # a file this far ahead of the clock was not written a moment ago
_FIRST_SANE_S = 1_704_067_200  # 2024-01-01: a clock below it was never set


@runtime_checkable
class Placed(Protocol):
    """A store that lies somewhere."""

    @property
    def path(self) -> Path:
        """Its folder or file."""


class Place(msgspec.Struct, frozen=True):
    """Where a store lies, as the machine sees it."""

    path: Path
    mode: int
    """Permission bits of its folder, or of its file where it has one file."""
    is_ours: bool
    """Whether that belongs to this user."""
    is_writable: bool
    volume: Volume
    newest_s: float
    """When the latest of its files was written, wall seconds."""


def examine(kind: str, store: object, stats: StoreStats, wall_s: float) -> list[Finding]:
    """Every finding about a store that works; it may wait for the disk."""
    try:
        place = look(store.path) if isinstance(store, Placed) else None
    except OSError as error:
        fix = "see that it is there and that this user may enter it"
        return [Finding(f"{kind}: place", Severity.FAULT, f"cannot be looked at: {error}", fix)]
    return judge(kind, stats, place, wall_s)


def look(path: Path) -> Place:
    """Ask the machine about a store's folder, or that of its file; `OSError` where it cannot be asked."""
    folder = path if path.is_dir() else path.parent
    status = path.stat()
    ours = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    files = folder.iterdir() if folder == path else folder.glob(f"{path.name}*")
    newest = max((_written_s(file) for file in files), default=0.0)
    return Place(path, stat.S_IMODE(status.st_mode), ours, os.access(path, os.W_OK), volume(folder), newest)


def _written_s(file: Path) -> float:
    try:
        return file.lstat().st_mtime
    except FileNotFoundError:  # another process evicts
        return 0.0


def judge(kind: str, stats: StoreStats, place: Place | None, wall_s: float) -> list[Finding]:
    """What the figures and the place mean; ``place`` None where the store has none."""
    findings = [_size(kind, stats), _health(kind, stats)]
    if place is not None:
        findings += [
            _permissions(kind, place),
            _file_system(kind, place),
            _free(kind, stats, place.volume),
            _clock(kind, place, wall_s),
        ]
    return findings


def _size(kind: str, stats: StoreStats) -> Finding:
    subject, capacity = f"{kind}: size", stats.capacity_bytes
    told = f"{stats.entries:,} entries in {_mb(stats.size_bytes)}"
    if not capacity:
        return Finding(subject, Severity.OK, told)
    told += f" of {_mb(capacity)}"
    if stats.size_bytes > capacity * OVERFULL:
        fix = "shorten CACHE_CLEANUP_INTERVAL, or raise the tier's size"
        return Finding(subject, Severity.ADVICE, f"{told}: more than it may have until the next cleanup", fix)
    return Finding(subject, Severity.OK, told)


def _health(kind: str, stats: StoreStats) -> Finding:
    subject = f"{kind}: health"
    if not stats.damaged and not stats.rebuilt:
        return Finding(subject, Severity.OK, "no damage was met")
    told = f"{stats.damaged} damaged records were left out, {stats.rebuilt} times the store was made anew"
    fix = "look at the disk's health, and at who else writes there"
    return Finding(subject, Severity.ADVICE, told, fix)


def _permissions(kind: str, place: Place) -> Finding:
    subject, mode = f"{kind}: permissions", f"{place.mode:04o}"
    if not place.is_writable:
        fix = f"give this user the right to write there, or let {_setting(kind)} name a place of its own"
        return Finding(subject, Severity.FAULT, f"{place.path} cannot be written to: only reads work", fix)
    if not place.is_ours or place.mode & 0o077:
        whose = f"is open to others (mode {mode})" if place.is_ours else f"belongs to another user (mode {mode})"
        fix = "let it belong to the user of the cache alone, mode 0700 (0600 of a file): others read what is cached"
        return Finding(subject, Severity.ADVICE, f"{place.path} {whose}", fix)
    return Finding(subject, Severity.OK, f"{place.path}, mode {mode}")


def _setting(kind: str) -> str:
    return "CACHE_DISK_PATH" if kind == "disk" else "DATABASE_URL"


def _file_system(kind: str, place: Place) -> Finding:
    subject, found = f"{kind}: file system", place.volume
    if found.is_networked:
        told = f"{place.path} is on {found.kind}, a network file system, where locks and shared mappings do not hold"
        return Finding(subject, Severity.FAULT, told, f"move it to a disk of this machine, by {_setting(kind)}")
    if found.kind in ("tmpfs", "ramfs"):
        told = f"{place.path} is on {found.kind}: it uses memory, and is gone after a restart of the machine"
        return Finding(subject, Severity.ADVICE, told, "move it to a disk if it should outlive a restart")
    if found.kind == "overlay":
        told = f"{place.path} is in a container's own layer, and goes with the container"
        return Finding(subject, Severity.ADVICE, told, "mount a volume there if it should outlive the container")
    return Finding(subject, Severity.OK, found.kind or "not told by this system")


def _free(kind: str, stats: StoreStats, found: Volume) -> Finding:
    subject, told = f"{kind}: free space", f"{_mb(found.free_bytes)} are free"
    if found.free_bytes < LEAST_FREE_BYTES:
        fix = "free space on that disk; until then the tier cannot take what is new"
        return Finding(subject, Severity.FAULT, f"only {told}", fix)
    growth = (stats.capacity_bytes or 0) - stats.size_bytes
    if found.free_bytes < growth:
        fix = "free space on that disk, or lower the tier's size"
        return Finding(subject, Severity.ADVICE, f"{told}, and the tier may still grow by {_mb(growth)}", fix)
    return Finding(subject, Severity.OK, told)


def _clock(kind: str, place: Place, wall_s: float) -> Finding:
    subject = f"{kind}: clock"
    if wall_s < _FIRST_SANE_S:
        told = "this machine's clock is years behind: what was stored under a right clock never expires"
        return Finding(subject, Severity.FAULT, told, "set the clock, best by NTP")
    ahead_s = place.newest_s - wall_s
    if ahead_s > FUTURE_S:
        told = f"a file there was written {ahead_s:,.0f} s in the future: the clock was set back since"
        return Finding(subject, Severity.ADVICE, told, "check the clock; entries live longer by that")
    return Finding(subject, Severity.OK, "no file is from the future")


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / BYTES_PER_MB:,.1f} MB"

"""What the machine grants: the memory a process may use, and the file system and free space below a path."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_MOUNTS = Path("/proc/self/mounts")
_NETWORKED = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ncpfs", "smb3", "smbfs"}
)
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}  # as proc(5) writes them


class Volume(msgspec.Struct, frozen=True):
    """The file system under a path."""

    kind: str
    """``ext4``, ``nfs4``, ``tmpfs``; empty where the system does not say."""
    free_bytes: int
    """What an ordinary user may still write."""

    @property
    def is_networked(self) -> bool:
        """Whether it lies on another machine, where locks and shared mappings do not hold."""
        return self.kind in _NETWORKED or self.kind.startswith("fuse.sshfs")


def memory_bytes() -> int | None:
    """What this process may use: the machine's memory, or its container's limit where that is less; None unknown."""
    sizes = [int(text) for path in _MEMORY_LIMITS if (text := _read(path)).isdecimal()]
    if hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys():
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes, default=None)


def volume(path: Path) -> Volume:
    """The file system under a path that exists; `OSError` where it cannot be asked."""
    return Volume(_kind(path.resolve(), _read(_MOUNTS).splitlines()), shutil.disk_usage(path).free)


def _kind(path: Path, mounts: Iterable[str]) -> str:
    """The kind of the innermost mount that a path lies in; of several in one place the last, which hides the others."""
    kind, depth = "", -1
    for line in mounts:
        _, place, said, *_ = line.split(" ")
        for escape, character in _ESCAPES.items():
            place = place.replace(escape, character)
        at = Path(place)
        if path.is_relative_to(at) and len(at.parts) >= depth:
            kind, depth = said, len(at.parts)
    return kind


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape").strip()
    except OSError:
        return ""

"""What the machine grants, asked of the machine that runs the tests."""

import shutil
from pathlib import Path

import pytest

from genesis_cache.tiers import machine
from genesis_cache.tiers.machine import Volume, memory_bytes, volume


def test_the_memory_is_that_of_the_machine_or_less() -> None:
    """A process is told a size that a machine can have."""
    size = memory_bytes()
    assert size is not None
    assert 2**26 < size < 2**50


def test_a_containers_limit_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in a small container is told the container's memory; a limit called max is none."""
    whole = memory_bytes()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_MEMORY_LIMITS", (limit,))
    limit.write_text("67108864\n", encoding="utf-8")
    assert memory_bytes() == 67_108_864
    limit.write_text("max\n", encoding="utf-8")
    assert memory_bytes() is not None
    assert (memory_bytes() or 0) >= (whole or 0)


def test_the_file_system_under_a_path_is_told(tmp_path: Path) -> None:
    """Free space is what the system says, within what other programs do meanwhile."""
    found = volume(tmp_path)
    assert abs(found.free_bytes - shutil.disk_usage(tmp_path).free) < 2**32
    assert not found.is_networked
    with pytest.raises(OSError, match="nowhere"):
        volume(tmp_path / "nowhere")


def test_the_innermost_mount_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the mounts above a path the innermost is told, of two in one place the later; names may have spaces."""
    inner = tmp_path / "with space"
    inner.mkdir()
    mounts = tmp_path / "mounts"
    escaped = str(inner).replace(" ", r"\040")
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nsrv:/x {escaped} xfs rw 0 0\nsrv:/y {escaped} nfs4 rw 0 0\n", "utf-8")
    monkeypatch.setattr(machine, "_MOUNTS", mounts)
    assert volume(inner).kind == "nfs4"
    assert volume(inner).is_networked
    assert volume(tmp_path).kind == "ext4"


def test_a_remote_file_system_in_user_space_is_networked() -> None:
    """A folder that is mounted over ssh lies on another machine."""
    assert Volume("fuse.sshfs", 0).is_networked
    assert not Volume("fuseblk", 0).is_networked

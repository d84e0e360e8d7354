"""Small doses of what `kills.py` and `damage.py` do in full: nothing torn, nothing wrong, nothing brought back."""

import shutil
from pathlib import Path

import damage
import everyline
import kills
import pytest
import syscalls

# Python 3.12 and later warn of a fork beside threads, which other tests may have left; forks are the point here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_killed_writers_leave_old_or_new_values(tmp_path: Path) -> None:
    """Writers killed at any moment leave each value as it was before or after, and books that agree."""
    report = kills.run(tmp_path / "store", kills=45, seed=5)
    assert report.faults == []
    assert report.commits > 100
    assert report.read > 50
    assert report.rebuilt == 0


def test_writer_stopped_at_any_line_leaves_sound_books(tmp_path: Path) -> None:
    """A writer that ends at any line of the code loses at most what it had not acknowledged, and others go on."""
    report = everyline.run(tmp_path, step=97, limit_s=6)
    assert report.faults == []
    assert report.kills > 20


def test_damaged_files_never_give_a_wrong_value(tmp_path: Path) -> None:
    """Flipped, zeroed, cut, swapped or deleted files: no crash, no exception, no wrong or killed value."""
    report = damage.run(tmp_path, damaged_bytes=12_000, seed=5, limit_s=6)
    assert report.faults == []
    assert report.rounds > 20
    assert report.kept > 500
    assert 0 < report.rebuilt < report.rounds


@pytest.mark.skipif(shutil.which("strace") is None, reason="errors are injected by strace, which is not installed here")
def test_failing_system_calls_are_errors_in_words(tmp_path: Path) -> None:
    """Whatever system call fails, the store raises its own error only, serves nothing wrong and goes on afterwards."""
    calls = {"pwrite64": ("EIO",), "openat": ("EMFILE",), "fallocate": ("ENOSPC",), "flock": ("EIO",)}
    report = syscalls.run(tmp_path, calls, whens=(1, 4, 20))
    assert report.faults == []
    assert report.struck >= 6

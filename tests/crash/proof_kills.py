"""Kills writers of the disk store with SIGKILL at random moments; every value read afterwards must be right."""

import tempfile
import time
from pathlib import Path

import kills

FULL_KILLS = 1_500


def prove(dose: float) -> dict[str, object]:
    """The figures of so many kills."""
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        report = kills.run(Path(folder) / "store", max(3, int(FULL_KILLS * dose)), seed=int(time.time()))
    return {
        "kills": report.kills,
        "changes_acknowledged": report.commits,
        "values_read": report.read,
        "rebuilt": report.rebuilt,
        "faults": report.faults,
    }

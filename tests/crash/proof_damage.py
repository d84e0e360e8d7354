"""Damages the files of a closed disk store, bytes, holes and whole files; nothing that is wrong may be served."""

import tempfile
import time
from pathlib import Path

import damage

FULL_BYTES = 1_000_000


def prove(dose: float) -> dict[str, object]:
    """The figures of so many damaged bytes."""
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        report = damage.run(Path(folder), max(1_000, int(FULL_BYTES * dose)), seed=int(time.time()) % 100_000)
    return {
        "rounds": report.rounds,
        "bytes_damaged": report.damaged_bytes,
        "values_kept_and_right": report.kept,
        "made_anew": report.rebuilt,
        "faults": report.faults,
    }

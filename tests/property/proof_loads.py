"""Random calls over an origin that fails, hangs, dawdles and is cancelled; every answer is judged by a model."""

import logging
import time
from collections import Counter

import load_model

FULL_RUNS = 20
OPERATIONS = 10_000


def prove(dose: float) -> dict[str, object]:
    """The figures of 20 runs of 10,000 operations."""
    logging.getLogger("genesis_cache").setLevel(logging.CRITICAL)
    runs, seed = max(1, round(FULL_RUNS * dose)), int(time.time())
    counts: Counter[str] = Counter()
    faults: list[str] = []
    for n in range(runs):
        book = load_model.run(OPERATIONS, seed + n)
        counts += book.counts
        faults += [f"seed {seed + n}: {fault}" for fault in book.faults]
    return {
        "runs": runs,
        "operations": runs * OPERATIONS,
        "calls": counts["calls"],
        "loads": counts["loads"],
        "loads_that_failed": counts["failed"] + counts["cancelled"],
        "past_their_deadline": counts["deadline"],
        "old_values_served": counts["stale"],
        "callers_out_of_patience": counts["LoaderTimeout"],
        "callers_cancelled": counts["CancelledError"],
        "faults": faults,
    }

"""Draws requests from the OpenAPI page and around it; every answer must be one that the page names, and none a 500."""

import logging
import time

import http_fuzz

FULL_REQUESTS = 2_000


def prove(dose: float) -> dict[str, object]:
    """The figures of so many requests."""
    logging.getLogger("genesis_cache.audit").setLevel(logging.CRITICAL)
    seed, wanted = int(time.time()) % 100_000, max(50, int(FULL_REQUESTS * dose))
    sent, statuses, faults = 0, set[int](), list[str]()
    while sent < wanted:
        report = http_fuzz.run(wanted, seed)
        sent += report.requests
        statuses |= set(report.statuses)
        faults += report.faults
        seed += 1
    return {"requests": sent, "statuses": " ".join(map(str, sorted(statuses))), "faults": faults}

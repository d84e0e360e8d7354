"""Runs clusters of real processes under every fault, over all line-ups and in both modes; nothing may be found."""

from tests.coherence.run import Plan, Report, run

SEEDS = 10
SECONDS_EACH = 60.0
OPERATIONS = 5_000_000
LONGEST_S = 1800.0
SHOWN = 300  # characters of a violation
VARIANTS = (
    ("redis", "serve"),
    ("redis", "bypass"),
    ("redis+database", "serve"),
    ("redis+database", "bypass"),
    ("postgres", "serve"),
    ("postgres", "bypass"),
    ("sentinel", "serve"),
    ("sentinel", "bypass"),
    ("disk+redis", "serve"),
    ("cluster", "serve"),
)


def prove(dose: float) -> dict[str, object]:
    """Ten seeds of a minute, and one run of five million operations."""
    reports: list[Report] = []
    for seed, (lineup, partition) in enumerate(VARIANTS[:SEEDS], 1):
        seconds = max(3.0, SECONDS_EACH * dose)
        reports.append(run(Plan(2 * seed, seconds, 4, lineup, partition=partition, each=dose >= 1, busy=True)))
    reports.append(run(longest(int(OPERATIONS * dose))))
    faults = [
        f"{report.plan.lineup}, {report.plan.partition}, seed {report.plan.seed}: {wrong.splitlines()[0][:SHOWN]}"
        for report in reports
        for wrong in report.wrong
    ]
    return {
        "runs": len(reports),
        "operations": sum(report.operations for report in reports),
        "in_the_longest": reports[-1].operations,
        "faults_done": sum(sum(report.faults.values()) for report in reports),
        "kinds_of_fault": len({name for report in reports for name in report.faults}),
        "cancelled": sum(report.figures["cancelled"] for report in reports),
        "violations": sum(len(report.violations) for report in reports),
        "faults": faults,
    }


def longest(operations: int) -> Plan:
    """A cluster that mostly reads what is near, as fast as it can, and is hurt all the same."""
    return Plan(
        2 * SEEDS + 2,
        LONGEST_S,
        4,
        "redis+database",
        pause_s=2.0,
        pace_ms=0.0,
        operations=operations,
        burst=60,
        busy=True,
    )

"""Runs clusters of real processes under every fault, over all line-ups and in both modes; nothing may be found."""

from tests.coherence.run import Plan, Report, run

SEEDS = 10
SECONDS_EACH = 60.0
OPERATIONS = 5_000_000
SHOWN = 300  # characters of a violation
VARIANTS = (
    ("redis", "serve"),
    ("redis", "bypass"),
    ("redis+database", "serve"),
    ("redis+database", "bypass"),
    ("postgres", "serve"),
    ("postgres", "bypass"),
    ("disk+redis", "serve"),
    ("redis-only", "serve"),
    ("disk", "serve"),
    ("sqlite", "serve"),
)


def prove(dose: float) -> dict[str, object]:
    """Ten seeds of a minute, and one run of five million operations."""
    reports: list[Report] = []
    for seed in range(1, SEEDS + 1):
        lineup, partition = VARIANTS[(seed - 1) % len(VARIANTS)]
        reports.append(run(Plan(seed, max(3.0, SECONDS_EACH * dose), 4, lineup, partition=partition)))
    long = Plan(SEEDS + 1, 60.0, 4, "redis", pace_ms=0.0, pause_s=5.0, operations=int(OPERATIONS * dose))
    reports.append(run(long))
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
        "violations": sum(len(report.violations) for report in reports),
        "faults": faults,
    }

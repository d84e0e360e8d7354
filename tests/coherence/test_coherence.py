"""Real processes over real tiers, hurt in every way for two minutes: what the contract promises of coherence holds."""

import subprocess
import sys

import pytest
from tests.coherence.mutants import MUTANTS, hunt
from tests.coherence.nemesis import DEEDS
from tests.coherence.run import ENVIRONMENT, ROOT, Plan, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 15.0
MODES = ("serve", "bypass")
FAULTS = {
    "redis": (
        "Redis frozen", "Redis restarted empty", "Redis restarted with an old snapshot", "partition",
        "connections reset", "late replies", "worker stopped for long", "stalled loop", "fork",
    ),
    "redis+database": (
        "Redis restarted empty", "PostgreSQL killed", "PostgreSQL frozen", "backend killed", "FLUSHALL", "partition",
        "killed worker", "control keys evicted",
    ),
    "postgres": (
        "PostgreSQL killed", "PostgreSQL frozen", "backends terminated", "books deleted", "partition",
        "stopped worker", "fork",
    ),
    "sentinel": (
        "failover", "log connections killed", "Redis connections killed", "control key deleted",
        "control keys evicted", "stalled loop",
    ),
}  # fmt: skip
"""What is done to each line-up, in either mode: each of these at least once."""

LONG = {
    f"{lineup}, {mode}": Plan(10 * n + 2 * m, SECONDS, 3, lineup, faults, mode, 0.3, each=True, busy=True)
    for n, (lineup, faults) in enumerate(FAULTS.items(), 1)
    for m, mode in enumerate(MODES, 1)
}
SHORT = {
    lineup: Plan(seed, seconds, 3, lineup, pause_s=0.3, busy=True)
    for seed, (lineup, seconds) in enumerate({"disk": 2.0, "sqlite": 2.0, "disk+redis": 5.0, "cluster": 5.0}.items())
}


def test_the_dose_is_whole() -> None:
    """Two minutes, and no fault that there is is left out in either mode."""
    assert sum(plan.seconds for plan in LONG.values()) == 120.0
    for mode in MODES:
        assert {name for plan in LONG.values() if plan.partition == mode for name in plan.faults or ()} == set(DEEDS)


@pytest.mark.parametrize("plan", LONG.values(), ids=LONG)
def test_processes_agree_whatever_breaks(plan: Plan) -> None:
    """No process reads what it must know to be dead, mixed up, or from the future; afterwards all agree."""
    report = run(plan)
    assert report.wrong == []
    assert report.operations > 200
    assert report.figures["cancelled"] > 0
    assert set(report.faults) == set(plan.faults or ())


@pytest.mark.parametrize("plan", SHORT.values(), ids=SHORT)
def test_processes_agree_over_other_tiers(plan: Plan) -> None:
    """The same over tiers of one host and over a cluster, in small doses."""
    report = run(plan)
    assert report.wrong == []
    assert report.operations > 200
    assert sum(report.faults.values()) > 0


def test_every_mutant_can_be_applied() -> None:
    """Each changes what there is; one that changes nothing would count as caught by luck, or never."""
    looked = subprocess.run(
        [sys.executable, "-m", "tests.coherence.mutants", "--look"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert looked.stdout.strip() == f"{len(MUTANTS)} mutants, lame: []"


@pytest.mark.parametrize("name", ["notices of keys are dropped", "a delete leaves the near copy"])
def test_broken_protocol_is_found_out(name: str) -> None:
    """The same cluster with a fault in its protocol does not pass: the checker sees what users would see."""
    assert hunt(name, seed=1).by

"""Real processes over real tiers, hurt in every way: what the contract promises of coherence holds."""

import pytest
from tests.coherence.mutants import hunt
from tests.coherence.run import Plan, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DOSES = {
    "disk": Plan(1, 2.0, 3, "disk", pause_s=0.3),
    "sqlite": Plan(2, 2.0, 3, "sqlite", pause_s=0.3),
    "redis": Plan(3, 4.0, 3, "redis", pause_s=0.3),
    "redis, bypass": Plan(4, 4.0, 3, "redis", partition="bypass", pause_s=0.3),
    "redis and PostgreSQL": Plan(5, 4.0, 3, "redis+database", pause_s=0.3),
    "PostgreSQL": Plan(6, 4.0, 3, "postgres", pause_s=0.3),
}


@pytest.mark.parametrize("plan", DOSES.values(), ids=DOSES)
def test_processes_agree_whatever_breaks(plan: Plan) -> None:
    """No process reads what it must know to be dead, mixed up, or from the future; afterwards all agree."""
    report = run(plan)
    assert report.wrong == []
    assert report.operations > 200
    assert sum(report.faults.values()) > 0


@pytest.mark.parametrize("name", ["notices of keys are dropped", "a delete leaves the near copy"])
def test_broken_protocol_is_found_out(name: str) -> None:
    """The same cluster with a fault in its protocol does not pass: the checker sees what users would see."""
    assert hunt(name, seed=1).by

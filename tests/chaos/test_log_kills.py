"""The connection that brings the others' changes is killed again and again: no change is lost."""

import pytest
from tests.chaos.proof_log_kills import over_postgres, over_redis

KILLS = 30

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("over", [over_redis, over_postgres], ids=["redis", "postgres"])
async def test_killed_connections_lose_no_change(over: object) -> None:
    """Readers find nothing older than the bound allows, hear all in the end, and never had to forget everything."""
    assert callable(over)
    figures = await over(KILLS)
    assert figures["faults"] == []
    assert figures["kills"] >= KILLS
    assert figures["changes"] > 0
    assert figures["started_over"] == 0

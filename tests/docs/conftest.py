"""What a page finds when it is run: an empty folder, a clean environment, and no process-wide cache of another page."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.docs.snippets import SERVERS

from genesis_cache.advanced_cache_manager import advanced_cache_manager

OURS = ("CACHE_", "REDIS_", "DATABASE_", "L1_", "L2_", "L3_", "L4_")


@pytest_asyncio.fixture
async def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Run in an empty folder; the process-wide cache is made anew and closed afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    advanced_cache_manager.use(None)
    yield
    await advanced_cache_manager.cache.close()
    advanced_cache_manager.use(None)


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where the servers are that a page names; one that it does not name is not started."""
    text = request.node.callspec.params["page"].read_text("utf-8")
    return {said: request.getfixturevalue(fixture) for said, fixture in SERVERS.items() if said in text}

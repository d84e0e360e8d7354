"""What every test gets: nothing it starts may outlive it, and Hypothesis runs in small doses unless asked."""

import asyncio
import gc
import inspect
import os
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.services.fixtures"]

QUIET_TURNS = 5  # of the event loop, for callbacks that were due when the test ended
JOIN_S = 5.0  # for threads that were told to end
FOREIGN_THREADS = ("pytest_timeout", "execnet", "asyncio-waitpid", "ThreadPoolExecutor-hypothesis")

settings.register_profile("ci", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "full", parent=settings.get_profile("ci"), max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "5000"))
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Watch the event loop of every async test; threads are looked for after the loop has let go of its own."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(_plain(item.obj)):
            item.fixturenames[:0] = ["_no_lost_threads", "_no_lost_tasks"]


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of the collections that look for what tests leave behind."""
    gc.collect()
    gc.freeze()


def _plain(function: object) -> object:
    """The test itself, below what Hypothesis wraps around it."""
    inner = getattr(function, "hypothesis", None)
    return getattr(inner, "inner_test", function)


@pytest_asyncio.fixture
async def _no_lost_tasks() -> AsyncIterator[None]:
    """Fail a test that leaves a task running, or an exception that nobody looked at."""
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    complaints: list[str] = []
    loop.set_exception_handler(
        lambda _, context: complaints.append(f"{context['message']}: {context.get('exception')!r}")
    )
    yield
    for _ in range(QUIET_TURNS):
        await asyncio.sleep(0)
    gc.collect()
    left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()]
    names = [repr(task.get_coro()) for task in left]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    loop.set_exception_handler(None)
    assert not names, f"tasks still running at the end of the test: {names}"
    assert not complaints, f"the event loop complained: {complaints}"


@pytest.fixture(autouse=True)
def _no_lost_threads() -> Iterator[None]:
    """Fail a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    left = [thread for thread in left if not thread.name.startswith(FOREIGN_THREADS)]
    for thread in left:
        thread.join(JOIN_S)
    names = [thread.name for thread in left if thread.is_alive()]
    assert not names, f"threads still running at the end of the test: {names}"

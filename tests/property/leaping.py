"""An event loop on a clock that leaps: an hour of waiting takes no time, and time passes only where all wait."""

import asyncio
import selectors
from collections.abc import Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any

from genesis_cache.testing.clock import FakeClock

THREAD_PAUSE_S = 0.01  # of real time: how long a turn waits for a thread that is at work


class _Leaping(selectors.DefaultSelector):  # type: ignore[misc,valid-type]  # which class that is depends on the system
    """A selector that moves the clock instead of waiting, unless a thread is at work."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        """What is ready; nothing, and so much later, where nothing is."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.threads or timeout is None:
            return super().select(THREAD_PAUSE_S)
        self.clock.advance(max(0.0, timeout or 0.0))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time` is the clock's, so that timers and the cache that is tested live in the same time."""

    def __init__(self, clock: FakeClock) -> None:
        self._leaping = _Leaping(clock)
        super().__init__(self._leaping)

    def time(self) -> float:
        """The clock's monotonic seconds."""
        return self._leaping.clock.now()

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> asyncio.Future[Any]:
        """As ever, and time stands still until the thread is done."""
        self._leaping.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: self._at_rest())
        return future

    def _at_rest(self) -> None:
        self._leaping.threads -= 1


def run(clock: FakeClock, main: Coroutine[Any, Any, Any], complaints: list[str]) -> Any:
    """Run to the end on a loop of its own; what is left of tasks, and what the loop complains of, is written down."""
    loop = VirtualLoop(clock)
    loop.set_exception_handler(lambda _, context: complaints.append(_told(context)))
    try:
        result = loop.run_until_complete(main)
        left: Sequence[asyncio.Task[Any]] = [task for task in asyncio.all_tasks(loop) if not task.done()]
        complaints += [f"left behind: {task}" for task in left]
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        return result
    finally:
        loop.close()


def _told(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r} in {context.get('future') or context.get('task')}"

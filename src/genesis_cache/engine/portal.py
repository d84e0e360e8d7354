"""The portal: an event loop in a thread, for callers that have none. Every blocking call of a cache goes there."""

import asyncio
import atexit
import concurrent.futures
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from genesis_cache.model.errors import CacheClosed, CacheError

T = TypeVar("T")

_portals: "weakref.WeakSet[Portal]" = weakref.WeakSet()


class Portal:
    """An event loop in a daemon thread, started at first use and again in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        """Held while work is handed in, so that `stop` ends all that was."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        _portals.add(self)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for what it brings or raises; CacheClosed where `stop` comes first."""
        if threading.current_thread() is self._thread:
            work.close()
            msg = "a blocking call inside the cache's own event loop would wait for itself: await the async verb there"
            raise CacheError(msg)
        with self._lock:
            loop = self._running()
            future = asyncio.run_coroutine_threadsafe(_contained(work), loop)
        try:
            result, leave = future.result()
        except BaseException as error:
            future.cancel()
            if isinstance(error, concurrent.futures.CancelledError) and self._loop is not loop:
                work.close()  # which may not even have begun
                msg = "this cache was closed while the call was under way: open() it again, or make a new one"
                raise CacheClosed(msg) from None
            raise
        if leave is not None:
            raise leave
        return result  # type: ignore[return-value]  # None only where there is something to raise

    def _running(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None and self._thread is not None and self._thread.is_alive():
            return loop
        with self._lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), name="genesis-cache", daemon=True
                )
                self._thread.start()
            return self._loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.close()

    def stop(self) -> None:
        """End the loop and its thread; the next `run` starts another. Nothing happens when called on that thread."""
        if threading.current_thread() is self._thread:
            return
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or not thread.is_alive():
                return
            loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=2.0)

    def forget(self) -> None:
        """In a forked child: the thread is not here."""
        self._lock = threading.RLock()
        self._loop = self._thread = None


async def _contained(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """What the work brings, or the exception that shall end the caller's thread and not the loop's."""
    try:
        return await work, None
    except (SystemExit, KeyboardInterrupt) as leave:
        return None, leave


@atexit.register
def _stop_all() -> None:
    for portal in list(_portals):
        portal.stop()

"""One event loop's way to a server: its store, opened at first use, and the tasks that use it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from genesis_cache.tiers.remote_base import RemoteStore

_CLOSE_PATIENCE_S = 1.0  # for a store that says goodbye to a server that does not answer


class Link:
    """A store for one event loop. Only that loop may use it, except for `forget`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], RemoteStore]) -> None:
        self.loop = loop
        self.store = make()
        self.is_open = False
        self._make = make
        self._opening: asyncio.Task[Exception | None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something behind its caller, which may be cancelled without harm to it."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ready(self) -> RemoteStore:
        """The store, open; raises what opening it raised, and the next call tries again."""
        while not self.is_open:
            if self._opening is None:
                self._opening = self.loop.create_task(self._open(self.store))
            error = await asyncio.shield(self._opening)
            if error is not None:
                raise error
        return self.store

    async def _open(self, store: RemoteStore) -> Exception | None:
        try:
            await store.open()
        except Exception as error:  # noqa: BLE001  # raised to everybody who waits for it, not to the loop
            return error
        else:
            if store is self.store:
                self.is_open = True
        finally:
            self._opening = None
        return None

    def replace(self) -> None:
        """Go on over new connections: those there are have lost their place."""
        self.spawn(_closed(self.store))
        self.store = self._make()
        self.is_open = False
        self._opening = None

    async def close(self) -> None:
        """End what is under way, and let go of the connections."""
        tasks = [task for task in (*self._tasks, self._opening) if task is not None and not task.done()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_PATIENCE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.closed()

    async def closed(self) -> None:
        """Let go of the connections, whatever is under way."""
        self.is_open = False
        await _closed(self.store)

    def forget(self) -> None:
        """Drop the connections without a word: the event loop has ended, or this is a forked child."""
        self.is_open = False
        self.store.forget()


async def _closed(store: RemoteStore) -> None:
    """Close a store, whatever the server thinks of it."""
    try:
        async with asyncio.timeout(_CLOSE_PATIENCE_S):
            await store.close()
    except Exception:  # noqa: BLE001  # a server that does not let go is left
        store.forget()

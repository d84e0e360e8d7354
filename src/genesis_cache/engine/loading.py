"""Loading: calling the user's loader, with its context, its deadline and its place among the others."""

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import msgspec

from genesis_cache.model.durations import seconds
from genesis_cache.model.errors import CacheError, LoaderTimeout
from genesis_cache.model.keys import tag_name
from genesis_cache.model.missing import MISSING


class LoadContext:
    """What a loader may know and say, if it takes one positional parameter.

    ``stale_value`` is the value being replaced (``MISSING`` where there is none), with its ``etag`` and
    ``last_modified`` (seconds since 1970) as an earlier load set them. Setting ``ttl`` (any duration; 0: not stored),
    ``etag``, ``last_modified`` or adding to ``tags`` shapes what is stored.
    """

    __slots__ = ("_ttl", "etag", "failure", "last_modified", "skipped", "stale_value", "tags", "unchanged")

    def __init__(self, stale_value: object, etag: str | None, last_modified: float | None) -> None:
        self.stale_value = stale_value
        self.etag = etag
        self.last_modified = last_modified
        self.tags: set[str] = set()
        self.skipped = False
        self.unchanged = False
        self.failure: str | None = None
        self._ttl: float | object | None = MISSING

    @property
    def ttl(self) -> Any:
        """The ttl this load asks for: seconds (0: not stored), None for ever, or ``MISSING``: it did not say."""
        return self._ttl

    @ttl.setter
    def ttl(self, value: object) -> None:
        self._ttl = seconds(value, zero=True)

    def not_modified(self) -> object:
        """Keep the old value, its times renewed; the loader returns this, or None. CacheError without an old one."""
        if self.stale_value is MISSING:
            msg = "not_modified() without a stale value: load the value when ctx.stale_value is MISSING"
            raise CacheError(msg)
        self.unchanged = True
        return self.stale_value

    def skip(self) -> None:
        """Return the value to those who wait, and store nothing."""
        self.skipped = True

    def fail(self, reason: str) -> None:
        """Count the load as failed without raising: an old value serves where one may, else CacheError(reason)."""
        self.failure = reason


class Load(msgspec.Struct, frozen=True):
    """A loader ready to be called: what to call, whether it is async, and whether it takes a `LoadContext`."""

    call: Callable[..., object]
    is_async: bool
    takes_context: bool
    annotation: object = MISSING
    is_stream: bool = False
    """Whether it feeds its callers while it runs: ``call`` then takes a `Feed` before the context."""


class Loaded(msgspec.Struct):
    """What one load brought. ``context`` is None where the loader did not take one."""

    value: object
    cost_s: float
    context: LoadContext | None


def load_of(loader: Any) -> Load:
    """A user's loader looked at; TypeError where it is none."""
    if not callable(loader):
        msg = f"a loader must be a function, got {type(loader).__name__}: pass the function, not its result"
        raise TypeError(msg)
    function, bound = (loader.__func__, 1) if isinstance(loader, MethodType) else (loader, 0)
    if isinstance(function, FunctionType):
        code = function.__code__
        required = code.co_argcount - bound - len(function.__defaults__ or ())
        return Load(loader, bool(code.co_flags & inspect.CO_COROUTINE), required == 1)
    return Load(loader, _is_async(loader), _required(loader) == 1)


def _is_async(loader: Callable[..., object]) -> bool:
    plain = loader.func if isinstance(loader, partial) else loader
    return inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(type(plain).__call__)


def _required(loader: Callable[..., object]) -> int:
    try:
        parameters = inspect.signature(loader).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


class Loader:
    """Runs loads: async ones in the calling task, plain ones in a thread, both within the load's own deadline."""

    def __init__(self, deadline_s: float, threads: int) -> None:
        self._deadline_s = deadline_s
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, load: Load, context: LoadContext) -> object:
        """The loader's value, its own error, or `LoaderTimeout` past the deadline."""
        arguments = (context,) if load.takes_context else ()
        try:
            async with asyncio.timeout(self._deadline_s) as limit:
                if load.is_async:
                    value = await _awaited(load.call(*arguments))
                else:
                    value = await self._in_thread(load.call, arguments)
                    if inspect.isawaitable(value):
                        value = await value
        except TimeoutError as error:
            if not limit.expired():
                raise
            msg = f"a loader ran longer than {self._deadline_s:g} s (CACHE_LOAD_DEADLINE) and was cancelled"
            raise LoaderTimeout(msg) from error
        if context.failure is not None:
            msg = f"the loader said that it failed: {context.failure}"
            raise CacheError(msg)
        return context.stale_value if context.unchanged and value is None else value

    async def _in_thread(self, call: Callable[..., object], arguments: tuple[object, ...]) -> object:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="genesis-cache-load")
        run = partial(contextvars.copy_context().run, _called, call, arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    def close(self) -> None:
        """Let the threads end when their loads do."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def forget(self) -> None:
        """In a forked child: the parent's threads are not here."""
        self._pool = None


def _called(call: Callable[..., object], arguments: tuple[object, ...]) -> object:
    """The call's result; what no future can carry is raised as what it is in a coroutine (PEP 479)."""
    try:
        return call(*arguments)
    except StopIteration as error:
        msg = "the loader raised StopIteration"
        raise RuntimeError(msg) from error


async def _awaited(value: object) -> object:
    return await value if isinstance(value, Awaitable) else value


def context_tags(context: LoadContext | None) -> tuple[str, ...]:
    """The tags a loader added, checked; InvalidKey for one that is none."""
    return () if context is None else tuple(sorted(tag_name(tag) for tag in context.tags))

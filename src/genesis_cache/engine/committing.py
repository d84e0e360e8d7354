"""Committing: changes of a cache that wait for a transaction of somebody's database, and happen only if that does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from genesis_cache.coherence.spreading import plain_tag
from genesis_cache.engine.core import View
from genesis_cache.engine.engine import Engine
from genesis_cache.model.keys import text_key
from genesis_cache.model.notice import Kind
from genesis_cache.model.outcome import Outcome
from genesis_cache.model.patterns import compile_pattern

DOUBT: tuple[type[BaseException], ...] = (asyncio.CancelledError, OSError)
"""Errors after which nobody knows whether the transaction was committed."""

Call = Callable[[], object]
Names = Mapping[Kind, Sequence[str]]


class Notes:
    """What is to be invalidated when a transaction has been committed.

    Verbs check their arguments at once and only take note. When the block ends all is done, in one order for each kind;
    when it ends with an error nothing is. After an error that leaves open whether the database has committed (being
    cancelled, a lost connection, those named as ``doubt``) it is done as well: to forget too much costs a load, to
    forget too little an old value.
    """

    __slots__ = ("_calls", "_doubt", "_engine", "_keys", "_names", "_view", "outcome")

    def __init__(self, engine: Engine, view: View, doubt: Iterable[type[BaseException]] = ()) -> None:
        self._engine = engine
        self._view = view
        self._doubt = (*DOUBT, *doubt)
        self.outcome: Outcome | None = None
        """What came of it; None before it was done, and where it was dropped."""
        self.drop()

    def delete(self, *keys: str) -> None:
        """As `Cache.delete`, after the commit."""
        self._keys.update((text_key(key), None) for key in keys)

    def delete_by_tag(self, *tags: str) -> None:
        """As `Cache.delete_by_tag`, after the commit."""
        self._names[Kind.TAG].update((plain_tag(tag), None) for tag in tags)

    def delete_by_pattern(self, pattern: str) -> None:
        """As `Cache.delete_by_pattern`, after the commit."""
        compile_pattern(pattern)
        self._names[Kind.PATTERN][pattern] = None

    def clear(self) -> None:
        """As `Cache.clear`, after the commit."""
        self._names[Kind.CLEAR][""] = None

    def then(self, call: Call) -> None:
        """Call this after the commit, behind all else; what it returns is awaited where that can be.

        For what has a verb of its own: ``changes.then(lambda: user.invalidate(7))``, or another view's
        ``changes.then(lambda: orders.delete("7"))``.
        """
        self._calls.append(call)

    def drop(self) -> None:
        """Forget what was noted, as after a rollback to a savepoint that all of it came after."""
        self._keys: dict[str, None] = {}
        self._names: dict[Kind, dict[str, None]] = {Kind.TAG: {}, Kind.PATTERN: {}, Kind.CLEAR: {}}
        self._calls: list[Call] = []

    def _taken(self) -> tuple[list[str], Names, list[Call]]:
        """What was noted, which is noted no more."""
        noted = list(self._keys), {kind: list(names) for kind, names in self._names.items()}, self._calls
        self.drop()
        return noted

    async def _invalidate(self, keys: Sequence[str], names: Names) -> list[Outcome]:
        engine, view = self._engine, self._view
        if not engine.core.opened:
            await engine.open()
        outcomes = [await engine.writing.delete(view, keys)] if keys else []
        return outcomes + [await engine.writing.kill(view, kind, some) for kind, some in names.items() if some]

    def _ended(self, told: Iterable[object], errors: Sequence[Exception]) -> Outcome:
        """The outcome of all that was done; the first error of it is raised."""
        owed = [tier for outcome in told if isinstance(outcome, Outcome) for tier in outcome.degraded]
        self.outcome = Outcome(tuple(dict.fromkeys(owed)))
        for error in errors:
            raise error
        return self.outcome

    def _happened(self, error: BaseException | None) -> bool:
        """Whether the transaction has been committed, or may have been."""
        return error is None or isinstance(error, self._doubt)


class Changes(Notes):
    """As `Notes`, around a transaction of async code; made by `Cache.after_commit`."""

    __slots__ = ()

    async def apply(self) -> Outcome:
        """Do now what was noted, for who learns of the commit by a callback; who leaves takes nothing back."""
        task: asyncio.Task[Any] = self._engine.background.spawn(self._done(*self._taken()))
        outcome: Outcome = await asyncio.shield(task)
        return outcome

    async def _done(self, keys: Sequence[str], names: Names, calls: Sequence[Call]) -> Outcome:
        told: list[object] = [*await self._invalidate(keys, names)]
        errors: list[Exception] = []
        for call in calls:
            try:
                answer = call()
                told.append(await answer if isinstance(answer, Awaitable) else answer)
            except Exception as error:  # noqa: BLE001  # the others have been committed as well
                errors.append(error)
        return self._ended(told, errors)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._happened(error):
            await self.apply()
        self.drop()


class BlockingChanges(Notes):
    """As `Notes`, around a transaction of plain code; made by `BlockingCache.after_commit`."""

    __slots__ = ()

    def apply(self) -> Outcome:
        """Do now what was noted, for who learns of the commit by a callback."""
        keys, names, calls = self._taken()
        told: list[object] = [*self._engine.portal.run(self._invalidate(keys, names))]
        errors: list[Exception] = []
        for call in calls:
            try:
                told.append(call())
            except Exception as error:  # noqa: BLE001  # the others have been committed as well
                errors.append(error)
        return self._ended(told, errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._happened(error):
            self.apply()
        self.drop()

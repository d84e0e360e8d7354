"""The log lines of hits, misses and trouble; whether anybody wants the frequent ones is known without asking per hit.

`logging` keeps, for each logger, a small dict of the levels it has decided on, and empties it whenever any level
anywhere changes. Ours tells us when that happens, so that a hit costs no call into `logging` while its level is off.
"""

import logging
import weakref
from collections.abc import Callable, Sequence

from genesis_cache.model import messages

logger = logging.getLogger("genesis_cache")
_watchers: "weakref.WeakSet[EventLog]" = weakref.WeakSet()


class _Levels(dict[int, bool]):
    def clear(self) -> None:
        super().clear()
        for watcher in list(_watchers):
            watcher.look_again()


class EventLog:
    """Writes log lines in the cache's language. ``hits`` and ``misses`` say whether those levels are on."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._out = False
        self.changed: Callable[[], None] | None = None
        self.hits = self.misses = False
        if type(getattr(logger, "_cache", None)) is dict:
            logger._cache = _Levels()  # type: ignore[attr-defined]  # noqa: SLF001  # see the module's docstring
        _watchers.add(self)
        self.look_again()

    def look_again(self) -> None:
        """Ask `logging` which of the frequent lines are wanted."""
        self.hits = logger.isEnabledFor(logging.INFO)
        self.misses = logger.isEnabledFor(logging.DEBUG)
        if self.changed is not None:
            self.changed()

    def hit(self, layer: str, key: str) -> None:
        """A hit, at INFO."""
        logger.info(messages.hit(self._language, layer, key), extra=_said("hit", layer=layer, key=key))

    def miss(self, key: str) -> None:
        """A miss in every tier, at DEBUG."""
        logger.debug(messages.miss(self._language, key), extra=_said("miss", key=key))

    def tier_down(self, kind: str, reason: str, working: Sequence[str]) -> None:
        """A tier went out of use: one WARNING until it is back, and why."""
        said = _said("tier_down", tier=kind, reason=reason)
        logger.warning(messages.tier_down(self._language, kind, working), extra=said)
        logger.warning(messages.tier_error(self._language, kind, reason), extra=said)

    def tier_up(self, kind: str) -> None:
        """A tier is in use again, at INFO."""
        logger.info(messages.tier_up(self._language, kind), extra=_said("tier_up", tier=kind))

    def evicted(self, layer: str, key: str, reason: str) -> None:
        """An entry left to make room, at DEBUG."""
        if self.misses:
            said = _said("evict", layer=layer, key=key, reason=reason)
            logger.debug(messages.evicted(self._language, layer, key, reason), extra=said)

    def load_failed(self, key: str, error: BaseException) -> None:
        """A loader failed, at WARNING."""
        reason = type(error).__name__
        said = _said("load_failed", key=key, reason=reason)
        logger.warning(messages.load_failed(self._language, key, reason), extra=said)


def _said(event: str, **parts: str) -> dict[str, str]:
    """The same as fields of the record, the same in every language: ``cache_event``, and those of its parts."""
    fields = {f"cache_{name}": messages.escaped(value) for name, value in parts.items()}
    return {"cache_event": event, **fields}

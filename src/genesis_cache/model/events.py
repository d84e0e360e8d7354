"""Events: who wants to be told what, and the telling, which never raises into the cache."""

import logging
import threading
from collections.abc import Callable, Mapping

Callback = Callable[[Mapping[str, object]], object]

EVENTS = ("hit", "miss", "stale", "load", "evict", "expire", "invalidate", "tier_down", "tier_up")

_logger = logging.getLogger("genesis_cache")


class EventHub:
    """Listeners by event; safe from any thread.

    A callback is called with one mapping: ``event`` and what belongs to it (``key``, ``layer``, ``reason``, …). It runs
    where the event happens, so it must be quick; one that raises is logged the first time and counted in ``failures``.
    """

    __slots__ = ("_failed", "_listeners", "_lock", "changed", "failures")

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[Callback, ...]] = {}
        self._lock = threading.Lock()
        self._failed: set[int] = set()
        self.failures = 0
        self.changed: Callable[[], None] | None = None
        """Called, where set, after listeners came or went."""

    def on(self, event: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` at each ``event``; returns its own undoing. ValueError for an event there is not."""
        if event not in EVENTS:
            msg = f"there is no event {event!r}: use one of {', '.join(EVENTS)}"
            raise ValueError(msg)
        call: object = callback
        if not callable(call):
            msg = f"a callback must be callable, got {type(callback).__name__}"
            raise TypeError(msg)

        def listener(fields: Mapping[str, object]) -> object:  # one of its own, so that undoing removes no other
            return callback(fields)

        with self._lock:
            self._listeners[event] = (*self._listeners.get(event, ()), listener)
        self._tell_changed()
        return lambda: self._remove(event, listener)

    def _remove(self, event: str, listener: Callback) -> None:
        with self._lock:
            left = tuple(one for one in self._listeners.get(event, ()) if one is not listener)
            if left:
                self._listeners[event] = left
            else:
                self._listeners.pop(event, None)
            self._failed.discard(id(listener))
        self._tell_changed()

    def _tell_changed(self) -> None:
        if self.changed is not None:
            self.changed()

    def wants(self, event: str) -> bool:
        """Whether anybody listens to an event."""
        return event in self._listeners

    def emit(self, event: str, **fields: object) -> None:
        """Tell those who listen. Never raises."""
        listeners = self._listeners.get(event)
        if listeners is None:
            return
        told = {"event": event, **fields}
        for listener in listeners:
            try:
                listener(told)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the listener's, not the cache's
                self._count_failure(event, listener, error)

    def _count_failure(self, event: str, listener: Callback, error: Exception) -> None:
        with self._lock:
            self.failures += 1
            first = id(listener) not in self._failed
            self._failed.add(id(listener))
        if first:
            _logger.error(
                "a callback for %r raised; it stays on, further failures are only counted", event, exc_info=error
            )

"""Reads of one event loop: all of a tick travel as one batch, each caller waits for no longer than its budget.

A batch runs in a task of its own, so that a caller that is cancelled takes nothing from the others. Past the budget all
its callers are told that the reply is late, and the server is suspect until the reply is there. One timer watches the
oldest batch, so that a batch that is answered in time costs none.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from genesis_cache.codecs.envelope import intact, matches
from genesis_cache.model.keys import Address
from genesis_cache.tiers.base import Answer, Buffer, Late
from genesis_cache.tiers.remote_base import RemoteStore
from genesis_cache.tiers.remote_health import Health, Unanswered
from genesis_cache.tiers.remote_link import Link
from genesis_cache.tiers.remote_log import RemoteLog

MAX_IN_FLIGHT = 8
"""Batches of one event loop on their way at the same time; beyond, reads gather in the next."""
MAX_BATCH = 64
"""Keys in a batch, so that a reply never holds the event loop for long."""

_BUDGETS_AT_MOST = 4  # for a batch that waits behind others which are being answered
_STALL_S = 0.01  # a timer that is later than this says that the event loop was held up, not the server


class Faults:
    """Replies of a server that could not be believed."""

    __slots__ = ("damaged", "swapped")

    def __init__(self) -> None:
        self.damaged = 0
        """Envelopes that are not whole."""
        self.swapped = 0
        """Replies that belong to another address."""


class _Batch:
    """Reads that travel together, in the order asked."""

    __slots__ = ("addresses", "answers", "due", "given_up", "has_begun", "latest", "number", "task", "timer")

    def __init__(self, number: int, due: float, latest: float) -> None:
        self.number = number
        self.latest = latest
        """When its budget is over whatever the server does meanwhile."""
        self.addresses: list[Address] = []
        self.answers: list[asyncio.Future[Answer]] = []
        self.due = due
        self.given_up = False
        self.has_begun = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None  # of a late batch: when it is given up


class Reads:
    """What one event loop reads from a server."""

    def __init__(
        self,
        link: Link,
        health: Health,
        log: RemoteLog,
        faults: Faults,
        budget_s: float,
        timeout_s: float,
        in_flight: int,
    ) -> None:
        self._link = link
        self._log = log
        self._health = health
        self._faults = faults
        self._budget_s = budget_s
        self._timeout_s = timeout_s
        self._most = in_flight
        self._future = link.loop.create_future
        self._time = link.loop.time
        self._gathering: _Batch | None = None
        self._waiting: deque[_Batch] = deque()
        self._flying: set[_Batch] = set()
        self._in_time: dict[_Batch, None] = {}  # those whose budget is not over, the oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._is_graced = False
        self._begun = 0
        self._answered = 0  # the highest number of a batch that was answered

    def get(self, address: Address) -> asyncio.Future[Answer]:
        """The checked envelope, None, or `Late`: a future of the caller's own."""
        batch = self._gathering
        if batch is None or len(batch.addresses) >= MAX_BATCH:
            batch = self._gather()
        future: asyncio.Future[Answer] = self._future()
        batch.addresses.append(address)
        batch.answers.append(future)
        return future

    def _gather(self) -> _Batch:
        self._begun += 1
        now = self._time()
        batch = self._gathering = _Batch(self._begun, now + self._budget_s, now + _BUDGETS_AT_MOST * self._budget_s)
        self._in_time[batch] = None
        if self._timer is None:
            self._timer = self._link.loop.call_at(batch.due, self._look)
        if len(self._flying) < self._most:
            self._start(batch)
        else:
            self._waiting.append(batch)
        return batch

    def _start(self, batch: _Batch) -> None:
        """The task's first step comes after all that this tick still asks for."""
        self._flying.add(batch)
        batch.task = self._link.loop.create_task(self._run(batch))

    async def _run(self, batch: _Batch) -> None:
        batch.has_begun = True
        if self._gathering is batch:
            self._gathering = None
        link = self._link
        store = link.store
        replies: Sequence[Buffer | None] | None = None
        try:
            if not link.is_open:
                store = await link.ready()
            if len(batch.addresses) == 1:
                replies = self._checked(batch.addresses, (await store.get(batch.addresses[0]),))
            else:
                replies = self._checked(batch.addresses, await _get_many(store, batch.addresses))
        except asyncio.CancelledError:
            if not batch.given_up:
                raise
        except Exception as error:  # noqa: BLE001  # whatever it is, callers never see it
            if store is link.store:
                self._health.read_failed(error)
        finally:
            self._end(batch, replies)

    def _end(self, batch: _Batch, replies: Sequence[Buffer | None] | None) -> None:
        self._flying.discard(batch)
        self._in_time.pop(batch, None)
        if batch.timer is not None:
            batch.timer.cancel()
            batch.timer = None
        if replies is None:
            _settle_none(batch.answers)
        else:
            self._answered = max(self._answered, batch.number)
            for answer, reply in zip(batch.answers, replies, strict=True):
                if not answer.done():
                    answer.set_result(reply)
            if self._in_time:
                self._put_off()
            if self._health.is_suspect:
                self._health.trust()
        while self._waiting and len(self._flying) < self._most:
            self._start(self._waiting.popleft())

    def _checked(self, addresses: Sequence[Address], replies: Sequence[Buffer | None]) -> list[Buffer | None]:
        """Each reply that is whole and its caller's own; else None, and new connections if one was another's.

        None too for all that comes before callers know that the log is another one: it may be of the past.
        """
        if not self._log.is_told:
            return [None] * len(replies)
        faults = self._faults
        has_lost_place = False
        sound: list[Buffer | None] = []
        for address, reply in zip(addresses, replies, strict=True):
            if reply is None:
                sound.append(None)
            elif not matches(reply, address.digest):
                faults.swapped += 1
                has_lost_place = True
                sound.append(None)
            elif not intact(reply):
                faults.damaged += 1
                sound.append(None)
            else:
                sound.append(reply)
        if has_lost_place:
            self._link.replace()
        return sound

    # -- budgets ------------------------------------------------------------------------------------------------

    def _put_off(self) -> None:
        """The server has just answered a batch, so it is not the one that keeps the others waiting: they wait on."""
        due = self._time() + self._budget_s
        for batch in self._in_time:
            batch.due = min(due, batch.latest)

    def _look(self) -> None:
        """Find those whose budget is over; look again when that of the next is."""
        now = self._time()
        oldest = next(iter(self._in_time), None)
        if oldest is not None and not self._is_graced and now - oldest.due > _STALL_S:
            self._is_graced = True  # once, so that the loop can first take in what is there already
            self._timer = self._link.loop.call_at(now + _STALL_S, self._look)
            return
        self._is_graced = False
        self._timer = None
        for batch in [batch for batch in self._in_time if batch.due <= now]:
            if batch in self._in_time:
                self._late(batch)
        if self._in_time:
            self._timer = self._link.loop.call_at(next(iter(self._in_time)).due, self._look)

    def _late(self, batch: _Batch) -> None:
        """The budget is over: callers go on, and the reply is waited for behind them."""
        if not batch.has_begun:
            self._drop(batch)
            return
        del self._in_time[batch]
        patience_s = max(self._timeout_s - self._budget_s, 0.0)
        batch.timer = self._link.loop.call_later(patience_s, self._give_up, batch)
        rests: list[asyncio.Future[Answer]] = []
        for answer in batch.answers:
            if not answer.done():
                rest: asyncio.Future[Buffer | None] = self._future()
                answer.set_result(Late(rest))
                answer = rest  # type: ignore[assignment]  # noqa: PLW2901  # what is still to come is never Late again
            rests.append(answer)
        batch.answers = rests
        self._health.suspect()
        for waiting in list(self._waiting):
            self._drop(waiting)

    def _give_up(self, batch: _Batch) -> None:
        """No reply within the timeout: its connection is dropped, and the server is down unless others got through."""
        batch.timer = None
        batch.given_up = True
        if batch.task is not None:
            batch.task.cancel()
        if self._answered < batch.number:
            self._health.read_failed(Unanswered(f"no answer to a read within {self._timeout_s:g} s"))

    def _drop(self, batch: _Batch) -> None:
        """A batch that was not sent: its callers go on without."""
        if self._gathering is batch:
            self._gathering = None
        if batch in self._waiting:
            self._waiting.remove(batch)
        self._end(batch, None)

    async def close(self) -> None:
        """Let no reader wait any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for batch in list(self._waiting):
            self._drop(batch)
        flying = [batch for batch in self._flying if batch.task is not None]
        for batch in flying:
            batch.given_up = True
            if batch.has_begun and batch.task is not None:
                batch.task.cancel()
        await asyncio.gather(*(batch.task for batch in flying if batch.task is not None), return_exceptions=True)


async def _get_many(store: RemoteStore, addresses: list[Address]) -> list[Buffer | None]:
    """Replies in the order asked; a key that was asked for twice travels once."""
    places = {address.digest: address for address in addresses}
    if len(places) == len(addresses):
        return await store.get_many(addresses)
    replies = dict(zip(places, await store.get_many(list(places.values())), strict=True))
    return [replies[address.digest] for address in addresses]


def _settle_none(answers: Sequence[asyncio.Future[Answer]]) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_result(None)

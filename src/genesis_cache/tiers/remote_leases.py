"""Leases that this process has on a server: asked for on the caller's event loop, renewed by the tier's own thread.

Each has a random token, so that nobody gives back, or keeps alive, what has passed to somebody else.
"""

import asyncio
import secrets
import threading

import msgspec

from genesis_cache.model.clock import Clock
from genesis_cache.model.keys import Address
from genesis_cache.tiers.remote_base import RemoteStore
from genesis_cache.tiers.remote_health import Health
from genesis_cache.tiers.remote_link import Link
from genesis_cache.tiers.remote_log import RemoteLog

TOKEN_BYTES = 16

_LIVES_S = 0.5  # since the last proof that the log is heard: so long a server that answers late is slow, not dead
_SLOW_S = 2.0  # for a slow server; two processes that load one key cost more than a wait


class Lease(msgspec.Struct, eq=False):
    """One lease asked for or held."""

    address: Address
    token: bytes
    asked_at: float
    is_granted: bool = False


class Leases:
    """All leases of a tier in this process. Safe from any thread.

    ``lease_s`` is how long the server keeps one that is not renewed; ``longest_s`` how long one is renewed at most, so
    that a load that was lost does not block its key for ever.
    """

    def __init__(self, clock: Clock, lease_s: float, longest_s: float) -> None:
        self.lease_s = lease_s
        self._longest_s = longest_s
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """In a forked child: the leases are the parent's."""
        self._table: dict[bytes, Lease] = {}
        self._guard = threading.Lock()

    def now(self) -> float:
        """Monotonic seconds of the cache's clock."""
        return self._clock.now()

    def begin(self, address: Address) -> Lease | None:
        """A lease to be asked for; None where this process has it, or is asking."""
        now = self._clock.now()
        with self._guard:
            held = self._table.get(address.digest)
            if held is not None and now - held.asked_at < self._longest_s:
                return None
            lease = self._table[address.digest] = Lease(address, secrets.token_bytes(TOKEN_BYTES), now)
        return lease

    def grant(self, lease: Lease) -> bool:
        """The server gave it; False if it is not wanted any longer and has to be given back."""
        with self._guard:
            lease.is_granted = self._table.get(lease.address.digest) is lease
            return lease.is_granted

    def drop(self, lease: Lease) -> None:
        """The server did not give it, or has given it to somebody else."""
        with self._guard:
            if self._table.get(lease.address.digest) is lease:
                del self._table[lease.address.digest]

    def end(self, address: Address) -> Lease | None:
        """The lease to give back; None where there is none, or its answer is still to come."""
        with self._guard:
            lease = self._table.pop(address.digest, None)
        return lease if lease is not None and lease.is_granted else None

    def is_held(self, lease: Lease) -> bool:
        """Whether it was granted and not given back."""
        with self._guard:
            return self._table.get(lease.address.digest) is lease

    def held(self) -> list[Lease]:
        """Those to be renewed now."""
        with self._guard:
            held = [lease for lease in self._table.values() if lease.is_granted]
        now = self._clock.now()
        for lease in held:
            if now - lease.asked_at >= self._longest_s:
                self.drop(lease)
        return [lease for lease in held if now - lease.asked_at < self._longest_s]


class LeaseDesk:
    """Where one event loop asks for leases and gives them back."""

    def __init__(
        self, link: Link, health: Health, leases: Leases, log: RemoteLog, budget_s: float, timeout_s: float
    ) -> None:
        self._link = link
        self._health = health
        self._leases = leases
        self._log = log
        self._budget_s = budget_s
        self._timeout_s = timeout_s

    def lease(self, address: Address) -> bool | asyncio.Future[bool]:
        """Whether this process may load the key.

        True too where the server does not say so within the budget, unless it is known to be slow and not dead: then it
        is waited for a little longer.
        """
        if (lease := self._leases.begin(address)) is None:
            return False
        loop = self._link.loop
        answer: asyncio.Future[bool] = loop.create_future()
        loop.call_later(self._budget_s, self._look, answer, loop.time() + max(self._budget_s, _SLOW_S))
        self._link.spawn(self._ask(lease, answer))
        return answer

    def _look(self, answer: asyncio.Future[bool], latest: float) -> None:
        """A budget is over."""
        loop = self._link.loop
        if answer.done():
            return
        if loop.time() < latest and self._is_slow():
            loop.call_later(self._budget_s, self._look, answer, latest)
        else:
            answer.set_result(True)

    def _is_slow(self) -> bool:
        """Whether the server is known to live."""
        heard_at = self._log.heard_at
        return not self._health.is_shut and heard_at is not None and self._leases.now() < heard_at + _LIVES_S

    async def _ask(self, lease: Lease, answer: asyncio.Future[bool]) -> None:
        may_load = True
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await self._link.ready()
                may_load = await store.lease(lease.address, lease.token, self._leases.lease_s)
            await self._settled(lease, answer, store, is_granted=may_load)
        except Exception:  # noqa: BLE001  # a load is never held up by a server that fails
            self._health.errors += 1
            self._leases.drop(lease)
        finally:
            if not answer.done():
                answer.set_result(may_load)

    async def _settled(
        self, lease: Lease, answer: asyncio.Future[bool], store: RemoteStore, *, is_granted: bool
    ) -> None:
        if not is_granted:
            self._leases.drop(lease)
        elif answer.cancelled() or not self._leases.grant(lease):
            self._leases.drop(lease)
            await store.release(lease.address, lease.token)

    def release(self, lease: Lease) -> None:
        """Give one back, behind the caller."""
        self._link.spawn(self._release(lease))

    async def _release(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                store = await self._link.ready()
                await store.release(lease.address, lease.token)
        except Exception:  # noqa: BLE001  # the server ends it by itself when it is not renewed
            self._health.errors += 1

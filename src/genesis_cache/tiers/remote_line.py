"""Everything that one event loop has to do with a server: its connections, reads, changes and leases."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable

from genesis_cache.codecs.envelope import intact, matches
from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.tiers.base import Kept
from genesis_cache.tiers.remote_base import RemoteStore
from genesis_cache.tiers.remote_commits import Commits
from genesis_cache.tiers.remote_health import Health
from genesis_cache.tiers.remote_leases import TOKEN_BYTES, LeaseDesk, Leases
from genesis_cache.tiers.remote_link import Link
from genesis_cache.tiers.remote_log import RemoteLog
from genesis_cache.tiers.remote_reads import MAX_IN_FLIGHT, Faults, Reads

SHORT_S = 1.0
NOWHERE = address_of(scope_of("", "", None), "nowhere")  # no cache has an empty name


class Line:
    """One event loop's part of a tier."""

    def __init__(
        self,
        make: Callable[[], RemoteStore],
        health: Health,
        log: RemoteLog,
        leases: Leases,
        faults: Faults,
        *,
        budget_s: float,
        timeout_s: float,
        max_connections: int,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._health = health
        self._link = link = Link(self.loop, make)
        in_flight = max(1, min(MAX_IN_FLIGHT, max_connections // 2))  # the rest is for changes and leases
        self.reads = Reads(link, health, log, faults, budget_s, timeout_s, in_flight)
        self.commits = Commits(link, health, log, timeout_s)
        self.desk = LeaseDesk(link, health, leases, log, budget_s, timeout_s)

    async def warm(self, limit_s: float) -> None:
        """Connect before the first use, by a read and a lease of nothing; where that fails, say so.

        A load needs both, at once. A busy server takes longer to make the connections for them than a reader waits, and
        a server that is late is not asked for a lease.
        """
        try:
            async with asyncio.timeout(limit_s):
                await self._ask_for_nothing()
        except Exception as error:  # noqa: BLE001  # tried again at each use
            self._health.read_failed(error)

    async def _ask_for_nothing(self) -> None:
        store = await self._link.ready()
        token = secrets.token_bytes(TOKEN_BYTES)
        asked = (store.get(NOWHERE), store.lease(NOWHERE, token, SHORT_S))
        read, is_granted = await asyncio.gather(*asked, return_exceptions=True)
        if isinstance(read, BaseException):
            raise read
        if is_granted is True:  # no error either: a server that takes no writes is in use all the same
            await store.release(NOWHERE, token)

    async def kept(self, address: Address, budget_s: float, timeout_s: float) -> Kept | None:
        """As `Keeper.kept`; a reply that comes late is let go."""
        asking = self.loop.create_task(self._kept(address, timeout_s))
        done, _ = await asyncio.wait({asking}, timeout=budget_s)
        return asking.result() if done else None

    async def _kept(self, address: Address, timeout_s: float) -> Kept | None:
        try:
            async with asyncio.timeout(timeout_s):
                store = await self._link.ready()
                kept = await store.kept(address)
        except Exception:  # noqa: BLE001  # whatever it is, callers never see it
            self._health.errors += 1
            return None
        is_sound = kept is not None and matches(kept.envelope, address.digest) and intact(kept.envelope)
        return kept if is_sound else None

    async def close(self, limit_s: float) -> None:
        """Write what is queued, for so long at most, end everything else, let go of the connections."""
        await self.reads.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.commits.close()
        await self._link.close()

    def abandon(self) -> None:
        """The event loop has ended: others write what it left, and its connections are dropped."""
        self.commits.abandon()
        self._link.forget()

    def forget(self) -> None:
        """In a forked child: drop the connections, without a word."""
        self._link.forget()

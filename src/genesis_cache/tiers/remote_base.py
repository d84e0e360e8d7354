"""What a server behind a far tier is: `RemoteStore`, plain asynchronous verbs over one event loop's connections.

`RemoteTier` owns everything that is the same for all servers: batches of a loop tick, budgets, deadlines, the breaker,
the copy of the log in this process. A remote store knows only how its server is asked.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from genesis_cache.model.finding import Finding
from genesis_cache.model.keys import Address
from genesis_cache.model.notice import Notice, Position
from genesis_cache.tiers.base import Buffer, Change, Found, Kept, Receipt, StoreError, StoreStats

__all__ = ["Committed", "Cut", "Joined", "Outage", "RemoteStore"]


class Outage(StoreError):
    """A server cannot serve now. The message is one plain sentence for the owner of the cache, without secrets.

    Refused or lost connections, a wrong version or role, NOAUTH, OOM, READONLY, LOADING: all of them.
    """


class Cut(Outage):
    """The connection ended in the middle of a call: what became of it is not known, and the server may well be there.

    A load balancer, an administrator or a restarted proxy ends single connections; only what fails again is down.
    """


class Committed(msgspec.Struct, frozen=True, gc=False):
    """What became of a batch of changes, and which log gave the sequences."""

    epoch: int
    receipts: list[Receipt]


class Joined(msgspec.Struct, frozen=True, gc=False):
    """Where a log stands, and the TAG, PATTERN and CLEAR notices that may still matter to an entry."""

    position: Position
    floors: list[Notice]


class RemoteStore(Protocol):
    """One event loop's connections to a server and what is stored there under one cache name.

    Every method may raise `Outage`; the object can be used again afterwards and connects by itself. A call that is
    cancelled or runs out of time gives up its connection: an unread reply is never left for the next caller. Methods
    may run at the same time, up to the bound of the pool, beyond which they wait.
    """

    async def open(self) -> None:
        """Connect, check the server's version and role, make or migrate what is needed there."""

    async def close(self) -> None:
        """Let go of the connections; safe to call twice."""

    def forget(self) -> None:
        """In a forked child, or after the event loop has ended: drop the connections without a word to the server."""

    async def get(self, address: Address) -> Buffer | None:
        """One stored envelope, in one round trip, as fast as the client can; None past its ``gone_at``."""

    async def get_many(self, addresses: Sequence[Address]) -> list[Buffer | None]:
        """Stored envelopes in the order asked, in one round trip (one for each node of a cluster, at the same time)."""

    async def kept(self, address: Address) -> Kept | None:
        """One stored envelope and what the server's books say against it, as of one moment.

        None where there is none, or where the books do not tell.
        """

    async def commit(self, changes: Sequence[Change], epoch: int) -> Committed:
        """Apply changes in order: value or deletion, sequence and log entry of each change atomically.

        ``epoch`` is the log that the caller knows, 0 for none: a `Put` with ``since`` is refused in any other log, and
        if its key was changed after that sequence. A batch of any size is taken; large ones may be cut.
        """

    async def lease(self, address: Address, token: bytes, ttl_s: float) -> bool:
        """Become, or stay, the holder of a key's lease for so long; False while another token has it."""

    async def release(self, address: Address, token: bytes) -> None:
        """Give a lease back, if the token still has it."""

    async def join(self, known: Position | None) -> Joined:
        """The log as it stands, made if there is none. Called at each new connection of whoever follows it.

        Checks that the server is the one whose log was ``known``: where it was restarted, replaced by a replica,
        emptied, or set back (its sequence is below the known one, or books that belong together are not all there),
        the log gets a new epoch, once for all processes.
        """

    async def follow(self, after: Position, wait_s: float) -> list[Notice] | None:
        """Wait up to so long for notices after a position; as soon as there are some, all of them in order.

        An empty list proves that there were none and that the log is still the same. None: the log is another one, or
        no longer reaches back so far: join again.
        """

    async def sweep(self, budget_s: float) -> int:
        """Remove what expired and bring the size within its bound, in small paced steps; how many entries went."""

    async def scan(self, limit: int) -> list[Found]:
        """Up to so many living envelopes, in small steps."""

    async def stats(self) -> StoreStats:
        """The figures: counted by the server's own books, or by the last sweep where the server keeps none."""

    async def check(self) -> list[str]:
        """Verify the books on the server against what is stored; a sentence for each fault. For tests: may be slow."""

    async def diagnose(self) -> list[Finding]:
        """What an operator should know of this server: version, memory policy, limits, clock, latency, each judged."""

"""The half of a Redis store that is the same on a server and on a cluster: its log, its size, its examination."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from genesis_cache.model.clock import Clock
from genesis_cache.model.finding import Finding
from genesis_cache.model.keys import Address
from genesis_cache.model.notice import Notice, Position
from genesis_cache.tiers.base import Buffer, Found, Kept, StoreStats
from genesis_cache.tiers.redis.commits import HEAD_BYTES
from genesis_cache.tiers.redis.diagnosing import diagnose
from genesis_cache.tiers.redis.examining import check, scan
from genesis_cache.tiers.redis.log import Log
from genesis_cache.tiers.redis.names import Names
from genesis_cache.tiers.redis.server import Endpoint, Server
from genesis_cache.tiers.redis.sweeping import Sweeper
from genesis_cache.tiers.remote_base import Joined

_COPIED_BYTES = 16384  # a reply up to this is copied without its head; of a larger one a view is given


class Upkeep(ABC):
    """What is said in the same words to a server and to a cluster."""

    _server: Endpoint
    _names: Names
    _log: Log
    _sweeper: Sweeper
    _clock: Clock

    async def kept(self, address: Address) -> Kept | None:  # noqa: ARG002  # whatever it is, nothing outlives the log
        """As `RemoteStore.kept`: the books of Redis are the log itself."""
        return None

    @abstractmethod
    async def _nodes(self) -> Sequence[Server]:
        """The servers that have values."""

    async def join(self, known: Position | None) -> Joined:
        """As `RemoteStore.join`."""
        return await self._log.join(known)

    async def follow(self, after: Position, wait_s: float) -> list[Notice] | None:
        """As `RemoteStore.follow`."""
        return await self._log.follow(after, wait_s)

    async def sweep(self, budget_s: float) -> int:
        """As `RemoteStore.sweep`."""
        return await self._sweeper.sweep(budget_s)

    async def scan(self, limit: int) -> list[Found]:
        """As `RemoteStore.scan`."""
        return await scan(await self._nodes(), self._names, limit)

    async def stats(self) -> StoreStats:
        """As `RemoteStore.stats`."""
        return await self._sweeper.stats()

    async def check(self) -> list[str]:
        """As `RemoteStore.check`."""
        return await check(self._server, self._nodes, self._names)

    async def diagnose(self) -> list[Finding]:
        """As `RemoteStore.diagnose`."""
        return await diagnose(self._nodes, self._names, self._clock)


def envelope_of(reply: object) -> Buffer | None:
    """The envelope in a stored value; None for none, or for something that is no value of ours."""
    if type(reply) is not bytes or len(reply) < HEAD_BYTES:
        return None
    return reply[HEAD_BYTES:] if len(reply) < _COPIED_BYTES else memoryview(reply)[HEAD_BYTES:]

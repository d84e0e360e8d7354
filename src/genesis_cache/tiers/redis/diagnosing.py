"""What an operator should know of a Redis server: each thing examined, judged, and told with its remedy."""

from genesis_cache.model.clock import Clock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.tiers.redis.connection import pack
from genesis_cache.tiers.redis.log import info_of
from genesis_cache.tiers.redis.server import Endpoint
from genesis_cache.tiers.redis.sweeping import Nodes


async def diagnose(server: Endpoint, nodes: Nodes, clock: Clock) -> list[Finding]:
    """As `RemoteStore.diagnose`."""
    info = info_of(server.checked(await server.read(pack(("INFO", "server")))))
    return [Finding("redis: version", Severity.OK, f"Redis at {server.shown} is version {info['redis_version']}.")]

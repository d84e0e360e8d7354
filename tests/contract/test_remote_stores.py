"""Redis (alone, as a cluster) and PostgreSQL (logged, unlogged, pooled) keep the contract of remote stores."""

from tests.contract.remote_servers import ClusterHooks, PostgresHooks, RedisHooks, RestartedRedisHooks

from genesis_cache.model.clock import Clock
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.remote_life import ConnectionsContract, EpochContract
from genesis_cache.testing.remote_stores import RemoteStoreContract
from genesis_cache.tiers.postgres.store import postgres_store
from genesis_cache.tiers.redis.store import redis_store
from genesis_cache.tiers.remote_base import RemoteStore


class RedisMade(RedisHooks):
    def make_store(self, cache_name: str, capacity_bytes: int, clock: Clock) -> RemoteStore:
        settings = CacheSettings(redis_url=self.server.url, cache_name=cache_name, redis_max_connections=8)
        return redis_store(settings, capacity_bytes, clock)()


class ClusterMade(ClusterHooks):
    def make_store(self, cache_name: str, capacity_bytes: int, clock: Clock) -> RemoteStore:
        settings = CacheSettings(redis_url=self.cluster.url, cache_name=cache_name, redis_max_connections=8)
        return redis_store(settings, capacity_bytes, clock)()


class PostgresMade(PostgresHooks):
    query = ""

    def make_store(self, cache_name: str, capacity_bytes: int, clock: Clock) -> RemoteStore:
        settings = CacheSettings(
            database_url=self.server.url + self.query, cache_name=cache_name, redis_max_connections=8
        )
        return postgres_store(settings, capacity_bytes, clock)()


class TestRedis(RedisMade, RemoteStoreContract):
    """One server."""


class TestRedisRestarted(RestartedRedisHooks, RedisMade, EpochContract, ConnectionsContract):
    """One server that is restarted empty, or set back while it runs."""


class TestCluster(ClusterMade, RemoteStoreContract):
    """Three nodes."""


class TestPostgres(PostgresMade, RemoteStoreContract):
    """Logged tables."""


class TestUnloggedPostgres(PostgresMade, RemoteStoreContract):
    """Tables that a crash empties."""

    query = "?logged=false"


class TestPooledPostgres(PostgresMade, RemoteStoreContract):
    """No prepared statements, no session state."""

    query = "?pooler=transaction"

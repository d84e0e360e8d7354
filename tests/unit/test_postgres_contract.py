"""The contract of remote stores, over PostgreSQL with logged and with unlogged tables."""

from typing import Any, ClassVar

import asyncpg
import pytest

from genesis_cache.model.clock import Clock
from genesis_cache.model.settings import CacheSettings
from genesis_cache.testing.remote_stores import RemoteStoreContract
from genesis_cache.tiers.postgres.schema import cache_id
from genesis_cache.tiers.postgres.store import postgres_store
from genesis_cache.tiers.remote_base import RemoteStore

TABLES = ("control", "entries", "log", "floors")


class PostgresContract(RemoteStoreContract):
    """How a PostgreSQL server is hurt: by SQL, in the schema of these tests."""

    parameters: ClassVar[str]
    prefix: ClassVar[str] = ""
    schema: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _place(self, postgres_url: str) -> None:
        self.direct_url = postgres_url
        self.url = f"{postgres_url}?schema={self.schema}&{self.parameters}"

    def make_store(self, cache_name: str, capacity_bytes: int, clock: Clock) -> RemoteStore:
        printable = "".join(filter(str.isprintable, cache_name))  # as the settings want it
        settings = CacheSettings(database_url=self.url, cache_name=printable)
        return postgres_store(settings, capacity_bytes, clock)()

    async def sql(self, *statements: str) -> None:
        connection: Any = await asyncpg.connect(self.direct_url)
        try:
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement.format(s=self.schema, u=self.prefix))
        finally:
            await connection.close()

    async def lose_everything(self) -> None:
        await self.sql("DROP SCHEMA {s} CASCADE")

    async def save(self) -> None:
        await self.sql("DROP SCHEMA IF EXISTS {s}_saved CASCADE", "CREATE SCHEMA {s}_saved")
        for table in TABLES:
            await self.sql(f"CREATE TABLE {{s}}_saved.{table} AS TABLE {{s}}.{{u}}{table}")

    async def set_back(self) -> None:
        restore = [f"INSERT INTO {{s}}.{{u}}{table} TABLE {{s}}_saved.{table}" for table in TABLES]
        await self.sql("TRUNCATE {s}.{u}control, {s}.{u}entries, {s}.{u}log, {s}.{u}floors", *restore)

    async def cut_connections(self) -> None:
        await self.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    async def trim_log(self, cache_name: str) -> None:
        number = cache_id(cache_name)
        await self.sql(
            f"DELETE FROM {{s}}.{{u}}log WHERE cache = {number}",  # noqa: S608  # a number
            f"UPDATE {{s}}.{{u}}control SET log_start = seq WHERE cache = {number}",  # noqa: S608  # a number
        )


class TestLogged(PostgresContract):
    parameters = "logged=true"
    schema = "contract_logged"


class TestUnlogged(PostgresContract):
    parameters = "logged=false"
    prefix = "unlogged_"
    schema = "contract_unlogged"

"""A transactional outbox in PostgreSQL: invalidations written in the transaction that changes the data, told after it.

What is written in a transaction is there if and only if that was committed, so that no crash between commit and
invalidation leaves an old value behind ("Transactional outbox", C. Richardson, *Microservices Patterns*, 2018). A row
is taken by one relay at a time (``FOR UPDATE SKIP LOCKED``) and deleted when everybody was told: at least once.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import asyncpg

from genesis_cache.cache import Cache
from genesis_cache.model.errors import CacheError, InvalidKey, SettingsError
from genesis_cache.model.urls import masked

POLL_S = 1.0  # how long a lost notification may go unnoticed
RETRY_S = 0.5  # after a failure: of the database, or of a tier that could not be told
BATCH = 500  # rows of one transaction
ENDING_S = 10.0
DEFAULT_SCHEMA = "genesis_outbox"
KINDS = ("key", "tag", "pattern", "clear")

_NAME = re.compile("[a-z_][a-z0-9_]{0,47}")
_logger = logging.getLogger("genesis_cache")

_SQL = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE IF NOT EXISTS {s}.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cache text NOT NULL, kind text NOT NULL, name text NOT NULL,
    namespace text NOT NULL, owner text, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (kind IN ('key', 'tag', 'pattern', 'clear')));
CREATE OR REPLACE FUNCTION {s}.invalidate(
    p_kind text, p_name text DEFAULT '', p_namespace text DEFAULT '', p_owner text DEFAULT NULL,
    p_cache text DEFAULT 'default') RETURNS void LANGUAGE sql AS $$
    INSERT INTO {s}.outbox (cache, kind, name, namespace, owner) VALUES (p_cache, p_kind, p_name, p_namespace, p_owner);
    SELECT pg_notify('{s}', '');
$$;
"""
_TAKE = """
SELECT id, kind, name, namespace, owner, extract(epoch FROM clock_timestamp() - at)::float8 AS waited FROM {s}.outbox
WHERE cache = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
"""


def outbox_sql(schema: str = DEFAULT_SCHEMA) -> str:
    """What makes the table and the function, for your own migrations; running it again changes nothing."""
    if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise SettingsError(
            f"schema must be 1 to 48 lower-case letters, digits and underscores, got {schema!r:.60}: use another name"
        )
    return _SQL.format(s=schema)


class Outbox:
    """Tells a cache what committed transactions have written; run it in as many processes as you like.

    ``url`` is your own database's, whatever tiers the cache has. ``async with Outbox(cache, url):`` relays while the
    block lasts. `SettingsError` for a schema's name that cannot be one.
    """

    def __init__(self, cache: Cache, url: str, *, schema: str = DEFAULT_SCHEMA) -> None:
        self.relayed = 0
        """Rows whose order every tier and process was told by this relay."""
        self.refused = 0
        """Rows that no cache could have done, such as a pattern beyond its limits; they are logged and deleted."""
        self.longest_s = 0.0
        """The longest that a row has waited, from its writing; its transaction's own time is in it."""
        self._cache = cache
        self._url = url
        self._schema = schema
        self._install = outbox_sql(schema)
        self._take = _TAKE.format(s=schema)
        self._delete = f"DELETE FROM {schema}.outbox WHERE id = ANY ($1::bigint[])"  # noqa: S608  # the name was checked
        self._name = cache.settings.cache_name
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def install(self) -> None:
        """Make the table and the function, if they are not there; needs the right to create a schema."""
        connection = await asyncpg.connect(self._url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", self._schema)
                await connection.execute(self._install)
        finally:
            await connection.close()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=ENDING_S)

    async def _run(self) -> None:
        """Relay for ever; whatever fails is tried again."""
        while True:
            try:
                await self._relay_for_long()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next attempt may work
                _logger.warning("the outbox at %s does not work: %s", masked(self._url), error)
                await asyncio.sleep(RETRY_S)

    async def _relay_for_long(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.add_listener(self._schema, lambda *_: self._told.set())
            while True:
                self._told.clear()
                while await self._relay(connection):
                    pass
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._told.wait()
        finally:
            connection.terminate()

    async def _relay(self, connection: Any) -> bool:
        """Take some rows, tell the cache, delete them; whether there may be more. CacheError: not told, and kept."""
        async with connection.transaction():
            rows = await connection.fetch(self._take, self._name, BATCH)
            if not rows:
                return False
            await self._tell(rows)
            await connection.execute(self._delete, [row["id"] for row in rows])
        self.relayed += len(rows)
        self.longest_s = max([self.longest_s, *(row["waited"] for row in rows)])
        return len(rows) == BATCH

    async def _tell(self, rows: Sequence[Mapping[str, Any]]) -> None:
        groups: dict[tuple[str, str | None, str], list[str]] = {}
        for row in rows:
            groups.setdefault((row["namespace"], row["owner"], row["kind"]), []).append(row["name"])
        degraded: list[str] = []
        for (namespace, owner, kind), names in groups.items():
            try:
                degraded += await self._forget(namespace, owner, kind, list(dict.fromkeys(names)))
            except InvalidKey:
                degraded += await self._one_by_one(namespace, owner, kind, names)
        if degraded:
            raise CacheError(f"{', '.join(dict.fromkeys(degraded))} could not be told of {len(rows)} orders yet")

    async def _one_by_one(self, namespace: str, owner: str | None, kind: str, names: Sequence[str]) -> list[str]:
        """Where one order among several cannot be done, the others are."""
        degraded: list[str] = []
        for name in names:
            try:
                degraded += await self._forget(namespace, owner, kind, [name])
            except InvalidKey as error:
                self.refused += 1
                _logger.error("an order in the outbox cannot be done: %s", error)  # noqa: TRY400  # the order is at fault
        return degraded

    async def _forget(self, namespace: str, owner: str | None, kind: str, names: Sequence[str]) -> Sequence[str]:
        view = self._cache.namespace(namespace) if namespace else self._cache
        view = view if owner is None else view.owned_by(owner)
        if kind == "key":
            return (await view.delete(*names)).degraded
        if kind == "tag":
            return (await view.delete_by_tag(*names)).degraded
        if kind == "clear":
            return (await view.clear()).degraded
        return [tier for name in names for tier in (await view.delete_by_pattern(name)).degraded]

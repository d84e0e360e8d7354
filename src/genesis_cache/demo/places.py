"""Where the demo's entries live: memory and a folder, or memory and servers, which are given or started for it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex

import msgspec

from genesis_cache.cache import Cache
from genesis_cache.model.errors import CacheError
from genesis_cache.testing.servers import PostgresServer, RedisServer, ServerFailed, ServerMissing

MEMORY = "memory://?max_mb=50"
VARIABLES = {"redis": "REDIS_URL", "database": "DATABASE_URL"}

Server = RedisServer | PostgresServer


class Places(msgspec.Struct, frozen=True):
    """The tiers below memory, in look-up order, by kind."""

    urls: dict[str, str]
    own: dict[str, Server] = {}
    """The servers that were started for the demo."""
    name: str = "genesis-cache-demo"
    """The cache's name: on a server that was given, nothing but the demo's own entries has it."""

    @property
    def given(self) -> list[str]:
        """The kinds whose server somebody else runs."""
        return [kind for kind in self.urls if kind in VARIABLES and kind not in self.own]

    @property
    def is_shared(self) -> bool:
        """Whether there are servers."""
        return any(kind in VARIABLES for kind in self.urls)

    def cache(self) -> Cache:
        """A new cache over them, as a process that has just begun would make it."""
        return Cache.from_url(MEMORY, *self.urls.values(), name=self.name)


def in_folder(folder: Path) -> Places:
    """The demo without a server."""
    return Places({"disk": f"disk://{folder / 'cache'}?max_mb=200"})


@contextmanager
def on_servers(kinds: list[str], environ: Mapping[str, str] = os.environ) -> Iterator[Places]:
    """Servers of these kinds: those that the environment names, others started here and ended with the block.

    `CacheError` where one is wanted and cannot be had, saying how to get it.
    """
    urls: dict[str, str] = {}
    own: dict[str, Server] = {}
    with ExitStack() as stack:
        for kind in kinds:
            given = environ.get(VARIABLES[kind], "")
            if not given:
                own[kind] = stack.enter_context(_started(kind))
            urls[kind] = given or own[kind].url
        yield Places(urls, own, f"genesis-cache-demo-{token_hex(4)}")


@contextmanager
def _started(kind: str) -> Iterator[Server]:
    try:
        server = RedisServer() if kind == "redis" else PostgresServer()
        server.start()
    except (ServerMissing, ServerFailed) as error:
        raise CacheError(str(error)) from None
    try:
        yield server
    finally:
        server.stop()

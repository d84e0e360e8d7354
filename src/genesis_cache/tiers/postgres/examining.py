"""What is wrong with a store in PostgreSQL (`check`), and what an operator should know of its server (`diagnose`)."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from genesis_cache.codecs.envelope import intact, matches
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.tiers.postgres.links import Connection
from genesis_cache.tiers.postgres.schema import MIN_SERVER, ROW_BYTES
from genesis_cache.tiers.postgres.session import Session

_STEP = 200  # envelopes verified at a time
_CHECK_S = 600.0

_MAX_SKEW_S = 1.0
_SLOW_MS = 5.0
_MANY_CONNECTIONS = 0.8  # of those the server allows
_MANY_DEAD = 1.0  # dead rows for each living one
_FEW_DEAD = 10_000  # that are not worth a word


async def check(session: Session) -> list[str]:
    """As `RemoteStore.check`."""

    async def examine(connection: Connection) -> list[str]:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute("SET LOCAL statement_timeout = 0")
            books = await connection.fetchrow(session.sql.books)
            if books is None:
                return []
            counted = await connection.fetchrow(session.sql.counted)
            return [*_faults(books, *counted), *await _damaged(connection, session)]

    return await session.ask(examine, timeout_s=_CHECK_S)


def _faults(
    books: Any, entries: int, size: int, misfits: int, floors: int, last: int | None, first: int | None
) -> Iterator[str]:
    size += entries * ROW_BYTES
    for wrong, fault in (
        (entries != books["entries"], f"the books say {books['entries']} entries, the table has {entries}"),
        (size != books["bytes"], f"the books say {books['bytes']} bytes, the rows have {size}"),
        (misfits, f"{misfits} rows have a size that is not their envelope's"),
        (floors != books["floors"], f"the books say {books['floors']} floors, the table has {floors}"),
        ((last or 0) > books["seq"], f"the log has a message of sequence {last}, the books end at {books['seq']}"),
        (first is not None and first <= books["log_start"], f"the log holds {first}, which is told to be trimmed"),
        (last is None and books["seq"] > books["log_start"], "the log is empty and should not be"),
    ):
        if wrong:
            yield fault


async def _damaged(connection: Connection, session: Session) -> list[str]:
    faults = []
    after = b""
    while rows := await connection.fetch(session.sql.scan, after, float("-inf"), _STEP):
        after = rows[-1][0]
        faults += [
            f"the envelope of {digest.hex()[:16]} is damaged or another entry's"
            for digest, envelope, _ in rows
            if not (matches(envelope, digest) and intact(envelope))
        ]
    return faults


class Facts(msgspec.Struct, frozen=True):
    """What was read from a server."""

    version: str
    version_number: int
    used: int
    """Connections."""
    limit: int
    fsync: bool
    synchronous: str
    autovacuum: bool
    skew_s: float
    """The server's clock less ours."""
    round_trip_ms: float
    size: int
    """Bytes of the cache's rows."""
    entries: int
    capacity: int
    living: int
    """Rows of all caches in the table, as the statistics have them."""
    dead: int
    is_logged: bool
    wants_logged: bool
    is_listening: bool
    is_private: bool
    """Whether what is sent is encrypted, or stays on this machine."""


_FACTS = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
    current_setting('max_connections')::int AS "limit", current_setting('fsync') = 'on' AS fsync,
    current_setting('synchronous_commit') AS synchronous, current_setting('autovacuum') = 'on' AS autovacuum,
    extract(epoch FROM clock_timestamp())::float8 AS server_s,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)
        OR inet_client_addr() IS NULL OR inet_client_addr() = inet_server_addr() AS is_private
"""

_ROWS = """
SELECT coalesce(sum(n_live_tup), 0)::int8 AS living, coalesce(sum(n_dead_tup), 0)::int8 AS dead
FROM pg_stat_user_tables WHERE relid = $1::text::regclass
"""


async def diagnose(session: Session, capacity: int, *, is_listening: bool) -> list[Finding]:
    """As `RemoteStore.diagnose`."""

    async def read(connection: Connection) -> Facts:
        await connection.fetchval("SELECT 1")
        start = time.perf_counter()
        await connection.fetchval("SELECT 1")
        round_trip_ms = (time.perf_counter() - start) * 1e3
        before = time.time()
        facts = dict(await connection.fetchrow(_FACTS))
        skew_s = facts.pop("server_s") - (before + time.time()) / 2
        rows = await connection.fetchrow(_ROWS, f"{session.sql.tables}entries")
        books = await connection.fetchrow(session.sql.books)
        return Facts(
            **facts,
            **dict(rows),
            skew_s=skew_s,
            round_trip_ms=round_trip_ms,
            size=0 if books is None else books["bytes"],
            entries=0 if books is None else books["entries"],
            capacity=capacity,
            is_logged=session.is_logged,
            wants_logged=session.place.is_logged,
            is_listening=is_listening,
        )

    facts = await session.ask(read)
    return [
        judge(facts)
        for judge in (
            _version,
            _connections,
            _durability,
            _persistence,
            _size,
            _dead_rows,
            _clock,
            _latency,
            _listening,
            _privacy,
        )
    ]


def _found(subject: str, sentence: str, severity: Severity = Severity.OK, fix: str = "") -> Finding:
    return Finding(f"database: {subject}", severity, sentence, fix)


def _version(facts: Facts) -> Finding:
    return _found("version", f"PostgreSQL {facts.version}; {MIN_SERVER} or newer is needed")


def _connections(facts: Facts) -> Finding:
    sentence = f"{facts.used} of {facts.limit} connections are in use"
    if facts.used < facts.limit * _MANY_CONNECTIONS:
        return _found("connections", sentence)
    fix = "raise max_connections, or put a pooler in between and say pooler=transaction in the URL"
    return _found("connections", sentence, Severity.ADVICE, fix)


def _durability(facts: Facts) -> Finding:
    sentence = f"fsync is {'on' if facts.fsync else 'off'}, synchronous_commit is {facts.synchronous}"
    if not facts.fsync:
        fix = "set fsync = on unless nothing in this server is worth keeping: a power loss may damage all of it"
        return _found("durability", sentence, Severity.ADVICE, fix)
    if facts.synchronous == "off" and facts.is_logged:
        sentence += ": a restart may lose the last changes, so each begins a new log and every process forgets"
        return _found("durability", sentence, Severity.ADVICE, "leave synchronous_commit on for the cache's user")
    return _found("durability", sentence)


def _persistence(facts: Facts) -> Finding:
    words = {True: "logged: they survive a crash", False: "unlogged: a crash of the server empties them"}
    sentence = f"the cache's tables are {words[facts.is_logged]}"
    if facts.is_logged == facts.wants_logged:
        return _found("tables", sentence)
    sentence += f", though the URL asks for logged={str(facts.wants_logged).lower()}"
    fix = (
        "whoever used the cache's name first has decided: take another CACHE_NAME, or schema=..., to have it otherwise"
    )
    return _found("tables", sentence, Severity.ADVICE, fix)


def _size(facts: Facts) -> Finding:
    share = facts.size / facts.capacity
    sentence = f"{facts.entries} entries of {facts.size / 2**20:.1f} MB, {share:.0%} of the capacity"
    if share <= 1.1:  # noqa: PLR2004  # the bound is kept within a tenth
        return _found("size", sentence)
    return _found("size", sentence, Severity.ADVICE, "let the cleanup run more often (CACHE_CLEANUP_INTERVAL)")


def _dead_rows(facts: Facts) -> Finding:
    sentence = (
        f"{facts.dead} dead rows beside {facts.living} living ones, autovacuum {'on' if facts.autovacuum else 'off'}"
    )
    if not facts.autovacuum:
        return _found("dead rows", sentence, Severity.FAULT, "set autovacuum = on, or the table grows for ever")
    if facts.dead > max(_FEW_DEAD, facts.living * _MANY_DEAD):
        return _found("dead rows", sentence, Severity.ADVICE, "give autovacuum more workers or a lower cost delay")
    return _found("dead rows", sentence)


def _clock(facts: Facts) -> Finding:
    sentence = f"the server's clock and ours differ by {abs(facts.skew_s):.3f} s"
    if abs(facts.skew_s) <= _MAX_SKEW_S:
        return _found("clock", sentence)
    return _found("clock", sentence, Severity.ADVICE, "let NTP set the clocks of all hosts: ttls are counted by them")


def _latency(facts: Facts) -> Finding:
    sentence = f"a round trip takes {facts.round_trip_ms:.2f} ms"
    if facts.round_trip_ms <= _SLOW_MS:
        return _found("round trip", sentence)
    return _found(
        "round trip", sentence, Severity.ADVICE, "bring the program nearer to the server, or memory before it"
    )


def _listening(facts: Facts) -> Finding:
    if facts.is_listening:
        return _found("notifications", "LISTEN is used: invalidations are heard as they are made")
    sentence = "the log is polled ten times a second, because a pooler in transaction mode cannot LISTEN"
    return _found(
        "notifications", sentence, Severity.ADVICE, "name the server itself in listen_url=... beside the pooler"
    )


def _privacy(facts: Facts) -> Finding:
    if facts.is_private:
        return _found("encryption", "what is sent to the server is encrypted, or does not leave this machine")
    sentence = "what is sent to the server crosses a network in clear"
    return _found("encryption", sentence, Severity.ADVICE, "add sslmode=verify-full and sslrootcert=... to the URL")

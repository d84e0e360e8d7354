"""What went wrong at a PostgreSQL server, as a plain sentence for the owner of the cache."""

import asyncio
from collections.abc import Mapping

import asyncpg

from genesis_cache.model.urls import masked
from genesis_cache.tiers.remote_base import Cut, Outage
from genesis_cache.tiers.remote_known import Replaced

Failures = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)
"""What a call to a server raises; `TimeoutError` is an `OSError`."""

_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)

_CUT = (
    asyncpg.PostgresConnectionError, asyncpg.InternalClientError, BrokenPipeError, ConnectionAbortedError,
    ConnectionResetError, EOFError,
)  # fmt: skip
_ENDED_BY_HAND = "57P01"

_SENTENCES: Mapping[str, str] = {
    "28": "refuses us: user, password or pg_hba.conf; see DATABASE_URL",
    "3D000": "has no database of that name: create it, or name another in DATABASE_URL",
    "57P01": "is shutting down, or an administrator ended the connection",
    "57P02": "has crashed and is recovering",
    "57P03": "is starting up or shutting down",
    "57P05": "ended a session that was idle for too long: raise idle_session_timeout",
    "57014": "cancelled the statement: see statement_timeout",
    "25006": "is read-only, a standby perhaps: name the primary in DATABASE_URL",
    "53100": "has no room on its disk",
    "53200": "has no memory left",
    "53300": "has no connection free: raise max_connections, or put a pooler in between and say pooler=transaction",
    "55P03": "holds a lock for too long",
    "42501": "does not permit what the cache needs: grant the user CREATE on the database, or the rights on our schema",
    "40": "could not order concurrent changes, in several attempts",
    "XX": "reports damage or an internal error",
}

_GONE_TABLES = frozenset({"42P01", "3F000", "42883", "42703"})
_ROLLED_BACK = frozenset({"40001", "40P01"})
_ENDED = frozenset({"57P01", "57P02", "57P03", "57P05"})


def outage_of(error: BaseException, url: str) -> Outage:
    """The sentence that an error of the client stands for."""
    if isinstance(error, Outage):
        return error
    kind = Cut if isinstance(error, _CUT) or state_of(error) == _ENDED_BY_HAND else Outage
    return kind(f"PostgreSQL at {masked(url)} {_what(error)}")


def _what(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "did not answer in time"
    if isinstance(error, Replaced):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections: is it running, and is this its address?"
    state = state_of(error)
    if state:
        sentence = _SENTENCES.get(state) or _SENTENCES.get(state[:2]) or "cannot do what was asked"
        return f"{sentence} ({state}: {_first_line(error)})"
    if isinstance(error, _LOST):
        return f"cannot be reached or has dropped the connection ({type(error).__name__}: {_first_line(error)})"
    return f"cannot be used ({type(error).__name__}: {_first_line(error)})"


def state_of(error: BaseException) -> str:
    """The server's code of an error; "" where the server did not speak."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) and not isinstance(error, asyncpg.PostgresConnectionError) else ""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is of no more use."""
    if isinstance(error, asyncpg.InterfaceWarning):
        return False
    return isinstance(error, _LOST) or state_of(error) in _ENDED or not isinstance(error, asyncpg.PostgresError)


def is_unsent(error: BaseException) -> bool:
    """Whether nothing was sent: the server has said that the connection ends, but the end is not there yet."""
    return isinstance(error, asyncpg.InternalClientError)


def is_worth_another(error: BaseException) -> bool:
    """Whether a read may succeed at once on a new connection."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return False
    return is_lost(error) or isinstance(error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError)


def is_rolled_back(error: BaseException) -> bool:
    """Whether a transaction has left nothing behind and may be tried again."""
    return state_of(error) in _ROLLED_BACK


def is_without_tables(error: BaseException) -> bool:
    """Whether our tables or functions are gone."""
    return state_of(error) in _GONE_TABLES


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or "no reason given"

"""Where a PostgreSQL store is: its URL, with our own parameters taken off before the client sees it."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from genesis_cache.model.errors import SettingsError
from genesis_cache.model.urls import masked, parts_of

DEFAULT_SCHEMA = "genesis_cache"

_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_NAME = re.compile("[a-z_][a-z0-9_]{0,47}")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and how it is used."""

    url: str
    """As the client takes it."""
    listen_url: str | None
    """Of the connection that waits for notifications; None where the log can only be polled."""
    is_logged: bool
    """Whether tables made for a new cache survive a crash of the server."""
    is_pooled: bool
    """Whether a pooler in transaction mode stands between: no prepared statements, no state of a session."""
    schema: str

    def __repr__(self) -> str:
        return f"Place({masked(self.url)!r}, schema={self.schema!r})"


def place_of(url: str) -> Place:
    """A PostgreSQL URL taken apart.

    Our own parameters: ``logged=true|false`` (true), ``pooler=transaction``, ``listen_url=`` (a connection past the
    pooler, for notifications), ``schema=`` (genesis_cache). `SettingsError` for a URL that cannot be right.
    """
    parts = parts_of(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise SettingsError(
            f"{masked(url)!r} is no PostgreSQL URL: write postgresql://user:password@host:5432/database"
        )
    given = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: text for name, text in given if name in _OURS}
    rest = [(name, text) for name, text in given if name not in _OURS]
    _check_rest(url, rest)
    pooler = ours.get("pooler", "")
    if pooler not in ("", "transaction"):
        raise SettingsError(f"pooler must be 'transaction' or left out, got {pooler!r:.40} in {masked(url)!r}")
    plain = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(rest, quote_via=quote)))
    listen_url = ours.get("listen_url") or (None if pooler else plain)
    if listen_url is not None and urlsplit(listen_url).scheme not in ("postgresql", "postgres"):
        raise SettingsError(f"listen_url must be a postgresql:// URL, quoted, got {masked(listen_url)!r}")
    return Place(plain, listen_url, _is_logged(url, ours), bool(pooler), _schema(url, ours))


_OURS = frozenset({"logged", "pooler", "listen_url", "schema"})
_CLIENTS = frozenset(
    {"host", "hostaddr", "port", "user", "database", "dbname", "password", "passfile", "service", "servicefile",
     "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation", "krbsrvname", "gsslib",
     "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs"}
)  # fmt: skip
_SERVERS = frozenset(
    {"application_name", "options", "search_path", "timezone", "client_encoding", "synchronous_commit", "role",
     "statement_timeout", "lock_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout", "work_mem"}
)  # fmt: skip


def _check_rest(url: str, rest: list[tuple[str, str]]) -> None:
    """What the client or the server reads: a word that neither knows would fail at every connection."""
    for name, text in rest:
        if name not in _CLIENTS and name.lower() not in _SERVERS and "." not in name:
            raise SettingsError(
                f"{masked(url)!r} has the unknown parameter {name!r}: ours are {', '.join(sorted(_OURS))}; the client's"
                f" are {', '.join(sorted(_CLIENTS))}, and some settings of the server"
            )
        if name == "sslmode" and text not in _SSL_MODES:
            raise SettingsError(f"sslmode must be one of {', '.join(_SSL_MODES)}, got {text!r:.40} in {masked(url)!r}")


def _is_logged(url: str, ours: dict[str, str]) -> bool:
    text = ours.get("logged", "true")
    if text.lower() not in _WORDS:
        raise SettingsError(f"logged must be true or false, got {text!r:.40} in {masked(url)!r}")
    return _WORDS[text.lower()]


def _schema(url: str, ours: dict[str, str]) -> str:
    schema = ours.get("schema", DEFAULT_SCHEMA)
    if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise SettingsError(
            f"schema must be 1 to 48 lower-case letters, digits and underscores, got {schema!r:.60} in {masked(url)!r}"
        )
    return schema

"""URLs: where a tier is, read from text, and shown without the secrets in it.

What cannot be right of a server's URL is refused here, whatever the client would make of it. What only one client
knows, such as the parameters for TLS, is checked where that client is.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from genesis_cache.model.errors import SettingsError

REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "redis+cluster")
POSTGRES_SCHEMES = ("postgresql", "postgres")
DATABASE_SCHEMES = (*POSTGRES_SCHEMES, "sqlite")
SCHEMES = ("memory", "disk", *REDIS_SCHEMES, *DATABASE_SCHEMES)

_SERVER_SCHEMES = (*REDIS_SCHEMES, *POSTGRES_SCHEMES)
_SHAPES = {
    "redis": "write redis://user:password@host:6379/0, or redis:///run/redis.sock for a Unix socket",
    "rediss": "write rediss://user:password@host:6379/0",
    "redis+sentinel": "write redis+sentinel://host1:26379,host2:26379/mymaster/0, with the primary's name",
    "redis+cluster": "write redis+cluster://host1:6379,host2:6379",
    "postgresql": "write postgresql://user:password@host:5432/database",
    "postgres": "write postgres://user:password@host:5432/database",
}
_QUOTE = "in a user or password write % as %25, @ as %40, / as %2F, ? as %3F, # as %23, [ as %5B and ] as %5D"
_LARGEST_PORT = 65535

_SERVER = re.compile(r"([^/?#]*)([^?#]*)\??([^#]*)(#?).*", re.DOTALL)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\[\]:]*)(?P<port>:.*)?")
_PARAMETER = re.compile(r"[A-Za-z_][\w.]*")
_UNQUOTED = re.compile(r"%(?![0-9A-Fa-f]{2})|[@\[\]]")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_SECRET = re.compile(
    r"(?<=[?&])(?P<name>[^=&#]*(?:pass(?:w(?:or)?d|phrase)|pwd|token|secret|credentials?|url|%)[^=&#]*=)[^&#]*",
    re.IGNORECASE,
)
_USER = re.compile(r"(?:[\w.+~-]|%(?!3[Aa])[0-9A-Fa-f]{2})+")  # and nothing behind a colon, quoted or not
_NO_PORT = re.compile(r"(\[[^\]]*\])|:(?!\d{0,5}(?:,|$))[^,]*")


@dataclass(frozen=True, slots=True)
class TierUrl:
    """A tier as a URL says it: its kind (``memory``, ``disk``, ``redis``, ``database``), place and limits."""

    kind: str
    url: str
    """For a server: the URL without our own parameters; else as it was given."""
    path: str | None = None
    """Of a file or folder; None where the kind has none or the URL does not say."""
    max_mb: float | None = None
    """In MB of 2^20 bytes."""
    max_entries: int | None = None

    def __repr__(self) -> str:
        return f"TierUrl({self.kind!r}, {masked(self.url)!r})"


def parse_tier_url(url: str) -> TierUrl:
    """A tier's URL taken apart; `SettingsError` for an unknown scheme or parameter, or a bad value."""
    if not isinstance(url, str):
        raise SettingsError(f"a tier's URL must be a string, got {type(url).__name__}")
    parts = _split(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    max_mb = _number(url, "max_mb", given.pop("max_mb", None))
    entries = _number(url, "max_entries", given.pop("max_entries", None))
    if entries is not None and (parts.scheme != "memory" or entries != int(entries) or entries < 1):
        raise SettingsError(f"max_entries must be a whole number from 1, and for memory:// only, in {masked(url)!r}")
    max_entries = None if entries is None else int(entries)
    if parts.scheme in _SERVER_SCHEMES:
        kind = "redis" if parts.scheme in REDIS_SCHEMES else "database"
        place = url.partition("?")[0]
        return TierUrl(kind, f"{place}?{urlencode(given)}" if given else place, None, max_mb)
    if given:
        allowed = "max_mb and max_entries" if parts.scheme == "memory" else "max_mb"
        raise SettingsError(f"{masked(url)!r} has the unknown parameter {min(given)!r}: allowed are {allowed}")
    match parts.scheme:
        case "memory":
            if parts.netloc or parts.path:
                raise SettingsError(f"{masked(url)!r} names a place, but memory has none: write memory://?max_mb=50")
            return TierUrl("memory", url, None, max_mb, max_entries)
        case "disk":
            return TierUrl("disk", url, unquote(parts.netloc + parts.path) or None, max_mb)
        case _:
            return TierUrl("database", url, sqlite_path(url), max_mb)


def sqlite_path(url: str) -> str:
    """The file of a SQLite URL, read as SQLAlchemy does: relative after three slashes, absolute after four."""
    parts = _split(url)
    path = unquote(parts.path[1:])
    if parts.netloc or not path or path == ":memory:":
        raise SettingsError(
            f"{masked(url)!r} names no file: write sqlite:///here.db (relative) or sqlite:////var/here.db (absolute)"
        )
    return path


def check_url(variable: str, url: object, schemes: tuple[str, ...]) -> str:
    """A server's or database's URL; `SettingsError` naming the variable where its scheme is not one of these."""
    shapes = ", ".join(f"{scheme}://" for scheme in schemes)
    if not isinstance(url, str):
        raise SettingsError(f"{variable} must be a URL as text ({shapes}), got {type(url).__name__}")
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme not in schemes:
        raise SettingsError(f"{variable} is {masked(url)!r}: it must begin with one of {shapes}")
    try:
        _split(url)
        if scheme == "sqlite":
            sqlite_path(url)
    except SettingsError as error:
        raise SettingsError(f"{variable}: {error}") from None
    return url


def masked(url: str) -> str:
    """A URL fit to be shown: its password, and any parameter that may hold one, replaced by ``***``.

    Works on text alone, because a URL that cannot be read may still hold a secret: with a password that has an
    unquoted ``@ / ?`` or ``#`` in it, or stands where a port should, too much is hidden rather than too little. A lone
    word before the host of a database is its user, and shown; before that of a Redis it may be a token, and is not.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        return "***" if "@" in url else _SECRET.sub(_hidden, _without_bad_ports(url))
    is_file = scheme.lower() in ("disk", "sqlite")
    head, tail = _cut(rest) if is_file else (rest, "")  # a file's path may well have an @ in it
    if "@" in head:
        credentials, _, place = head.rpartition("@")
        user, colon, _ = credentials.partition(":")
        is_user = not colon and scheme.lower() in POSTGRES_SCHEMES and _USER.fullmatch(user)
        shown = user if is_user else f"{user if colon else ''}:***"  # elsewhere a lone word may be a token
        head = f"{shown}@{place if is_file else _without_bad_ports(place)}"
    elif not is_file:
        head = _without_bad_ports(head)
    return f"{scheme}://{_SECRET.sub(_hidden, head + tail)}"


def caution(url: str) -> str | None:
    """What the owner of a URL should know though it is allowed, in a sentence: TLS that does not verify the server."""
    given = {name.lower(): said.lower() for name, said in parse_qsl(url.partition("?")[2])}
    if given.get("ssl_cert_reqs") == "none":
        what = "ssl_cert_reqs=none: the server's certificate is not verified"
    elif given.get("ssl_check_hostname") in ("false", "0", "no"):
        what = "ssl_check_hostname=false: the certificate may be another server's"
    else:
        return None
    return f"{masked(url)} says {what}, so whoever is in between can read and change what is cached"


def _hidden(found: re.Match[str]) -> str:
    return f"{found['name']}***"


def _cut(rest: str) -> tuple[str, str]:
    """What stands before the first ``/ ?`` or ``#``, and the rest."""
    end = re.search(r"[/?#]|$", rest)
    at = len(rest) if end is None else end.start()
    return rest[:at], rest[at:]


def _without_bad_ports(text: str) -> str:
    hosts, rest = _cut(text)
    return _NO_PORT.sub(lambda found: found[1] or ":***", hosts) + rest


def _split(url: str) -> SplitResult:
    scheme, colon, _ = url.partition("://")
    if scheme.lower() not in SCHEMES or not colon:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise SettingsError(f"{masked(url)!r} has no scheme of a tier: allowed are {known}")
    if scheme.lower() in _SERVER_SCHEMES:
        _check_server(_read_server(url))
    try:
        return parts_of(url)
    except ValueError:  # its text may hold the secret
        raise SettingsError(f"{masked(url)!r} is no URL: its host has characters that none can have") from None


def parts_of(url: str) -> SplitResult:
    """As `urlsplit`, with several hosts too of which one is an IPv6 address: newer ones of Python refuse those."""
    scheme, _, rest = url.partition("://")
    hosts, rest = _cut(rest)
    return urlsplit(f"{scheme}://hosts{rest}")._replace(netloc=hosts) if "," in hosts else urlsplit(url)


class _Server(NamedTuple):
    """A server's URL cut into pieces, none of them unquoted."""

    url: str
    scheme: str
    login: str
    hosts: str
    path: str
    query: str
    has_fragment: bool

    def wrong(self, what: str, remedy: str = "") -> SettingsError:
        return SettingsError(f"{masked(self.url)!r} {what}: {remedy or _SHAPES[self.scheme]}")


def _read_server(url: str) -> _Server:
    scheme, _, rest = url.partition("://")
    found = _SERVER.fullmatch(rest)
    authority, path, query, fragment = found.groups() if found else (rest, "", "", "")
    login, _, hosts = authority.rpartition("@")
    return _Server(url, scheme.lower(), login, hosts, path, query, bool(fragment))


def _check_server(server: _Server) -> None:
    _check_quoted(server)
    given = _parameters(server)
    for host in server.hosts.split(",") if server.hosts else ():
        _check_host(server, host)
    if server.scheme in POSTGRES_SCHEMES:
        _check_postgres(server, given)
        return
    if not given.get("db", "0").isdecimal():
        raise server.wrong("names a database that is no number")
    match server.scheme:
        case "redis+sentinel":
            _check_sentinel(server)
        case "redis+cluster":
            _check_cluster(server, given)
        case _:
            _check_redis(server)


def _check_quoted(server: _Server) -> None:
    if _BLANK.search(server.url):
        raise server.wrong("has a blank or a line break in it", "take it out, or write a blank as %20")
    if server.has_fragment:
        raise server.wrong("has a '#' in it", _QUOTE)
    if _UNQUOTED.search(server.login):
        raise server.wrong("has a character in its user or password that is not quoted", _QUOTE)
    if "@" in server.path:
        raise server.wrong("has an '@' behind a '/'", _QUOTE)


def _parameters(server: _Server) -> dict[str, str]:
    pairs = parse_qsl(server.query, keep_blank_values=True)
    if not all(_PARAMETER.fullmatch(name) for name, _ in pairs):
        raise server.wrong("has something behind its '?' that is no parameter", _QUOTE)
    if len(dict(pairs)) != len(pairs):
        raise server.wrong("says a parameter twice", "say each once")
    return dict(pairs)


def _check_host(server: _Server, host: str) -> None:
    found = _HOST.fullmatch(host)
    if found is None:
        raise server.wrong("has a host that cannot be one", "an IPv6 address stands in brackets, as in [::1]:6379")
    port = (found["port"] or ":")[1:]
    if port.count(":"):
        raise server.wrong("has a host with several colons", f"write an IPv6 address as [::1]:6379; {_QUOTE}")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) <= _LARGEST_PORT):
        raise server.wrong("has a port that is no number from 1 to 65535", f"{_SHAPES[server.scheme]}; {_QUOTE}")
    if not found["name"]:
        raise server.wrong("has an empty host")


def _check_redis(server: _Server) -> None:
    place = unquote(server.path).strip("/")
    if not server.hosts:
        if server.scheme == "rediss" or not place or place.isdecimal():
            raise server.wrong("names no host")
    elif "," in server.hosts:
        raise server.wrong("names several hosts", "use redis+cluster:// or redis+sentinel:// for these")
    elif place and not (place.isascii() and place.isdecimal()):
        raise server.wrong("names a database that is no number")


def _check_sentinel(server: _Server) -> None:
    service, _, database = server.path.strip("/").partition("/")
    if not server.hosts:
        raise server.wrong("names no host")
    if not service or service.isdecimal():
        raise server.wrong("does not say which primary, by the name that the Sentinels know it by")
    if database and not (database.isascii() and database.isdecimal()):
        raise server.wrong("names a database that is no number")


def _check_cluster(server: _Server, given: dict[str, str]) -> None:
    if not server.hosts:
        raise server.wrong("names no host")
    if server.path.strip("/") not in ("", "0") or int(given.get("db", "0")):
        raise server.wrong("names a database, but a cluster has only number 0", "leave it out")


def _check_postgres(server: _Server, given: dict[str, str]) -> None:
    database = server.path.strip("/")
    if "/" in database:
        raise server.wrong("names a database with a '/' in it", "write it as %2F, or take what is behind it out")
    is_elsewhere = "service" in given  # in a file of the client's
    if not (server.hosts or database or is_elsewhere or given.get("host")):
        raise server.wrong("names no host")
    if not (database or server.login or is_elsewhere or {"dbname", "database", "user"} & given.keys()):
        raise server.wrong("names no database")


def _number(url: str, name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise SettingsError(f"{name} must be a number above 0, got {text!r:.40} in {masked(url)!r}")
    return number

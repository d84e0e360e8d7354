"""URLs: where a tier is, read from text, and shown without the secrets in it."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from genesis_cache.model.errors import SettingsError

REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "redis+cluster")
DATABASE_SCHEMES = ("postgresql", "postgres", "sqlite")
SCHEMES = ("memory", "disk", *REDIS_SCHEMES, *DATABASE_SCHEMES)

_SECRET = re.compile(r"(?<=[?&])(?P<name>(?:listen_url|[a-z_]*(?:passw(?:or)?d|token|secret))=)[^&#]*", re.IGNORECASE)


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
    if parts.scheme in REDIS_SCHEMES or parts.scheme.startswith("postgres"):
        kind = "redis" if parts.scheme in REDIS_SCHEMES else "database"
        return TierUrl(kind, urlunsplit(parts._replace(query=urlencode(given))), None, max_mb)
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
    """A URL fit to be shown: its password, and any parameter that holds one, replaced by ``***``.

    Works on text alone, because a URL that cannot be read may still hold a secret: with a password that has an
    unquoted ``@ / ?`` or ``#`` in it, too much is hidden rather than too little.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        return "***" if "@" in url else url
    if scheme not in ("disk", "sqlite") and "@" in rest:
        credentials, _, place = rest.rpartition("@")
        user, colon, _ = credentials.partition(":")
        rest = f"{user if colon else ''}:***@{place}"  # a lone word before the host may be a token
    return f"{scheme}://{_SECRET.sub(_hidden, rest)}"


def _hidden(found: re.Match[str]) -> str:
    return f"{found['name']}***"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port if "," not in parts.netloc else None  # several hosts are for the client to read
    except ValueError as error:
        raise SettingsError(f"{masked(url)!r} is no URL: {str(error).partition(' as ')[0].lower()}") from None
    if parts.scheme not in SCHEMES or "://" not in url:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise SettingsError(f"{masked(url)!r} has no scheme of a tier: allowed are {known}")
    return parts


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

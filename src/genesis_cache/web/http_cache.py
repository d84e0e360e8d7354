"""What HTTP says about cached responses, as pure functions: RFC 9110 (semantics), 9111 (caching), 9211, 5861."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from email.utils import mktime_tz, parsedate_tz
from hashlib import blake2b
from math import ceil
from typing import Any, NamedTuple

Headers = Sequence[tuple[bytes, bytes]]

NAME = "genesis-cache"  # in Cache-Status
STORABLE_STATUSES = frozenset({200, 203, 204, 300, 301, 308})
NO_BODY_STATUSES = frozenset({204, 304})
FAILED_STATUSES = frozenset({500, 502, 503, 504})  # those that stale-if-error may cover (RFC 5861, 4)
CREDENTIALS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})

WHO = frozenset(
    b"api-key cf-access-authenticated-user-email cf-access-jwt-assertion proxy-authorization remote-user tenant-id "
    b"x-access-token x-amzn-oidc-data x-amzn-oidc-identity x-api-key x-auth-request-email x-auth-request-user "
    b"x-auth-token x-authenticated-user x-client-cert x-forwarded-client-cert x-forwarded-email x-forwarded-user "
    b"x-goog-authenticated-user-email x-goog-iap-jwt-assertion x-ms-client-principal x-ms-client-principal-id "
    b"x-remote-user x-ssl-client-cert x-tenant x-tenant-id x-user x-user-id".split()
)
"""Headers by which proxies and middleware tell users apart: as good as credentials unless the answer varies by them."""
CONDITIONS = frozenset(
    {b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range", b"range"}
)
FOREVER_S = 31_536_000  # max-age of what never expires: a year
MOST_VARY_NAMES = 8

_OF_ONE_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
_OF_ONE_ANSWER = _OF_ONE_HOP | {b"date", b"server", b"age", b"content-length"}
_WITH_304 = frozenset({b"cache-control", b"content-location", b"etag", b"expires", b"vary", b"last-modified"})


class Reply(NamedTuple):
    """A response as it is stored: plain values only, so that every tier gives it back."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    created: float
    """Wall seconds at which it was made."""
    ttl: float | None
    """Seconds of freshness; None: for ever."""
    problem: str
    """Why it may not be stored, in a word or two; empty if it may."""


class Asked(NamedTuple):
    """What a request says that matters here."""

    has_credentials: bool
    if_none_match: bytes | None
    if_modified_since: bytes | None
    cache_control: bytes | None
    varying: tuple[tuple[str, str | None], ...]
    """The declared headers by name with their values, None where the request has none."""


class Wish(NamedTuple):
    """What a request's Cache-Control asks for."""

    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    """The oldest answer it takes, in seconds; 0 for no-cache."""


NO_WISH = Wish()


def asked(headers: Headers, vary: Sequence[str]) -> Asked:
    """A request's headers, read once."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found[name] = value if name not in found else found[name] + b", " + value
    get = found.get
    varying = tuple([(name, _text_or_none(get(name.encode()))) for name in vary])
    control = get(b"cache-control")
    if control is None and get(b"pragma", b"").lower() == b"no-cache":
        control = b"no-cache"
    has_credentials = b"authorization" in found or b"cookie" in found
    if not has_credentials and not WHO.isdisjoint(found):
        has_credentials = not {name.encode() for name in vary}.issuperset(WHO.intersection(found))
    return Asked(has_credentials, get(b"if-none-match"), get(b"if-modified-since"), control, varying)


def wish(cache_control: bytes) -> Wish:
    """The request directives that are honoured (RFC 9111, 5.2.1); what cannot be read is as if it were not there."""
    said = directives(cache_control)
    oldest = 0.0 if "no-cache" in said else _seconds(said.get("max-age"))
    return Wish("no-store" in said, "only-if-cached" in said, oldest)


def directives(header: bytes) -> dict[str, str]:
    """The directives of a Cache-Control header, lower case, with their values unquoted."""
    said = {}
    for part in header.decode("latin-1").split(","):
        name, _, value = part.strip().partition("=")
        if name:
            said[name.strip().lower()] = value.strip().strip('"')
    return said


def target_key(path: str, query: bytes, varying: tuple[tuple[str, str | None], ...]) -> str:
    """What a response is stored under: equal keys mean equal paths, query strings and declared headers."""
    if "?" in path or "%" in path or " " in path:
        path = path.replace("%", "%25").replace("?", "%3F").replace(" ", "%20")
    key = path
    if query:
        text = query.decode("latin-1")
        key = f"{path}?{text.replace(' ', '%20')}"
    return f"{key} {varying!r}" if varying else key


def routed_key(scope: Mapping[str, Any]) -> str:
    """What routing took from elsewhere than the path, such as a tenant from the host; empty where there is nothing."""
    convertors = getattr(scope.get("route"), "param_convertors", {})
    params = scope.get("path_params") or {}
    found = sorted((name, str(value)) for name, value in params.items() if name not in convertors)
    return f" {found!r}" if found else ""


def target(scope: Mapping[str, Any]) -> tuple[object, ...]:
    """What a request asks for, apart from its headers: equal ones have equal keys."""
    params = scope.get("path_params")
    routed = tuple(map(str, params.values())) if params else ()
    return id(scope.get("route")), scope["path"], scope["query_string"], routed


def short_key(key: str, limit: int = 900) -> str:
    """The key itself, or its beginning and its hash where it is too long, or holds what no line should."""
    if len(key) <= limit and key.isascii() and key.isprintable():
        return key
    encoded = key.encode("utf-8", "surrogatepass")
    if len(encoded) <= limit and key.isprintable():
        return key
    start = "".join(character for character in key[:100] if character.isprintable())
    return f"{start} #{blake2b(encoded, digest_size=32).hexdigest()}"


def etag_of(body: bytes) -> bytes:
    """A strong validator made from the body's bytes, the same in every process."""
    return b'"%s"' % blake2b(body, digest_size=16).hexdigest().encode()


def header(headers: Headers, name: bytes) -> bytes | None:
    """A header's value; several lines are one list (RFC 9110, 5.3)."""
    found = [value for key, value in headers if key.lower() == name]
    return b", ".join(found) if found else None


def names_in(value: bytes | None) -> list[str]:
    """The field names of a Vary header, lower case."""
    return [] if value is None else [name for part in _text(value).split(",") if (name := part.strip().lower())]


def problem_of(status: int, headers: Headers, ttl: float | None) -> str:
    """Why a response may not be stored, or an empty string."""
    if status not in STORABLE_STATUSES:
        return f"status {status}"
    if header(headers, b"set-cookie") is not None:
        return "set-cookie"
    if "*" in names_in(header(headers, b"vary")):
        return "vary *"
    said = directives(header(headers, b"cache-control") or b"")
    for name in ("no-store", "private", "no-cache"):
        if name in said:
            return name
    if (header(headers, b"content-type") or b"").startswith(b"text/event-stream"):
        return "stream"
    return "max-age 0" if ttl is not None and ttl <= 0 else ""


def lifetime(headers: Headers, ttl: float | None, wall: float) -> float | None:
    """Seconds of freshness: what the author of the route said, or less if the response does (RFC 9111, 4.2.1)."""
    said = directives(header(headers, b"cache-control") or b"")
    own = _seconds(said.get("s-maxage", said.get("max-age")))
    expires = header(headers, b"expires")
    if own is None and expires is not None:
        own = max(0.0, (_date(expires) or 0.0) - wall)
    return ttl if own is None else own if ttl is None else min(ttl, own)


def undeclared(headers: Headers, declared: Collection[str]) -> list[str]:
    """Names in the response's Vary that are not part of the key."""
    return [name for name in names_in(header(headers, b"vary")) if name != "*" and name not in declared]


def stored_headers(headers: Headers, body: bytes, status: int, control: str, vary: Iterable[str]) -> Headers:
    """The headers that are kept: the response's own, with ETag, Cache-Control and Vary where it had none."""
    kept = [(name.lower(), value) for name, value in headers if name.lower() not in _OF_ONE_ANSWER | {b"vary"}]
    have = {name for name, _ in kept}
    if b"etag" not in have:
        kept.append((b"etag", etag_of(body)))
    if b"cache-control" not in have:
        kept.append((b"cache-control", control.encode()))
    names = dict.fromkeys([*names_in(header(headers, b"vary")), *vary])
    if names:
        kept.append((b"vary", ", ".join(_title(name) for name in names).encode()))
    if status not in NO_BODY_STATUSES:
        kept.append((b"content-length", b"%d" % len(body)))
    return kept


def control_of(ttl: float | None, swr: float, sie: float, *, scope: str) -> str:
    """The Cache-Control of a stored response: the whole lifetime, of which Age tells what has passed."""
    parts = [scope] if scope else []
    parts.append(f"max-age={FOREVER_S if ttl is None else int(ttl)}")
    parts += [f"stale-while-revalidate={int(swr)}"] if swr else []
    parts += [f"stale-if-error={int(sie)}"] if sie else []
    return ", ".join(parts)


def is_unchanged(reply: Reply, request: Asked) -> bool:
    """Whether the client has this very response already (RFC 9110, 13.2.2): If-None-Match first, weakly compared."""
    if reply.status not in (200, 204):
        return False
    if request.if_none_match is not None:
        return _matches(request.if_none_match, header(reply.headers, b"etag") or b"")
    if request.if_modified_since is not None:
        modified, since = _date(header(reply.headers, b"last-modified")), _date(request.if_modified_since)
        return modified is not None and since is not None and modified <= since
    return False


def _matches(wanted: bytes, etag: bytes) -> bool:
    if wanted.strip() == b"*":
        return True
    opaque = etag.removeprefix(b"W/")
    return any(one.strip().removeprefix(b"W/") == opaque for one in _tags(wanted))


def _tags(value: bytes) -> list[bytes]:
    """The entity tags of a list; commas inside quotes part nothing."""
    tags, current, quoted = [], bytearray(), False
    for byte in value:
        quoted ^= byte == ord('"')
        if byte == ord(",") and not quoted:
            tags.append(bytes(current))
            current.clear()
        else:
            current.append(byte)
    return [*tags, bytes(current)]


def headers_304(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that a 304 repeats (RFC 9110, 15.4.5)."""
    return [(name, value) for name, value in headers if name in _WITH_304]


def status_of(reply: Reply, age: float, road: str) -> bytes:
    """The Cache-Status (RFC 9211): how this answer came about."""
    if road == "hit":
        left = "" if reply.ttl is None else f"; ttl={ceil(reply.ttl - age)}"
        return f"{NAME}; hit{left}".encode()
    stored = "" if reply.problem else "; stored"
    why = f'; detail="{reply.problem}"' if reply.problem else ""
    return f"{NAME}; {road}{stored}{why}".encode()


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isascii() and value.isdecimal() and len(value) < 16 else None  # noqa: PLR2004  # more seconds than there will be


def _date(value: bytes | None) -> float | None:
    parsed = None if value is None else parsedate_tz(_text(value))
    return None if parsed is None else float(mktime_tz(parsed))


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip()


def _text_or_none(value: bytes | None) -> str | None:
    return None if value is None else _text(value)


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))

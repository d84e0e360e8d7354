"""Where a Redis server is, read from a URL and checked at once: hosts, credentials, database, TLS."""

import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote

from genesis_cache.model.errors import SettingsError
from genesis_cache.model.urls import masked, parts_of

_PORT = 6379
_SENTINEL_PORT = 26379
_LARGEST_PORT = 65535
_TLS_VERSIONS = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}
_CERT_REQUIREMENTS = ("required", "optional", "none")
_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}
_NAME = re.compile(r"[!-~]{1,128}")

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """A server, a group of Sentinels or a cluster, and how to be let in."""

    kind: str
    """``single``, ``sentinel`` or ``cluster``."""
    hosts: tuple[Host, ...]
    """The server, the Sentinels, or some nodes of the cluster; empty for a Unix socket."""
    path: str | None = None
    """Of a Unix socket."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    master: str = ""
    """The name under which the Sentinels know the primary."""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    client_name: str = "genesis-cache"
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """Its address without credentials, for sentences."""
        if self.path is not None:
            return self.path
        where = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.master} of {where}" if self.master else where


def place_of(url: str) -> Place:
    """The place that a URL names; `SettingsError` with the remedy for one that cannot be right.

    Parameters as redis-py reads them, less those that would change how this cache talks to a server. Certificates are
    verified unless ``ssl_cert_reqs=none`` says otherwise.
    """
    try:
        parts = parts_of(url)
    except ValueError:
        raise SettingsError(f"REDIS_URL is {masked(url)!r}, which is no URL: {_shape('redis')}") from None
    reader = _Reader(url, parts)
    if parts.scheme == "redis+sentinel":
        return reader.sentinel()
    if parts.scheme == "redis+cluster":
        return reader.cluster()
    if parts.scheme in {"redis", "rediss"}:
        return reader.single()
    raise SettingsError(f"REDIS_URL is {masked(url)!r}: {_shape('redis')}")


def _shape(scheme: str) -> str:
    shapes = {
        "redis": "write redis://localhost:6379/0, or redis:///run/redis.sock for a Unix socket",
        "rediss": "write rediss://user:password@host:6379/0",
        "redis+sentinel": "write redis+sentinel://host1:26379,host2:26379/name-of-the-primary/0",
        "redis+cluster": "write redis+cluster://host1:6379,host2:6379",
    }
    return shapes.get(scheme, shapes["redis"])


class _Reader:
    """One URL while it is read."""

    def __init__(self, url: str, parts: SplitResult) -> None:
        self._url = url
        self._scheme = parts.scheme
        self._path = unquote(parts.path)
        credentials, at, where = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        self._user = unquote(user) or None if at else None
        self._password = unquote(password) or None if at else None
        self._where = where
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        self._given = dict(pairs)
        if len(self._given) < len(pairs):
            raise self._wrong("names a parameter twice", "say each once")
        if parts.fragment:
            raise self._wrong("has a '#' in it", "write a '#' in a password as %23")

    def single(self) -> Place:
        """One server, by host or by Unix socket."""
        path = self._path.rstrip("/") if self._path.strip("/").isdecimal() else self._path
        if not self._where and path.strip("/") and not path.strip("/").isdecimal():
            if self._scheme == "rediss":
                raise self._wrong("names a Unix socket, which has no TLS", "use redis:///path")
            return self._place("single", (), path=path)
        hosts = self._hosts(_PORT) if self._where else (("localhost", _PORT),)
        if len(hosts) > 1:
            raise self._wrong("names several hosts", "use redis+cluster:// or redis+sentinel:// for these")
        return self._place("single", hosts, database=path.strip("/"))

    def sentinel(self) -> Place:
        """A primary that Sentinels know."""
        master, _, database = self._path.strip("/").partition("/")
        if not _NAME.fullmatch(master) or not self._where:
            raise self._wrong("does not name hosts and the primary", _shape(self._scheme))
        return self._place("sentinel", self._hosts(_SENTINEL_PORT), database=database, master=master)

    def cluster(self) -> Place:
        """A cluster, by some of its nodes."""
        if not self._where:
            raise self._wrong("names no host", _shape(self._scheme))
        if self._path.strip("/") not in {"", "0"} or self._given.get("db", "0") != "0":
            raise self._wrong("names a database, but a cluster has only number 0", "leave it out")
        return self._place("cluster", self._hosts(_PORT))

    def _place(
        self, kind: str, hosts: tuple[Host, ...], *, path: str | None = None, database: str = "", master: str = ""
    ) -> Place:
        take = self._given.pop
        said = take("db", "") or database
        place = Place(
            kind,
            hosts,
            path,
            self._whole(said or "0", "database"),
            take("username", "") or self._user,
            take("password", "") or self._password,
            master,
            take("sentinel_username", "") or None if master else None,
            take("sentinel_password", "") or None if master else None,
            take("client_name", "") or "genesis-cache",
            self._tls(),
        )
        if take("protocol", "3") != "3":
            raise self._wrong("asks for another protocol than 3", "leave protocol out: Redis 6.2 and newer speak it")
        if self._given:
            raise self._wrong(
                f"has the parameter {min(self._given)!r}, which is not known here",
                "leave it out: limits and timeouts are set by REDIS_MAX_CONNECTIONS, REDIS_CONNECTION_TIMEOUT and "
                "REDIS_SOCKET_TIMEOUT",
            )
        if not _NAME.fullmatch(place.client_name):
            raise self._wrong("has a client_name with blanks or control characters", "use letters, digits and dashes")
        return place

    def _hosts(self, default_port: int) -> tuple[Host, ...]:
        return tuple(self._host(text.strip(), default_port) for text in self._where.split(","))

    def _host(self, text: str, default_port: int) -> Host:
        if text.startswith("["):  # an IPv6 address, whose colons are not the port's
            host, bracket, rest = text[1:].partition("]")
            rest = rest if bracket and (not rest or rest[0] == ":") else ":?"
        else:
            host, colon, rest = text.partition(":")
            rest = colon + rest
        port = default_port if not rest else self._whole(rest[1:], "port")
        if not host or not 0 < port <= _LARGEST_PORT:
            raise self._wrong(f"has no host and port in {text!r:.60}", _shape(self._scheme))
        return unquote(host), port

    def _whole(self, text: str, what: str) -> int:
        if not (text.isascii() and text.isdecimal()):
            raise self._wrong(f"has the {what} {text!r:.40}", f"it must be a whole number: {_shape(self._scheme)}")
        return int(text)

    def _flag(self, name: str, *, default: bool) -> bool:
        text = self._given.pop(name, str(default)).lower()
        if text not in _TRUE | _FALSE:
            raise self._wrong(f"has {name}={text!r:.40}", "it must be true or false")
        return text in _TRUE

    def _one_of(self, name: str, words: tuple[str, ...]) -> str | None:
        text = self._given.pop(name, "").lower()
        if text and text not in words:
            raise self._wrong(f"has {name}={text!r:.40}", f"it must be one of {', '.join(words)}")
        return text or None

    def _tls(self) -> ssl.SSLContext | None:
        """The TLS settings; verification of certificates and host names is on unless it is said to be off."""
        wanted = self._scheme == "rediss" or self._flag("ssl", default=False)
        if not wanted:
            if said := [name for name in self._given if name.startswith("ssl_")]:
                raise self._wrong(f"has {said[0]} without TLS", "write rediss://, or ssl=true for several hosts")
            return None
        take = self._given.pop
        authorities = take("ssl_ca_certs", None), take("ssl_ca_path", None), take("ssl_ca_data", None)
        certificate, key, secret = take("ssl_certfile", None), take("ssl_keyfile", None), take("ssl_password", None)
        requirement = self._one_of("ssl_cert_reqs", _CERT_REQUIREMENTS) or "required"
        least = self._one_of("ssl_min_version", tuple(_TLS_VERSIONS))
        names_checked = self._flag("ssl_check_hostname", default=requirement != "none")
        if requirement == "none" and names_checked:
            raise self._wrong("checks host names without certificates", "leave one of the two parameters out")
        try:
            context = ssl.create_default_context(cafile=authorities[0], capath=authorities[1], cadata=authorities[2])
            if certificate is not None:
                context.load_cert_chain(certificate, key, secret)
        except (OSError, ValueError) as error:
            raise self._wrong(f"names certificates that cannot be read ({error})", "check the paths") from None
        context.check_hostname = names_checked
        context.verify_mode = getattr(ssl, f"CERT_{requirement.upper()}")
        if least is not None:
            context.minimum_version = _TLS_VERSIONS[least]
        return context

    def _wrong(self, what: str, remedy: str) -> SettingsError:
        return SettingsError(f"REDIS_URL {masked(self._url)!r} {what}: {remedy}")

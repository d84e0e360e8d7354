"""URLs of Redis: what they name, and what is told where they cannot be right."""

import ssl

import pytest

from genesis_cache.model.clock import SystemClock
from genesis_cache.model.errors import SettingsError
from genesis_cache.model.settings import CacheSettings
from genesis_cache.tiers.redis.place import place_of
from genesis_cache.tiers.redis.store import redis_store


@pytest.mark.parametrize(
    ("url", "hosts", "path", "database"),
    [
        ("redis://", (("localhost", 6379),), None, 0),
        ("redis:///3", (("localhost", 6379),), None, 3),
        ("redis://cache.example", (("cache.example", 6379),), None, 0),
        ("redis://cache.example:7000/2", (("cache.example", 7000),), None, 2),
        ("redis://cache.example/2?db=5", (("cache.example", 6379),), None, 5),
        ("redis://[::1]:7000/2", (("::1", 7000),), None, 2),
        ("redis:///run/redis.sock", (), "/run/redis.sock", 0),
        ("redis:///run/redis.sock?db=4", (), "/run/redis.sock", 4),
    ],
)
def test_one_server(url: str, hosts: tuple[tuple[str, int], ...], path: str | None, database: int) -> None:
    """Host, port, database number and Unix socket are read as redis-py reads them."""
    place = place_of(url)
    assert (place.kind, place.hosts, place.path, place.database) == ("single", hosts, path, database)
    assert place.tls is None


def test_credentials_are_read_and_never_shown() -> None:
    """User and password may be quoted; neither a repr nor a sentence has the password."""
    place = place_of("redis://me:p%40ss%2Fword@cache.example:7000/1")
    assert (place.username, place.password) == ("me", "p@ss/word")
    assert place_of("redis://:p%40ss%2Fword@h").password == place.password
    assert place_of("redis://h?username=me&password=p%40ss%2Fword").password == place.password
    assert "word=" not in repr(place)
    assert place.shown == "cache.example:7000"


def test_sentinels_and_clusters_have_many_hosts() -> None:
    """Sentinels name the primary in the path; a cluster has no database number."""
    place = place_of("redis+sentinel://me:pw@one,two:26380/mymaster/2?sentinel_password=other")
    assert (place.kind, place.hosts) == ("sentinel", (("one", 26379), ("two", 26380)))
    assert (place.master, place.database, place.username, place.sentinel_password) == ("mymaster", 2, "me", "other")
    place = place_of("redis+cluster://one:7000,two,[::1]:7002")
    assert (place.kind, place.hosts) == ("cluster", (("one", 7000), ("two", 6379), ("::1", 7002)))


def test_tls_verifies_unless_told_otherwise() -> None:
    """``rediss://`` checks certificates and host names; switching that off has to be said."""
    tls = place_of("rediss://h").tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)
    lax = place_of("rediss://h?ssl_cert_reqs=none").tls
    assert lax is not None
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)
    newer = place_of("redis+cluster://a,b?ssl=true&ssl_min_version=TLSv1.3").tls
    assert newer is not None
    assert newer.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h:0", "no host and port"),
        ("redis://h:99999", "no host and port"),
        ("redis://h:port", "port"),
        ("redis://h/mine", "database"),
        ("redis://a,b", "redis\\+cluster"),
        ("redis://h?max_connections=3", "REDIS_MAX_CONNECTIONS"),
        ("redis://h?decode_responses=true", "decode_responses"),
        ("redis://h?protocol=2", "protocol"),
        ("redis://h?db=1&db=2", "twice"),
        ("redis://h?client_name=a%20b", "client_name"),
        ("redis://h?ssl_cert_reqs=none", "rediss://"),
        ("rediss://h?ssl_cert_reqs=perhaps", "required, optional, none"),
        ("rediss://h?ssl_check_hostname=maybe", "true or false"),
        ("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=true", "host names"),
        ("rediss://h?ssl_ca_certs=%2Fnot%2Fthere", "cannot be read"),
        ("rediss:///run/redis.sock", "no TLS"),
        ("redis+sentinel://a,b", "primary"),
        ("redis+sentinel:///mymaster", "hosts"),
        ("redis+cluster://", "no host"),
        ("redis+cluster://a/1", "database"),
        ("redis://:p#w@h", "%23"),
    ],
)
def test_what_cannot_be_right_is_told_at_once(url: str, said: str) -> None:
    """A URL that cannot work is a SettingsError before anything is connected, with the remedy."""
    with pytest.raises(SettingsError, match=said):
        place_of(url)


def test_a_wrong_url_shows_no_password() -> None:
    """The error names the URL, but not the secret in it."""
    with pytest.raises(SettingsError) as raised:
        place_of("redis://me:hunter2@h:0?password=hunter3")
    assert "hunter" not in str(raised.value)


def test_a_store_needs_a_url() -> None:
    """Without REDIS_URL the error says which variable to set."""
    with pytest.raises(SettingsError, match="REDIS_URL"):
        redis_store(CacheSettings(), 1, SystemClock())

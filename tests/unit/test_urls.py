"""URLs: what cannot be right fails before anything is connected, with the remedy, and never shows a secret."""

from itertools import product
from urllib.parse import quote, unquote, urlsplit

import pytest

from genesis_cache.model.errors import SettingsError
from genesis_cache.model.settings import CacheSettings
from genesis_cache.model.urls import TierUrl, caution, masked, parse_tier_url

SERVERS = {
    "redis": "redis://{login}host:6379/0",
    "rediss": "rediss://{login}host:6379/0",
    "redis+sentinel": "redis+sentinel://{login}h1:26379,h2:26379/mymaster/0",
    "redis+cluster": "redis+cluster://{login}h1:6379,h2:6379",
    "postgresql": "postgresql://{login}host:5432/database",
    "postgres": "postgres://{login}host:5432/database",
}


@pytest.mark.parametrize(
    "url",
    [
        *(
            shape.format(login=login)
            for shape in SERVERS.values()
            for login in ("", "u:p@", ":p@", "u@", "u:p%40%25:@")
        ),
        "redis://host",
        "redis://host/",
        "redis://host:6379/15?socket_timeout=2",
        "redis://host?db=3",
        "redis://[::1]:6379/0",
        "redis://[fe80::1%eth0]/0",
        "redis:///run/redis.sock?db=1",
        "redis://:p@/run/redis.sock",
        "REDIS://Host:6379",
        "redis+sentinel://h1/my-master",
        "redis+cluster://h1/0",
        "redis+cluster://h1/?db=0",
        "postgresql://user@host",
        "postgresql:///database",
        "postgresql:///database?host=/run/postgresql&user=me@realm",
        "postgresql://%2Frun%2Fpostgresql/database",
        "postgresql://h1:5432,h2:5433/database?target_session_attrs=primary",
        "postgresql://?service=cache",
        "postgresql://u:p@host/database?listen_url=postgresql%3A%2F%2Fu%3Ap%40direct%2Fdatabase",
        "rediss://host?ssl_cert_reqs=none",
    ],
)
def test_a_url_that_can_be_right_is_taken(url: str) -> None:
    """What a client could connect to is taken as it is, as a tier and as a variable."""
    tier = parse_tier_url(url)
    assert unquote(tier.url) == unquote(url)
    name = "redis_url" if tier.kind == "redis" else "database_url"
    assert getattr(CacheSettings(**{name: url}), name) == url


WRONG = [
    ("redis://", "no host"),
    ("redis:///0", "no host"),
    ("redis://:6379/0", "empty host"),
    ("redis://u:p@:6379", "empty host"),
    ("rediss:///run/redis.sock", "no host"),
    ("redis://host/cache", "database that is no number"),
    ("redis://host/0/1", "database that is no number"),
    ("redis://host/-1", "database that is no number"),
    ("redis://host?db=x", "database that is no number"),
    ("redis://host?db=", "database that is no number"),
    ("redis://host:0", "1 to 65535"),
    ("redis://host:65536/0", "1 to 65535"),
    ("redis://host:port/0", "1 to 65535"),
    ("redis://host:-1", "1 to 65535"),
    ("redis://::1/0", r"\[::1\]"),
    ("redis://[::1/0", "brackets"),
    ("redis://h1,h2/0", r"redis\+cluster"),
    ("redis://host/0?a=1&a=2", "twice"),
    ("redis://ho st/0", "blank"),
    ("redis://host/0\n", "line break"),
    ("redis+sentinel://h1:26379", "mymaster"),
    ("redis+sentinel://h1:26379/", "mymaster"),
    ("redis+sentinel://h1:26379/0", "which primary"),
    ("redis+sentinel:///mymaster", "no host"),
    ("redis+sentinel://h1/mymaster/x", "database that is no number"),
    ("redis+sentinel://h1,,h2/mymaster", "empty host"),
    ("redis+cluster://", "no host"),
    ("redis+cluster://h1/1", "only number 0.*leave it out"),
    ("redis+cluster://h1?db=2", "only number 0"),
    ("redis+cluster://h1:1,h2:99999", "1 to 65535"),
    ("postgresql://", "no host"),
    ("postgresql://host", "no database"),
    ("postgresql://host/", "no database"),
    ("postgresql://host/a/b", "%2F"),
    ("postgresql://host:x/database", "1 to 65535"),
    ("postgresql://host/database#part", "%23"),
    ("postgresql://ho\tst/database", "blank"),
]


@pytest.mark.parametrize(("url", "said"), WRONG, ids=[url for url, _ in WRONG])
def test_a_url_that_cannot_be_right_says_what_to_write(url: str, said: str) -> None:
    """A wrong host, port, database or service name fails when the settings are made, with what would be right."""
    with pytest.raises(SettingsError, match=said):
        parse_tier_url(url)
    variable = "redis_url" if url.startswith("redis") else "database_url"
    with pytest.raises(SettingsError, match=f"(?s){variable.upper()}: .*{said}"):
        CacheSettings(**{variable: url})


@pytest.mark.parametrize(("scheme", "character"), list(product(SERVERS, "@/?#[]% \n")))
def test_an_unquoted_character_in_a_password_is_refused(scheme: str, character: str) -> None:
    """A password with a character that ends it early is refused with how to quote it, and quoted it is taken whole."""
    for password in (f"hun{character}ter2", f"hunter2{character}", f"12{character}hunter2", f"{character}ter2"):
        with pytest.raises(SettingsError, match=r"%40|%20") as caught:
            parse_tier_url(SERVERS[scheme].format(login=f"user:{password}@"))
        said = str(caught.value)
        assert "ter2" not in said
        assert "hun" not in said
        tier = parse_tier_url(SERVERS[scheme].format(login=f"user:{quote(password, safe='')}@"))
        assert unquote(urlsplit(tier.url).password or "") == password


@pytest.mark.parametrize(
    "url",
    [
        "redis://hunter2@host/0",
        "redis://user:hunter2@host/0",
        "redis://user:hunter2",
        "redis://:hunter2",
        "redis://host,user:hunter2/0",
        "redis://[::1]:hunter2/0",
        "redis://user:65536777@host:hunter2",
        "user:hunter2@host",
        "user:hunter2",
        "redis:user:hunter2@host",
        "sqlite://user:hunter2@host/x.db",
        "disk://user:hunter2@host/x",
        "REDIS://user:hunter2@host",
        "tape://user:hunter2@host",
        "postgresql:/x?password=hunter2",
        "postgresql://h/x?sslpassword=hunter2",
        "postgresql://h/x?PASSWORD=hunter2",
        "postgresql://h/x?a=1&pass%77ord=hunter2",
        "postgresql://h/x?listen_url=postgresql%3A%2F%2Fu%3Ahunter2%40h%2Fx",
        "postgresql://h/x?listen_url=postgresql://u:hunter2@h/x",
        "redis://h/0?sentinel_password=hunter2&auth_token=hunter2&client_secret=hunter2&pwd=hunter2",
        "redis://h/0?ssl_passphrase=hunter2",
        "redis://u:hunter2@h\u2100st/0",
        "memory://u:hunter2@h",
        "redis://u:a@hunter2@h",
        "redis://u:hun#hunter2@h",
        "rediss://hunter2@host/0",
        "redis+sentinel://hunter2@host/m",
        "tape://hunter2@host",
        "postgresql://u%3Ahunter2@host/db",
        "postgresql://u%3ahunter2@host/db",
        "postgresql://a@hunter2@host/db",
        "postgresql://a/hunter2@host/db",
    ],
)
def test_no_secret_is_shown(url: str) -> None:
    """However a URL is written, its password is not in what is shown of it, nor in the error that refuses it."""
    assert "hunter2" not in masked(url)
    assert "hunter2" not in repr(TierUrl("redis", url))
    for make in (
        parse_tier_url,
        lambda text: CacheSettings(redis_url=text),
        lambda text: CacheSettings(database_url=text),
    ):
        try:
            shown = repr(make(url))
        except SettingsError as error:
            shown = f"{error} {error.__cause__}"
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pw@host:6379/0?db=1", "redis://user:***@host:6379/0?db=1"),
        ("redis+sentinel://u:pw@a:1,b:2/m/0", "redis+sentinel://u:***@a:1,b:2/m/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("localhost:6379", "localhost:6379"),
        ("disk:///var/me@home/x", "disk:///var/me@home/x"),
        ("sqlite:///me@home/x.db", "sqlite:///me@home/x.db"),
        ("redis:///run/redis.sock", "redis:///run/redis.sock"),
        ("postgresql://h:5432/x?sslmode=require", "postgresql://h:5432/x?sslmode=require"),
        ("postgresql://postgres@host/db", "postgresql://postgres@host/db"),
        ("postgres://me%40corp@h:5432/x", "postgres://me%40corp@h:5432/x"),
        ("POSTGRESQL://cache-user@/x", "POSTGRESQL://cache-user@/x"),
        ("redis://word@host", "redis://:***@host"),
    ],
)
def test_the_rest_is_shown(url: str, shown: str) -> None:
    """What is no secret stays, so that a URL in a message can be recognised."""
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", None),
        ("?ssl_cert_reqs=required", None),
        ("?ssl_cert_reqs=none", "not verified"),
        ("?ssl_cert_reqs=NONE&db=0", "not verified"),
        ("?ssl_check_hostname=false", "another server's"),
    ],
)
def test_tls_that_verifies_nobody_is_allowed_and_told(query: str, said: str | None) -> None:
    """Certificates need not be verified where somebody says so, and there is a sentence that says what it means."""
    url = f"rediss://u:hunter2@host/0{query}"
    assert parse_tier_url(url).kind == "redis"
    told = caution(url)
    assert (told is None) == (said is None)
    if told and said:
        assert said in told
        assert "hunter2" not in told

"""Settings: what is said once about a cache, from the environment or in code."""

import os
import pickle
from base64 import b64encode, urlsafe_b64encode
from copy import deepcopy
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest

from genesis_cache.model.errors import SettingsError
from genesis_cache.model.settings import (
    CacheSettings,
    EvictionPolicyName,
    OnPartition,
    ReadStrategy,
    WriteStrategy,
)
from genesis_cache.model.urls import masked, parse_tier_url

SECRET = bytes(range(200, 232))

DEFAULTS = {
    "redis_url": None,
    "redis_max_connections": 50,
    "redis_connection_timeout": 20,
    "redis_socket_timeout": 5,
    "l1_cache_size_mb": 50,
    "l2_cache_size_mb": 500,
    "l3_cache_size_mb": 2000,
    "l4_cache_size_mb": 2000,
    "l1_cache_max_entries": None,
    "cache_read_strategy": "READ_THROUGH",
    "cache_write_strategy": "WRITE_THROUGH",
    "cache_eviction_policy": "ADAPTIVE",
    "cache_tiers": None,
    "cache_name": "default",
    "cache_disk_path": ".genesis-cache",
    "database_url": None,
    "cache_environment": None,
    "cache_default_ttl": 3600,
    "cache_compression": "auto",
    "cache_prefetch": "auto",
    "cache_cleanup_interval": 300,
    "cache_encryption_keys": (),
    "cache_control_token": None,
    "cache_max_staleness": 1.0,
    "cache_on_partition": "serve",
    "cache_canary_interval": 5.0,
    "cache_refresh_resident": "off",
    "cache_far_budget_ms": 50,
    "cache_max_loads": 64,
    "cache_load_deadline": 300,
    "cache_max_abandoned_loads": 64,
    "cache_language": "en",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_default_is_the_documented_one(name: str) -> None:
    """An empty environment and no arguments at all give the documented defaults."""
    assert getattr(CacheSettings(), name) == DEFAULTS[name]
    assert getattr(CacheSettings.from_env({}), name) == DEFAULTS[name]


def test_every_setting_is_documented_here() -> None:
    """No setting exists that this page does not know."""
    assert set(CacheSettings().to_dict()) == {*DEFAULTS, "content_types"}


def test_the_environment_is_read() -> None:
    """Each variable reaches its field, words in any case, durations as text."""
    said = {
        "REDIS_URL": "redis://localhost:6379/0",
        "REDIS_MAX_CONNECTIONS": "7",
        "L1_CACHE_SIZE_MB": "12.5",
        "L1_CACHE_MAX_ENTRIES": "9",
        "CACHE_READ_STRATEGY": "refresh_ahead",
        "CACHE_WRITE_STRATEGY": "Write_Behind",
        "CACHE_EVICTION_POLICY": "s3fifo",
        "CACHE_TIERS": "Memory, redis",
        "CACHE_DEFAULT_TTL": "5m",
        "CACHE_ON_PARTITION": "BYPASS",
        "CACHE_LANGUAGE": "ES",
        "CACHE_TTL_INVOICES": "1d",
        "CACHE_TTL_PRODUCTOS": "60",
    }
    settings = CacheSettings.from_env(said)
    assert settings.redis_url == "redis://localhost:6379/0"
    assert settings.redis_max_connections == 7
    assert settings.l1_cache_size_mb == 12.5
    assert settings.l1_cache_max_entries == 9
    assert settings.cache_read_strategy is ReadStrategy.REFRESH_AHEAD
    assert settings.cache_write_strategy is WriteStrategy.WRITE_BEHIND
    assert settings.cache_eviction_policy is EvictionPolicyName.S3FIFO
    assert settings.tier_names() == ("memory", "redis")
    assert settings.cache_default_ttl == 300.0
    assert settings.cache_on_partition is OnPartition.BYPASS
    assert settings.cache_language == "es"
    assert settings.content_types["invoices"] == 86400.0
    assert settings.content_types["productos"] == 60.0
    assert settings.content_types["embeddings"] == 86400.0


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument from_env() reads the environment of the process."""
    monkeypatch.setenv("CACHE_NAME", "shop")
    assert CacheSettings.from_env().cache_name == "shop"
    assert os.environ["CACHE_NAME"] == "shop"


def test_an_empty_variable_is_not_set() -> None:
    """``REDIS_URL=`` in a compose file means no Redis."""
    assert CacheSettings.from_env({"REDIS_URL": "", "CACHE_DEFAULT_TTL": " "}) == CacheSettings()


def test_no_expiry_can_be_said_in_the_environment() -> None:
    """A default ttl of ``none`` makes entries live until they are evicted."""
    assert CacheSettings.from_env({"CACHE_DEFAULT_TTL": "none"}).cache_default_ttl is None


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({}, ("memory", "disk")),
        ({"REDIS_URL": "redis://r"}, ("memory", "redis")),
        ({"DATABASE_URL": "sqlite:///x.db"}, ("memory", "database")),
        ({"REDIS_URL": "redis://r", "DATABASE_URL": "postgresql://d/x"}, ("memory", "redis", "database")),
        ({"CACHE_TIERS": "disk,memory"}, ("disk", "memory")),
    ],
)
def test_tiers_follow_from_what_is_set(said: dict[str, str], names: tuple[str, ...]) -> None:
    """Servers that are named are used, and the disk where none is; an explicit order wins."""
    assert CacheSettings.from_env(said).tier_names() == names


@pytest.mark.parametrize(
    ("preset", "entries", "disk_mb", "compression"),
    [("DEVELOPMENT", 500, 200, "off"), ("production", 1000, 500, "auto"), ("Testing", 100, 50, "off")],
)
def test_presets(preset: str, entries: int, disk_mb: int, compression: str) -> None:
    """An environment's name sets entries, the disk's size wherever it stands, and compression."""
    settings = CacheSettings.from_env({"CACHE_ENVIRONMENT": preset})
    assert settings.l1_cache_max_entries == entries
    assert settings.capacity_mb(2, "disk") == disk_mb
    assert settings.capacity_mb(4, "disk") == disk_mb
    assert settings.capacity_mb(2, "redis") == 500
    assert settings.capacity_mb(1, "memory") == 50
    assert settings.cache_compression == compression
    assert CacheSettings(cache_environment=preset) == settings


def test_a_variable_beats_a_preset() -> None:
    """What is set by hand is not overruled by the environment's name."""
    said = {
        "CACHE_ENVIRONMENT": "TESTING",
        "L1_CACHE_MAX_ENTRIES": "7",
        "L2_CACHE_SIZE_MB": "9",
        "CACHE_COMPRESSION": "zstd",
    }
    settings = CacheSettings.from_env(said)
    assert settings.l1_cache_max_entries == 7
    assert settings.capacity_mb(2, "disk") == 9
    assert settings.capacity_mb(3, "disk") == 50
    assert settings.cache_compression == "zstd"


def test_capacity_goes_by_position() -> None:
    """A size belongs to a place in the look-up order, whatever stands there."""
    settings = CacheSettings(l1_cache_size_mb=1, l2_cache_size_mb=2, l3_cache_size_mb=3, l4_cache_size_mb=4)
    assert [settings.capacity_mb(n, "disk") for n in (1, 2, 3, 4)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "localhost:6379"),
        ("DATABASE_URL", "mysql://h/x"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("REDIS_MAX_CONNECTIONS", "0"),
        ("REDIS_MAX_CONNECTIONS", "many"),
        ("REDIS_SOCKET_TIMEOUT", "-1"),
        ("L1_CACHE_SIZE_MB", "0"),
        ("L2_CACHE_SIZE_MB", "nan"),
        ("L1_CACHE_MAX_ENTRIES", "1.5"),
        ("CACHE_READ_STRATEGY", "READ_SOMETIMES"),
        ("CACHE_WRITE_STRATEGY", "x"),
        ("CACHE_EVICTION_POLICY", "FIFO"),
        ("CACHE_TIERS", "memory,tape"),
        ("CACHE_TIERS", "memory,memory"),
        ("CACHE_TIERS", ","),
        ("CACHE_TIERS", "memory,redis"),
        ("CACHE_NAME", "a\nb"),
        ("CACHE_NAME", "n" * 300),
        ("CACHE_ENVIRONMENT", "STAGING"),
        ("CACHE_DEFAULT_TTL", "0"),
        ("CACHE_TTL_INVOICES", "soon"),
        ("CACHE_COMPRESSION", "gzip"),
        ("CACHE_PREFETCH", "yes"),
        ("CACHE_CLEANUP_INTERVAL", "0"),
        ("CACHE_MAX_STALENESS", "none"),
        ("CACHE_ON_PARTITION", "panic"),
        ("CACHE_FAR_BUDGET_MS", "-5"),
        ("CACHE_MAX_LOADS", "0"),
        ("CACHE_LOAD_DEADLINE", "x"),
        ("CACHE_MAX_ABANDONED_LOADS", "-1"),
        ("CACHE_LANGUAGE", "fr"),
    ],
)
def test_a_bad_value_names_the_variable(variable: str, value: str) -> None:
    """A bad value fails at once, and the message names the variable."""
    with pytest.raises(SettingsError, match=variable):
        CacheSettings.from_env({variable: value})


def test_a_bad_word_says_what_is_allowed() -> None:
    """The message of a bad word lists the good ones and repeats the bad one."""
    with pytest.raises(SettingsError, match=r"'FIFO'.*ADAPTIVE, LRU, LFU, S3FIFO, TINYLFU"):
        CacheSettings(cache_eviction_policy="FIFO")  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize(
    "said",
    [
        {"REDIS_URL": "http://user:hunter2@host"},
        {"REDIS_URL": "redis://user:hunter2@host:99999"},
        {"DATABASE_URL": "postgresql://user:hun/ter2hunter2@host/x"},
        {"DATABASE_URL": "postgresql://user:@hunter2@host:bad/x"},
        {"DATABASE_URL": "mysql://host/x?password=hunter2"},
        {"CACHE_ENCRYPTION_KEYS": "k:hunter2"},
        {"CACHE_CONTROL_TOKEN": "hunter2 and\nmore"},
    ],
)
def test_an_error_shows_no_secret(said: dict[str, str]) -> None:
    """A password, key or token never stands in an error."""
    with pytest.raises(SettingsError) as caught:
        CacheSettings.from_env(said)
    assert "hunter2" not in str(caught.value)


def test_the_settings_show_no_secret() -> None:
    """Printing the settings, or asking for them as a dict, shows no password, key or token."""
    key = SECRET.hex()
    settings = CacheSettings.from_env(
        {
            "REDIS_URL": "redis://:hunter2@host/0?sentinel_password=hunter2",
            "DATABASE_URL": "postgresql://me:hunter2@host/x",
            "CACHE_ENCRYPTION_KEYS": f"new:{key}",
            "CACHE_CONTROL_TOKEN": "hunter2",
        }
    )
    for shown in (repr(settings), str(settings), str(settings.to_dict())):
        assert "hunter2" not in shown
        assert key not in shown
        assert repr(SECRET) not in shown
    assert (settings.cache_control_token or "").startswith("hunter")


@pytest.mark.parametrize(
    "text",
    [
        SECRET.hex(),
        SECRET.hex().upper(),
        b64encode(SECRET).decode(),
        urlsafe_b64encode(SECRET).decode(),
        urlsafe_b64encode(SECRET).decode().rstrip("="),
    ],
)
def test_a_key_is_read_in_each_spelling(text: str) -> None:
    """A key of 32 bytes may be written in hex or in base64 of either alphabet."""
    (key,) = CacheSettings.from_env({"CACHE_ENCRYPTION_KEYS": f"a:{text}"}).cache_encryption_keys
    assert (key.id, key.secret) == ("a", SECRET)


def test_keys_keep_their_order_and_have_different_names() -> None:
    """The first key encrypts, so order counts; two keys of one name cannot be told apart."""
    settings = CacheSettings.from_env({"CACHE_ENCRYPTION_KEYS": f"new:{SECRET.hex()}, old:{bytes(32).hex()}"})
    assert [key.id for key in settings.cache_encryption_keys] == ["new", "old"]
    with pytest.raises(SettingsError, match="two keys"):
        CacheSettings.from_env({"CACHE_ENCRYPTION_KEYS": f"a:{SECRET.hex()},a:{bytes(32).hex()}"})


def test_overrides_take_both_names_and_keep_a_preset() -> None:
    """Settings are replaced by name with or without ``cache_``; what a preset gave stays the preset's."""
    settings = CacheSettings(cache_environment="TESTING").with_overrides(name="shop", cache_language="es")
    assert (settings.cache_name, settings.cache_language) == ("shop", "es")
    assert settings.capacity_mb(2, "disk") == 50
    assert settings.with_overrides(environment="PRODUCTION").l1_cache_max_entries == 1000
    with pytest.raises(SettingsError, match="no setting 'nam'"):
        settings.with_overrides(nam="x")


def test_urls_name_tiers_and_limits(tmp_path: Path) -> None:
    """A list of URLs says which tiers there are, in which order, where and how big."""
    settings = CacheSettings().with_urls(
        "memory://?max_mb=10&max_entries=3", f"disk://{tmp_path}?max_mb=20", "redis://h/1?max_mb=30&socket_timeout=2"
    )
    assert settings.tier_names() == ("memory", "disk", "redis")
    assert [settings.capacity_mb(n, t) for n, t in enumerate(settings.tier_names(), 1)] == [10, 20, 30]
    assert settings.l1_cache_max_entries == 3
    assert settings.cache_disk_path == str(tmp_path)
    assert settings.redis_url == "redis://h/1?socket_timeout=2"


@pytest.mark.parametrize(
    ("url", "kind", "path"),
    [
        ("memory://", "memory", None),
        ("disk:///var/cache", "disk", "/var/cache"),
        ("disk://./here", "disk", "./here"),
        ("disk://here/below", "disk", "here/below"),
        ("disk://", "disk", None),
        ("disk:///a%20b", "disk", "/a b"),
        ("sqlite:///here.db", "database", "here.db"),
        ("sqlite:////var/here.db", "database", "/var/here.db"),
        ("postgresql://h/x", "database", None),
        ("rediss://h", "redis", None),
        ("redis+sentinel://a:1,b:2/service", "redis", None),
        ("redis+cluster://a:1,b:2", "redis", None),
    ],
)
def test_each_kind_of_url_is_read(url: str, kind: str, path: str | None) -> None:
    """Every documented URL names its tier and place, SQLite's as SQLAlchemy reads it."""
    tier = parse_tier_url(url)
    assert (tier.kind, tier.path) == (kind, path)


@pytest.mark.parametrize(
    "url",
    [
        "tape://x",
        "here.db",
        "memory://?max=5",
        "memory://host",
        "disk:///x?max_entries=5",
        "memory://?max_mb=-1",
        "memory://?max_mb=x",
        "memory://?max_entries=0.5",
        "sqlite://",
        "sqlite://host/x",
        "redis://h:99999",
        "",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """A wrong URL fails before anything is opened."""
    with pytest.raises(SettingsError):
        CacheSettings().with_urls(url)


def test_two_tiers_of_one_kind_are_refused() -> None:
    """Two URLs for one kind of tier cannot both be meant."""
    with pytest.raises(SettingsError, match="second database"):
        CacheSettings().with_urls("sqlite:///a.db", "postgresql://h/x")
    with pytest.raises(SettingsError, match="no URL"):
        CacheSettings().with_urls()


def test_a_masked_url_still_says_where() -> None:
    """Without its secrets a URL can still be recognised."""
    assert masked("redis://me:pw@host:6379/0?a=1&password=pw") == "redis://me:***@host:6379/0?a=1&password=***"
    assert masked("sqlite:///dir@home/x.db") == "sqlite:///dir@home/x.db"


def test_settings_do_not_change() -> None:
    """Settings that a cache was made from cannot change under it."""
    settings = CacheSettings()
    with pytest.raises(FrozenInstanceError):
        settings.cache_name = "x"  # type: ignore[misc]  # the mistake under test
    with pytest.raises(TypeError):
        settings.content_types["x"] = 1  # type: ignore[index]  # the mistake under test
    with pytest.raises(TypeError):
        settings.content_types.update(x=1)  # type: ignore[attr-defined]  # as above


def test_settings_are_values() -> None:
    """Settings can be compared, be keys, be listed, copied, and sent to another process."""
    settings = CacheSettings.from_env(
        {"CACHE_ENVIRONMENT": "TESTING", "CACHE_TTL_INVOICES": "1d", "CACHE_NAME": "shop"}
    )
    same = settings.with_overrides()
    assert same == settings
    assert hash(same) == hash(settings)
    assert settings != CacheSettings()
    for copied in (deepcopy(settings), pickle.loads(pickle.dumps(settings))):  # noqa: S301  # what multiprocessing does
        assert copied == settings
        assert copied.capacity_mb(2, "disk") == 50
    assert asdict(settings)["content_types"]["invoices"] == 86400.0

"""The URL of a PostgreSQL store: what is ours is taken off, what cannot be right is refused without its secrets."""

import pytest

from genesis_cache.model.errors import SettingsError
from genesis_cache.model.settings import CacheSettings
from genesis_cache.model.urls import masked
from genesis_cache.testing.clock import FakeClock
from genesis_cache.tiers.postgres.place import Place, place_of
from genesis_cache.tiers.postgres.store import postgres_store


def test_a_plain_url_is_logged_and_listens() -> None:
    """Without parameters of ours the tables are logged, the schema is ours, and the same URL listens."""
    url = "postgresql://user:secret@host:5433/shop"
    assert place_of(url) == Place(url, url, is_logged=True, is_pooled=False, schema="genesis_cache")


def test_postgres_means_postgresql() -> None:
    """The short scheme is the same."""
    assert place_of("postgres://host/shop") == place_of("postgresql://host/shop")


def test_our_parameters_are_not_sent_to_the_server() -> None:
    """They are taken off; the client's own stay as they were."""
    place = place_of("postgresql://host/shop?logged=false&sslmode=require&schema=mine&options=-c%20a%3Db")
    assert place.url == "postgresql://host/shop?sslmode=require&options=-c%20a%3Db"
    assert (place.is_logged, place.schema) == (False, "mine")


def test_behind_a_pooler_only_a_second_url_listens() -> None:
    """A pooler in transaction mode cannot LISTEN: the log is polled, or heard past it."""
    assert place_of("postgresql://host/shop?pooler=transaction").listen_url is None
    direct = "postgresql://u:secret@other/shop"
    quoted = "postgresql%3A%2F%2Fu%3Asecret%40other%2Fshop"
    place = place_of(f"postgresql://host/shop?pooler=transaction&listen_url={quoted}")
    assert place.is_pooled
    assert place.listen_url == direct


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("logged=perhaps", "logged must be true or false"),
        ("pooler=session", "pooler must be 'transaction'"),
        ("schema=Mine", "lower-case letters"),
        ("schema=pg_mine", "lower-case letters"),
        ("schema=a;drop", "lower-case letters"),
        ("sslmode=sometimes", "sslmode must be one of"),
        ("poler=transaction", "unknown parameter 'poler'"),
        ("listen_url=redis%3A%2F%2Fhost", "listen_url must be a postgresql:// URL"),
    ],
)
def test_what_cannot_be_right_is_refused_at_once(query: str, said: str) -> None:
    """The error names the parameter and what is allowed, and never the password."""
    settings = CacheSettings(database_url=f"postgresql://user:canary@host/shop?{query}")
    with pytest.raises(SettingsError, match=said) as caught:
        postgres_store(settings, 2**20, FakeClock())
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", [None, "sqlite:///here.db"])
def test_a_store_needs_the_url_of_a_server(url: str | None) -> None:
    """No URL, or another database's, is a plain error."""
    with pytest.raises(SettingsError, match="postgresql://"):
        postgres_store(CacheSettings(database_url=url), 2**20, FakeClock())


def test_no_secret_is_shown() -> None:
    """Neither the place's own text nor a masked URL shows a password, the quoted one of listen_url included."""
    url = "postgresql://u:canary@host/shop?pooler=transaction&listen_url=postgresql%3A%2F%2Fu%3Acanary%40other"
    assert "canary" not in repr(place_of(url))
    assert "canary" not in masked(url)

"""Messages: the texts of the log, in two languages."""

import pytest

from genesis_cache.model import messages


def test_spanish_is_as_the_first_document_wrote_it() -> None:
    """With CACHE_LANGUAGE=es the three lines of the first document come out letter by letter."""
    assert messages.hit("es", "l1", "user:123:profile") == "Cache hit L1: user:123:profile"
    assert messages.miss("es", "metrics:daily") == "Cache miss completo: metrics:daily"
    assert messages.tier_down("es", "redis") == "⚠️ Redis no disponible - usando solo caché en memoria"


def test_english_says_the_same() -> None:
    """In English the lines read alike."""
    assert messages.hit("en", "l1", "user:123:profile") == "Cache hit L1: user:123:profile"
    assert messages.miss("en", "metrics:daily") == "Cache miss: metrics:daily"
    assert messages.tier_down("en", "redis") == "⚠️ Redis not available - using only the cache in memory"
    assert messages.tier_up("en", "disk") == "✅ Disk available again"


def test_a_tier_that_is_down_names_what_is_left() -> None:
    """The warning tells the truth about the tiers that still work."""
    assert messages.tier_down("en", "redis", ("memory", "database")).endswith("using memory and database")
    assert messages.tier_down("es", "redis", ("memory", "database")).endswith("memoria y base de datos")
    assert messages.tier_down("en", "memory", ()).endswith("loaded each time")


@pytest.mark.parametrize(
    "key", ["a\nb", "a\r\nINFO forged", "\x1b[31mred", "nul\x00", "\u2028line", "\ud800", "\u202eevil"]
)
def test_a_key_cannot_forge_a_line(key: str) -> None:
    """Whatever a key holds, its event is one printable line."""
    for language in messages.LANGUAGES:
        line = messages.miss(language, key)
        assert len(line.splitlines()) == 1
        assert line.isprintable()
        line.encode()


def test_a_long_key_is_cut() -> None:
    """A key of a thousand characters does not fill the log."""
    line = messages.hit("en", "l2", "k" * 1024)
    assert len(line) <= len("Cache hit L2: ") + messages.MAX_LOGGED_CHARACTERS
    assert line.endswith("…")


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_every_text_exists_in_every_language(language: str) -> None:
    """No event fails to be told because of the language."""
    told = [
        messages.stale(language, "l1", "k"),
        messages.evicted(language, "l1", "k", "size"),
        messages.load_failed(language, "k", "boom"),
        messages.tier_error(language, "database", "no space left"),
        messages.tier_up(language, "redis"),
    ]
    assert all(told)

"""The log of hits and misses: who wants a level is known without a call into logging, and noticed when it changes."""

import logging

import pytest

from genesis_cache.engine.logs import EventLog

LOGGER = logging.getLogger("genesis_cache")


def test_levels_are_noticed_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning a level on or off, here or at the root, is seen at once, and told to who asked."""
    log = EventLog("en")
    changes: list[tuple[bool, bool]] = []
    log.changed = lambda: changes.append((log.hits, log.misses))
    monkeypatch.setattr(LOGGER, "level", LOGGER.level)
    for level, state in (
        (logging.INFO, (True, False)),
        (logging.DEBUG, (True, True)),
        (logging.WARNING, (False, False)),
    ):
        LOGGER.setLevel(level)
        assert (log.hits, log.misses) == state
        assert changes[-1] == state
    LOGGER.setLevel(logging.DEBUG)
    logging.disable(logging.CRITICAL)
    assert (log.hits, log.misses) == (False, False)
    logging.disable(logging.NOTSET)
    assert (log.hits, log.misses) == (True, True)
    LOGGER.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        ("en", ["Cache hit L2: k", "Cache miss: k", "⚠️ Redis not available - using only the cache in memory"]),
        ("es", ["Cache hit L2: k", "Cache miss completo: k", "⚠️ Redis no disponible - usando solo caché en memoria"]),
    ],
)
def test_words(language: str, lines: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Hits, misses and a tier that is down, in the words of each language."""
    log = EventLog(language)
    with caplog.at_level(logging.DEBUG, logger="genesis_cache"):
        log.hit("l2", "k")
        log.miss("k")
        log.tier_down("redis", "refused", ["memory"])
        log.tier_up("redis")
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found[:3] == list(zip(("INFO", "DEBUG", "WARNING"), lines, strict=True))
    assert [level for level, _ in found[3:]] == ["WARNING", "INFO"]


@pytest.mark.parametrize("language", ["en", "es"])
def test_records_have_fields_for_programs(language: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever ships logs as JSON finds event, layer, key, tier and reason as fields, the same in every language."""
    log = EventLog(language)
    with caplog.at_level(logging.DEBUG, logger="genesis_cache"):
        log.hit("l2", "a\nb")
        log.tier_down("redis", "refused", ["memory"])
        log.load_failed("k", ValueError("no"))
    names = ("cache_event", "cache_layer", "cache_key", "cache_tier", "cache_reason")
    found = [tuple(getattr(record, name, None) for name in names) for record in caplog.records]
    assert found == [
        ("hit", "l2", "a\\nb", None, None),
        ("tier_down", None, None, "redis", "refused"),
        ("tier_down", None, None, "redis", "refused"),
        ("load_failed", None, "k", None, "ValueError"),
    ]

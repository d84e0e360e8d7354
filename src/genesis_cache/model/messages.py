"""Messages: the texts of the log, in English and Spanish. Keys are escaped, so that one event is one line."""

from collections.abc import Sequence

MAX_LOGGED_CHARACTERS = 200

_TIERS = {
    "en": {"memory": "memory", "disk": "disk", "redis": "Redis", "database": "database"},
    "es": {"memory": "memoria", "disk": "disco", "redis": "Redis", "database": "base de datos"},
}

_TEXTS = {
    "en": {
        "hit": "Cache hit {layer}: {key}",
        "miss": "Cache miss: {key}",
        "stale": "Cache stale {layer}: {key}",
        "evicted": "Cache eviction {layer} ({reason}): {key}",
        "load_failed": "Cache load failed: {key}: {reason}",
        "down_memory": "⚠️ {tier} not available - using only the cache in memory",
        "down_some": "⚠️ {tier} not available - using {rest}",
        "down_none": "⚠️ {tier} not available - values are loaded each time",
        "error": "{tier} failed: {reason}",
        "up": "✅ {tier} available again",
        "and": " and ",
    },
    "es": {
        "hit": "Cache hit {layer}: {key}",
        "miss": "Cache miss completo: {key}",
        "stale": "Cache stale {layer}: {key}",
        "evicted": "Cache eviction {layer} ({reason}): {key}",
        "load_failed": "Falló la carga de {key}: {reason}",
        "down_memory": "⚠️ {tier} no disponible - usando solo caché en memoria",
        "down_some": "⚠️ {tier} no disponible - usando caché en {rest}",
        "down_none": "⚠️ {tier} no disponible - cada valor se carga de nuevo",
        "error": "Error de {tier}: {reason}",
        "up": "✅ {tier} disponible de nuevo",
        "and": " y ",
    },
}

LANGUAGES = tuple(_TEXTS)


def escaped(text: str) -> str:
    """Text fit for one log line: control and other unprintable characters escaped, at most 200 characters."""
    shown = text if text.isprintable() else "".join(map(_printable, text[: MAX_LOGGED_CHARACTERS + 1]))
    return shown if len(shown) <= MAX_LOGGED_CHARACTERS else shown[: MAX_LOGGED_CHARACTERS - 1] + "…"


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def hit(language: str, layer: str, key: str) -> str:
    """``Cache hit L1: user:7``."""
    return _TEXTS[language]["hit"].format(layer=layer.upper(), key=escaped(key))


def stale(language: str, layer: str, key: str) -> str:
    """An old value was served."""
    return _TEXTS[language]["stale"].format(layer=layer.upper(), key=escaped(key))


def miss(language: str, key: str) -> str:
    """No tier had it."""
    return _TEXTS[language]["miss"].format(key=escaped(key))


def evicted(language: str, layer: str, key: str, reason: str) -> str:
    """An entry had to leave a layer."""
    return _TEXTS[language]["evicted"].format(layer=layer.upper(), key=escaped(key), reason=escaped(reason))


def load_failed(language: str, key: str, reason: str) -> str:
    """A loader raised or took too long."""
    return _TEXTS[language]["load_failed"].format(key=escaped(key), reason=escaped(reason))


def tier_down(language: str, tier: str, remaining: Sequence[str] = ("memory",)) -> str:
    """A tier is out of use; ``remaining`` are the kinds of tiers that still work."""
    texts = _TEXTS[language]
    form = "down_none" if not remaining else "down_memory" if tuple(remaining) == ("memory",) else "down_some"
    names = [tier_name(language, kind) for kind in remaining]
    rest = texts["and"].join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return texts[form].format(tier=_sentence_start(tier_name(language, tier)), rest=rest)


def tier_error(language: str, tier: str, reason: str) -> str:
    """A tier could not do what it was asked."""
    name = tier_name(language, tier)
    return _TEXTS[language]["error"].format(
        tier=_sentence_start(name) if language == "en" else name, reason=escaped(reason)
    )


def tier_up(language: str, tier: str) -> str:
    """A tier works again."""
    return _TEXTS[language]["up"].format(tier=_sentence_start(tier_name(language, tier)))


def tier_name(language: str, tier: str) -> str:
    """What a kind of tier is called in that language."""
    return _TIERS[language].get(tier, tier)


def _sentence_start(text: str) -> str:
    return text[:1].upper() + text[1:]

"""The environment: presets, and the variables that settings are read from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

TTL_PREFIX = "CACHE_TTL_"


@dataclass(frozen=True, slots=True)
class Preset:
    """What ``CACHE_ENVIRONMENT`` sets where no variable does."""

    l1_max_entries: int
    disk_mb: float
    """The disk tier's size in MB of 2^20 bytes, wherever it stands."""
    compression: str


PRESETS: Final[Mapping[str, Preset]] = {
    "DEVELOPMENT": Preset(500, 200.0, "off"),
    "PRODUCTION": Preset(1000, 500.0, "auto"),
    "TESTING": Preset(100, 50.0, "off"),
}


def read_variables(environ: Mapping[str, str], fields: Iterable[str]) -> dict[str, str]:
    """What the environment says, by field: the variable in lower case. An empty variable counts as not set."""
    return {field: text for field in fields if (text := environ.get(field.upper(), "").strip())}


def read_content_types(environ: Mapping[str, str]) -> dict[str, str]:
    """Content types and their ttl from ``CACHE_TTL_<CONTENT_TYPE>``, names in lower case."""
    return {
        name.removeprefix(TTL_PREFIX).lower(): text
        for name, said in environ.items()
        if name.startswith(TTL_PREFIX) and len(name) > len(TTL_PREFIX) and (text := said.strip())
    }

"""Faults put into the protocol of coherence on purpose, one at a time: the checker must find each of them."""

from genesis_cache import Cache


def apply(name: str, cache: Cache) -> None:
    """Change this process's cache; nothing where no name is given."""
    if name:
        raise LookupError(name, cache)

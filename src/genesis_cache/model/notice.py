"""The line of an invalidation log, and a place in it."""

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What a notice kills."""

    KEY = "key"
    TAG = "tag"
    PATTERN = "pattern"
    CLEAR = "clear"


class Notice(msgspec.Struct, frozen=True, gc=False):
    """One line of the invalidation log. It kills what it names wherever the sequence read before the load is lower.

    ``namespace`` "" reaches every namespace, ``a`` reaches ``a`` and ``a/...``. ``owner`` None reaches entries of every
    owner and of none for TAG, PATTERN and CLEAR; for KEY it is the exact owner (None: the entry without one).
    ``name`` is the key, the tag or the pattern, and empty for CLEAR.
    """

    kind: Kind
    namespace: str
    owner: str | None
    name: str
    seq: int = 0
    """Given by the store when it is committed; sequences of one log only grow."""
    origin: int = 0
    """Number of the process handle that wrote it, so that a process can tell its own."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """How far a log has come: which log (``epoch``, an unsigned 64-bit identity) and its last sequence."""

    epoch: int
    seq: int

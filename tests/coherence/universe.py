"""Which keys there are, what covers them, and the source of truth that all workers share."""

import fcntl
import mmap
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = ("", "a", "a/b")
OWNERS = (None, "user:1")
KEYS = tuple(f"k{n}" for n in range(8))
FIRST_SET_KEY = 5  # from here on keys are set, by one worker each; the others are only invalidated
TAGS = tuple(f"t{n}" for n in range(3))
LATE_TAGS = tuple(f"late{n}" for n in range(2))  # known only when the load has ended
PATTERNS = ("k?", "k1*", "*3", "k0", "*", "?5")
WORD = struct.Struct("<Q")


@dataclass(frozen=True)
class Place:
    """One entry: a key in a namespace, of an owner or of nobody."""

    number: int
    namespace: str
    owner: str | None
    key: str

    @property
    def name(self) -> str:
        return f"{self.namespace}|{self.owner or ''}|{self.key}"

    @property
    def tag(self) -> str:
        return TAGS[self.number % len(TAGS)]

    @property
    def late_tag(self) -> str:
        return LATE_TAGS[self.number % len(LATE_TAGS)]

    @property
    def is_set(self) -> bool:
        """Whether its values are set, by one worker only; otherwise anybody invalidates it, and it is loaded."""
        return int(self.key[1:]) >= FIRST_SET_KEY

    def writer(self, workers: int) -> int:
        return self.number % workers


PLACES = tuple(
    Place(number, *parts)
    for number, parts in enumerate(
        (namespace, owner, key) for namespace in NAMESPACES for owner in OWNERS for key in KEYS
    )
)


def within(place: Place, namespace: str, owner: str | None) -> bool:
    """Whether a view's tags, patterns and clear reach a place."""
    inside = namespace in ("", place.namespace) or place.namespace.startswith(f"{namespace}/")
    return inside and owner in (None, place.owner)


def covered(kind: str, namespace: str, owner: str | None, name: str = "") -> list[Place]:
    """The places that an invalidation called on a view covers."""
    reached = [place for place in PLACES if within(place, namespace, owner)]
    if kind == "tag":
        return [place for place in reached if name in (place.tag, place.late_tag)]
    if kind == "pattern":
        glob = re.compile("".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in name))
        return [place for place in reached if glob.fullmatch(place.key)]
    return reached


def names(places: Sequence[Place]) -> tuple[str, ...]:
    return tuple(place.name for place in places)


class Truth:
    """The source of truth: a version for each place in shared memory, counted up under a lock of the system's."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._words = mmap.mmap(self._file.fileno(), len(PLACES) * WORD.size)

    @staticmethod
    def create(path: Path) -> None:
        path.write_bytes(bytes(len(PLACES) * WORD.size))

    def read(self, place: Place) -> int:
        """The version that is current."""
        version: int = WORD.unpack_from(self._words, place.number * WORD.size)[0]
        return version

    def lock(self, place: Place) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX, WORD.size, place.number * WORD.size)

    def write(self, place: Place, version: int) -> None:
        WORD.pack_into(self._words, place.number * WORD.size, version)

    def unlock(self, place: Place) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, WORD.size, place.number * WORD.size)

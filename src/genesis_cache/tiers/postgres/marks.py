"""Which entries were read: remembered in the process, shared by the stores of its event loops, written by a sweep."""

from collections.abc import Iterator

MAX_MARKS = 65536
STEP = 500


class Marks:
    """Digests of entries read since the last sweep; beyond so many, further ones go unnoticed. Safe from any thread."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def add(self, digest: bytes) -> None:
        """Note a read."""
        if len(self.seen) < MAX_MARKS:
            self.seen.add(digest)

    def take(self) -> Iterator[list[bytes]]:
        """All that was noted, in steps, and no longer noted here."""
        taken, self.seen = list(self.seen), set()
        for start in range(0, len(taken), STEP):
            yield taken[start : start + STEP]

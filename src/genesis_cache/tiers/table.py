"""One namespace's entries by key: a plain dict while small, many small dicts behind it when large.

A Python dict of a million keys is rebuilt in one go when it grows, for about 0.1 s, with everything standing still. So
the entries of a large table live in shards that each are rebuilt in well under a millisecond, and the dict of the small
days, ``front``, becomes a mirror of those that are asked for most. Whoever finds nothing in the front asks `find`.
"""

from itertools import islice

from genesis_cache.model.entry import Entry

Key = str | tuple[str, str]

SPLIT_AT = 16_384  # entries; a dict that grows to this was last rebuilt in about a millisecond
SHARDS = 1024
SHARD_MASK = SHARDS - 1
MIRRORED = 8_192  # entries in the front of a large table
_MOVED_AT_ONCE = 8  # entries moved from the front to the shards with each that is added
SHARD_SHIFT = 40  # a dict takes the low bits of a hash, so shards are told apart by high ones


class Table:
    """Key to entry. Reading is safe from any thread; changes come from one at a time.

    While a table is not ``large``, ``front`` is all of it and may be changed directly, up to `SPLIT_AT` entries; then
    what the front does not have is in the one of ``shards`` that the high bits of the key's hash tell.
    """

    __slots__ = ("_count", "_moving", "front", "large", "shards")

    def __init__(self) -> None:
        self.front: dict[Key, Entry] = {}
        self.large = False
        self.shards: list[dict[Key, Entry]] = []
        self._moving = False
        self._count = 0

    @property
    def count(self) -> int:
        """How many entries there are."""
        return self._count if self.large else len(self.front)

    def find(self, key: Key) -> Entry | None:
        """The entry, or None."""
        entry = self.front.get(key)
        if entry is None and self.large:
            return self.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK].get(key)
        return entry

    def put(self, entry: Entry) -> None:
        """Add or replace."""
        key = entry.key
        if not self.large:
            self.front[key] = entry
            if len(self.front) >= SPLIT_AT:
                self._split()
            return
        shard = self._shard(key)
        if key in self.front:
            self.front[key] = entry
        elif key not in shard:
            self._count += 1
        shard[key] = entry
        if self._moving:
            self._move()

    def remove(self, key: Key) -> None:
        """Take an entry out; it must be there."""
        self.front.pop(key, None)
        if self.large:
            self._shard(key).pop(key, None)
            self._count -= 1

    def mirror(self, entry: Entry) -> None:
        """Show an entry of a large table in its front."""
        if self._moving or not self.large:
            return
        if len(self.front) >= MIRRORED:
            self.front.clear()
        self.front[entry.key] = entry

    def clear(self) -> None:
        """Forget everything at once; ``front`` stays the same dict."""
        self.front.clear()
        self.shards = []
        self.large = self._moving = False

    def some(self, limit: int) -> list[Entry]:
        """Up to so many entries, whichever come first."""
        found = list(islice(self.front.values(), limit)) if not self.large or self._moving else []
        for shard in self.shards:
            if len(found) >= limit:
                break
            found += islice(shard.values(), limit - len(found))
        return found

    def check(self) -> list[str]:
        """Compare the books with what is there."""
        keys = set(self.front).union(*self.shards)
        faults = [] if len(keys) == self.count else [f"a table counts {self.count} entries and holds {len(keys)}"]
        faults += [f"a table's front shows another entry than its shard for {key!r}" for key in self._differing()]
        return faults

    def _differing(self) -> list[Key]:
        if not self.large:
            return []
        return [key for key, entry in self.front.items() if self._shard(key).get(key, entry) is not entry]

    def _shard(self, key: Key) -> dict[Key, Entry]:
        return self.shards[hash(key) >> SHARD_SHIFT & SHARD_MASK]

    def _split(self) -> None:
        self.shards = [{} for _ in range(SHARDS)]
        self._count = len(self.front)
        self._moving = True
        self.large = True

    def _move(self) -> None:
        for _ in range(min(_MOVED_AT_ONCE, len(self.front))):
            key, entry = next(reversed(self.front.items()))
            self._shard(key).setdefault(key, entry)  # first, so that a reader finds it in one of the two
            del self.front[key]
        self._moving = bool(self.front)

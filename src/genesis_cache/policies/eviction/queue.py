"""A first-in, first-out queue of entries that costs a pointer each and nothing to the garbage collector.

Records are keys in chunks: a sealed chunk is a tuple of strings, which the collector stops tracking the first time it
meets it. ``entry.home`` is the number of the chunk that holds the entry's record, so an entry that has left (deleted,
moved to another queue, put again) makes its old record void without anyone having to find it. Void records fall out at
the head, or when a chunk is packed because they have become too many.
"""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence

from genesis_cache.model.entry import Entry
from genesis_cache.policies.eviction.base import Directory, Find, Key

CHUNK = 128  # records: a chunk that is in no processor cache is scanned in about 0.3 ms
_VOIDS = 4  # chunks' worth of void records that are left alone
_SEARCHED = 32  # records: in a longer open chunk nothing is searched for, it is sealed
TAGS = 4  # queues that ``home % TAGS`` tells apart, if a policy has no more


class _Chunk:
    """Records that are no longer added to."""

    __slots__ = ("home", "keys", "tables")

    def __init__(self, home: int, keys: tuple[Key, ...], tables: "array[int]") -> None:
        self.home = home
        self.keys = keys
        self.tables = tables


class Queue:
    """Entries in order of arrival.

    ``size`` is the sum of their weights if ``by_weight``, else how many they are. ``tag`` is what ``home % tags`` is
    for its entries, so that a policy can tell by an entry which of its queues holds it. ``chunk`` is how many records
    a chunk has.
    """

    __slots__ = (
        "_by_weight", "_chunk", "_chunks", "_finds", "_head", "_head_home", "_head_tables", "_home", "_homes", "_keys",
        "_packing", "_sealed", "_stride", "_tables", "_tag", "_voids", "size",
    )  # fmt: skip

    def __init__(
        self, directory: Directory, tag: int = 0, *, by_weight: bool = False, tags: int = TAGS, chunk: int = CHUNK
    ) -> None:
        self._finds = directory.finds
        self._homes = directory.homes
        self._by_weight = by_weight
        self._chunk = chunk
        self._stride = tags
        self._tag = tag
        self._home = next(self._homes) * tags + tag  # of the open chunk, which takes new records; 0 is nobody's home
        self._keys: list[Key] = []
        self._tables = array("I")
        self._chunks: deque[_Chunk] = deque()  # sealed, oldest first
        self._head: list[Key] = []  # the oldest records, opened to be taken out one by one, the oldest last
        self._head_tables = array("I")
        self._head_home = 0
        self._sealed = 0  # records in chunks
        self._voids = 0  # records, wherever they are, of entries that have left
        self._packing = 0
        self.size = 0

    def push(self, entry: Entry) -> None:
        """Add an entry at the tail."""
        keys = self._keys
        keys.append(entry.key)
        self._tables.append(entry.space)
        entry.home = self._home
        self.size += entry.weight if self._by_weight else 1
        if len(keys) >= self._chunk:
            self._seal()

    def peek(self) -> Entry | None:
        """The oldest entry, which stays; None if there is none."""
        head = self._head
        if head:
            entry = self._finds[self._head_tables[-1]](head[-1])
            if entry is not None and entry.home == self._head_home:
                return entry
        return self._search()

    def skip(self, entry: Entry) -> None:
        """Take out the entry that `peek` has just told."""
        self._head.pop()
        self._head_tables.pop()
        self.size -= entry.weight if self._by_weight else 1
        entry.home = 0

    def take_unmarked(self) -> Entry | None:
        """Take out the oldest entry, unless there is none or it has a mark."""
        head = self._head
        if head:
            entry = self._finds[self._head_tables[-1]](head[-1])
            if entry is None or entry.home != self._head_home:
                entry = self._search()
        else:
            entry = self._search()
        if entry is None or entry.mark:
            return None
        self._head.pop()
        self._head_tables.pop()
        self.size -= entry.weight if self._by_weight else 1
        entry.home = 0
        return entry

    def take(self) -> Entry:
        """Take out the oldest entry; `IndexError` if there is none."""
        entry = self.peek()
        if entry is None:
            raise IndexError("an empty queue has no oldest entry")
        self.skip(entry)
        return entry

    def remove(self, entry: Entry) -> None:
        """Take out an entry from anywhere."""
        self._voids += 1
        if entry.home == self._home:
            self._leave_open(entry)
        entry.home = 0
        self.size -= entry.weight if self._by_weight else 1
        if self._voids > _VOIDS * self._chunk and self._voids > self._sealed // 2:
            self._pack()

    def replace(self, old: Entry, new: Entry) -> None:
        """Put another entry of the same key and table in an entry's place."""
        new.home = old.home
        old.home = 0
        if self._by_weight:
            self.size += new.weight - old.weight

    def renew(self, entry: Entry) -> None:
        """Move an entry to the tail."""
        self.remove(entry)
        self.push(entry)

    def pieces(self) -> Iterator[list[Entry]]:
        """The entries in order, a chunk at a time; of what moves while one walks, some may be missed or met twice."""
        yield _found(self._finds, self._head_home, self._head[::-1], self._head_tables[::-1])
        last, at = self._head_home, 0
        while (at := self._after(last, at)) < len(self._chunks):
            chunk = self._chunks[at]
            last = chunk.home
            yield self._living(chunk)
        yield _found(self._finds, self._home, self._keys, self._tables)

    @property
    def records(self) -> int:
        """How many records there are, void ones among them."""
        return len(self._head) + len(self._keys) + sum(len(chunk.keys) for chunk in self._chunks)

    def check(self) -> list[str]:
        """Compare the books with what is there."""
        entries = [entry for piece in self.pieces() for entry in piece]
        size = sum(entry.weight for entry in entries) if self._by_weight else len(entries)
        voids = self.records - len(entries)
        faults = []
        if size != self.size:
            faults.append(f"a queue's size is {self.size}, but its entries make {size}")
        if voids != self._voids:
            faults.append(f"a queue counts {self._voids} void records and has {voids}")
        return faults

    def _search(self) -> Entry | None:
        """Throw void records away up to the oldest entry."""
        while True:
            head, tables = self._head, self._head_tables
            while head:
                entry = self._finds[tables[-1]](head[-1])
                if entry is not None and entry.home == self._head_home:
                    return entry
                head.pop()
                tables.pop()
                self._voids -= 1
            if not self._load():
                return None

    def _seal(self) -> None:
        self._chunks.append(_Chunk(self._home, tuple(self._keys), self._tables))
        self._sealed += len(self._keys)
        self._open()

    def _open(self) -> None:
        self._home = next(self._homes) * self._stride + self._tag
        self._keys = []
        self._tables = array("I")

    def _load(self) -> bool:
        """Make the oldest chunk the head; False if there is nothing left."""
        if self._chunks:
            chunk = self._chunks.popleft()
            self._sealed -= len(chunk.keys)
            self._packing = max(self._packing - 1, 0)
            self._head, self._head_tables, self._head_home = list(chunk.keys), chunk.tables, chunk.home
        elif self._keys:
            self._head, self._head_tables, self._head_home = self._keys, self._tables, self._home
            self._open()
        else:
            return False
        self._head.reverse()
        self._head_tables.reverse()
        return True

    def _leave_open(self, entry: Entry) -> None:
        """See to it that an entry that comes back gets another home: its record here would be valid again."""
        if len(self._keys) > _SEARCHED:
            self._seal()
            return
        at = self._keys.index(entry.key)
        while self._tables[at] != entry.space:
            at = self._keys.index(entry.key, at + 1)
        del self._keys[at], self._tables[at]
        self._voids -= 1

    def _pack(self) -> None:
        """Throw the void records of one chunk away, and join it with the chunk before if both have become small."""
        chunks = self._chunks
        at = self._packing % len(chunks)
        old = [chunks[at]]
        entries = self._living(chunks[at])
        if at and len(chunks[at - 1].keys) + len(entries) <= self._chunk:
            old.insert(0, chunks[at - 1])
            entries = self._living(chunks[at - 1]) + entries
            del chunks[at]
            at -= 1
        gone = sum(len(chunk.keys) for chunk in old) - len(entries)
        self._voids -= gone
        self._sealed -= gone
        if entries:
            chunks[at] = _chunk_of(entries, old[0].home)
            at += 1
        else:
            del chunks[at]
        self._packing = at

    def _living(self, chunk: _Chunk) -> list[Entry]:
        return _found(self._finds, chunk.home, chunk.keys, chunk.tables)

    def _after(self, home: int, at: int) -> int:
        """Index of the first chunk younger than one with that home, searched near the index it had."""
        at = min(at, len(self._chunks))
        while at and self._chunks[at - 1].home > home:
            at -= 1
        while at < len(self._chunks) and self._chunks[at].home <= home:
            at += 1
        return at


def _found(finds: Sequence[Find], home: int, keys: Sequence[Key], tables: Sequence[int]) -> list[Entry]:
    living = []
    for key, table in zip(keys, tables, strict=True):
        entry = finds[table](key)
        if entry is not None and entry.home == home:
            living.append(entry)
    return living


def _chunk_of(entries: list[Entry], home: int) -> _Chunk:
    for entry in entries:
        entry.home = home
    tables = array("I", [entry.space for entry in entries])
    return _Chunk(home, tuple(entry.key for entry in entries), tables)

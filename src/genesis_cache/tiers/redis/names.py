"""The names under which a cache's data stand on a server, and which of a cluster's slots they fall into.

::

    genesis:1:{name}:control      hash     the log's identity, its last sequence, the books
    genesis:1:{name}:log          stream   notices, one message for each batch, its id the batch's last sequence
    genesis:1:{name}:floors       hash     the newest TAG, PATTERN and CLEAR notice of each target
    genesis:1:{name}:marks        string   epoch, then 65,536 sequences: when a key of that mark last changed
    genesis:1:{name}:v:digest     string   8 bytes of version, then the envelope; always with a time to live
    genesis:1:{name}:l:digest     string   the token of who holds the lease
    genesis:1:{name}:n:digest     string   in a cluster, the token of who is changing the value

In a cluster values, marks, leases and notes are spread over 64 shards, ``{name/7}`` instead of ``{name}``.
"""

from binascii import crc_hqx
from hashlib import blake2b
from urllib.parse import quote

FORMAT = 1
MARKS = 65536
MARK_BYTES = 8
SHARDS = 64
DIGEST_BYTES = 32
_LONGEST_NAME = 96  # bytes, quoted; longer ones are hashed
SLOTS = 16384


class Names:
    """The keys of one cache; ``shards`` 1 on a server of its own."""

    __slots__ = (
        "_heads", "_leases", "_notes", "_values", "control", "floors", "joining", "log", "marks", "marks_each",
        "nothing", "shards", "sweeper", "value",
    )  # fmt: skip

    def __init__(self, cache_name: str, shards: int = 1) -> None:
        quoted = quote(cache_name, safe="")
        if len(quoted) > _LONGEST_NAME:
            quoted = f"%%{blake2b(cache_name.encode(), digest_size=16).hexdigest()}"  # quoting gives no %%
        tags = [quoted] if shards == 1 else [f"{quoted}/{shard}" for shard in range(shards)]
        self.shards = shards
        self.marks_each = MARKS // shards
        self.control = _key(quoted, "control")
        self.log = _key(quoted, "log")
        self.floors = _key(quoted, "floors")
        self.sweeper = _key(quoted, "sweeper")
        self.joining = _key(quoted, "joining")
        self.nothing = _key(quoted, "nothing")
        """A key that is never there."""
        self.marks = [_key(tag, "marks") for tag in tags]
        self._values = [_key(tag, "v:") for tag in tags]
        self._leases = [_key(tag, "l:") for tag in tags]
        self._notes = [_key(tag, "n:") for tag in tags]
        self._heads = frozenset(self._values)
        self.value = self._values[0]
        """What the keys of values begin with on a server of its own."""

    def shard_of(self, digest: bytes) -> int:
        """The shard of an address."""
        return digest[0] % self.shards

    def shard_of_key(self, key: bytes) -> int:
        """The shard of a value's key."""
        return key[-DIGEST_BYTES] % self.shards

    def value_of(self, digest: bytes) -> bytes:
        """The key of a value."""
        return self._values[digest[0] % self.shards] + digest

    def lease_of(self, digest: bytes) -> bytes:
        """The key of a lease."""
        return self._leases[digest[0] % self.shards] + digest

    def note_of(self, digest: bytes) -> bytes:
        """The key of the note that a change of an address is under way, in a cluster."""
        return self._notes[digest[0] % self.shards] + digest

    def mark_at(self, digest: bytes) -> int:
        """Where in its shard's marks the mark of an address stands."""
        return MARK_BYTES + int.from_bytes(digest[-2:], "big") % self.marks_each * MARK_BYTES

    @property
    def marks_bytes(self) -> int:
        """The length of one shard's marks."""
        return MARK_BYTES + self.marks_each * MARK_BYTES

    @property
    def pattern(self) -> bytes:
        """What SCAN has to match to meet the values; quoted names have nothing in them that a pattern would read."""
        if self.shards == 1:
            return self.value + b"*"
        head, _, _ = self.value.partition(b"/0}")
        return head + b"/*}:v:*"

    def is_value(self, key: bytes) -> bool:
        """Whether a key that matched is that of a value."""
        return key[:-DIGEST_BYTES] in self._heads


def slot_of(key: bytes) -> int:
    """The slot of a cluster that a key falls into (Redis cluster specification, "Hash tags")."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def _key(tag: str, what: str) -> bytes:
    return f"genesis:{FORMAT}:{{{tag}}}:{what}".encode()

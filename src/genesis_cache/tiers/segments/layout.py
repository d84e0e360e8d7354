"""The store's geometry and the exact bytes of its header, state, slots and records. Decides nothing, touches no file.

A store is a directory of preallocated files::

    index     header | state A | state B | live words | segment hints | kill slots | buckets
    log-0/1   the invalidation log; a compaction moves it to the other one
    seg-<n>   records, appended, never changed

A bucket has room for 16 slots: their fingerprints side by side, so that one search finds one, then a row for each that
says where the record lies, then their used bytes and priorities.
"""

import struct
import zlib
from typing import Self

import msgspec

PAGE = 4096
MAGIC = b"GENSEG01"
NEVER = float("inf")

KIB = 1024
MIB = 1024 * KIB
SMALLEST = 256 * KIB  # below this the books would outweigh the data

# --- the index file -----------------------------------------------------------------------------------------------

HEADER = struct.Struct("<8sQQQQQQI")  # magic, epoch, max_bytes, segment_bytes, log_bytes, buckets, kill slots, crc
STATE_AT = (512, 1024)  # two places, written in turn
LIVE_AT = 1536  # plain words, taken without a lock: epoch, seq, generation of the newest state, dirty, segments removed
HINT_AT = 2048  # a row for segment n at n % HINTS
HINTS = 128
FEWEST_SEGMENTS = 3
HINT = struct.Struct(
    "<IId"
)  # segment number, bytes in use once it is full (0 before), when its last record has expired
KILLS_AT = PAGE

LIVE_EPOCH, LIVE_SEQ, LIVE_GENERATION, LIVE_DIRTY, LIVE_DROPS = range(LIVE_AT // 8, LIVE_AT // 8 + 5)

SLOTS = 16
FINGERPRINTS = SLOTS * 8
ROW = struct.Struct("<IIIId")  # segment, offset, length of the envelope, checksum, gone at
ROWS_AT = FINGERPRINTS
USED_AT = ROWS_AT + SLOTS * ROW.size
PRIORITY_AT = USED_AT + SLOTS
BUCKET = PRIORITY_AT + SLOTS
BUCKET_ROWS = struct.Struct("<" + "IIIId" * SLOTS)
BUCKET_PRINTS = struct.Struct(f"<{SLOTS}Q")
EMPTY = bytes(8)

Row = tuple[int, int, int, int, float]

SPLIT = struct.Struct("<QQ16x")  # a digest's words: where its bucket and kill slot are, and its fingerprint

# --- records ------------------------------------------------------------------------------------------------------

GRAIN = 64  # records begin at multiples of it
GRAIN_BITS = 6
RECORD = struct.Struct("<II32sdQB7x")  # checksum, length, digest, gone at, sequence when committed, priority
CORE = struct.Struct("<II32s")  # the first three, all that a read compares
BODY = struct.Struct("<I32sdQB7x")  # what the checksum covers, the envelope following
DIGEST_AT = 8
SEGMENT_HEADER = struct.Struct("<8sQIII")  # magic, epoch, number, bytes, crc
FIRST_RECORD = GRAIN


class Geometry(msgspec.Struct, frozen=True):
    """Sizes that are fixed when a store is made, and ``max_bytes``, which may change between uses."""

    epoch: int
    max_bytes: int
    segment_bytes: int
    log_bytes: int
    buckets: int
    kills: int

    @classmethod
    def for_limit(cls, max_bytes: int, epoch: int) -> Self:
        """Sizes for a new store: about 5% for the index, at most 6% for the log, and 5 to 55 segments.

        Large segments take large values; small ones make an eviction short and lose less at once.
        """
        sizes = (max_bytes // 56, min(max_bytes // 12, 16 * MIB), min(max_bytes // 6, 4 * MIB))
        segment_bytes = max(sizes) // PAGE * PAGE
        log_bytes = min(max(max_bytes // 64, 8 * KIB), 8 * MIB) // PAGE * PAGE
        buckets = max(max_bytes // 20 // BUCKET, 8)
        kills = 1 << min(max((max_bytes // 4096).bit_length() - 1, 8), 16)
        return cls(epoch, max_bytes, segment_bytes, log_bytes, buckets, kills)

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """The geometry that a header states, or None if the header isn't one of ours or isn't whole."""
        if len(raw) < HEADER.size:
            return None
        magic, *sizes, checksum = HEADER.unpack_from(raw)
        if magic != MAGIC or checksum != zlib.crc32(raw[: HEADER.size - 4]):
            return None
        return cls(*sizes)

    def pack(self) -> bytes:
        """The header, with its checksum."""
        body = HEADER.pack(MAGIC, *msgspec.structs.astuple(self), 0)[:-4]
        return body + zlib.crc32(body).to_bytes(4, "little")

    @property
    def buckets_at(self) -> int:
        """Where the buckets begin."""
        return KILLS_AT + 8 * self.kills

    @property
    def index_bytes(self) -> int:
        """Size of the index file."""
        return -(-(self.buckets_at + self.buckets * BUCKET) // PAGE) * PAGE

    @property
    def books_bytes(self) -> int:
        """Bytes of everything but the segments."""
        return self.index_bytes + 2 * self.log_bytes + PAGE

    @property
    def segments(self) -> int:
        """How many segments fit the limit."""
        return min((self.max_bytes - self.books_bytes) // self.segment_bytes, HINTS // 2)

    @property
    def largest(self) -> int:
        """The longest envelope that a segment can take."""
        return self.segment_bytes - FIRST_RECORD - RECORD.size

    def resized(self, max_bytes: int) -> "Geometry | None":
        """The same store under another limit, or None if it has to be made anew for that."""
        other = msgspec.structs.replace(self, max_bytes=max_bytes)
        wanted = (max_bytes - self.books_bytes) // self.segment_bytes
        return other if FEWEST_SEGMENTS <= wanted <= HINTS // 2 else None


class State(msgspec.Struct):
    """Everything that changes with a commit and must survive one that is cut short."""

    generation: int = 0
    seq: int = 0
    oldest_fill: int = 0
    """Fills that began before this sequence are refused: the kill slots know nothing older."""
    reach: int = 0
    """The log has every notice after this sequence."""
    log_number: int = 0
    log_end: int = 0
    log_crc: int = 0
    """Running checksum over the log from its start to ``log_end``."""
    log_cut: int = 0
    """Where in the file before the last compaction the lines began that were kept as they were."""
    log_rest: int = 0
    """Where they begin in this one."""
    head: int = 0
    """Number of the segment that records are appended to; 0: none yet."""
    head_end: int = 0
    pending_from: int = 0
    """Records of the head from here on may not have their slots yet, if their writer died."""
    entries: int = 0
    evicted_size: int = 0
    evicted_ttl: int = 0
    damaged: int = 0
    rebuilt: int = 0
    clean: int = 0
    """1 after a last user closed it and everything had reached the disk."""
    boot: bytes = bytes(16)
    """Which run of the machine it was last used in."""


_STATE = struct.Struct("<18Q16sI")
STATE_SIZE = _STATE.size


def pack_state(state: State) -> bytes:
    """A state as its bytes, with a checksum."""
    state.entries = max(state.entries, 0)  # damaged slots make it wrong until the next recount
    body = _STATE.pack(*msgspec.structs.astuple(state), 0)[:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")


def parse_state(raw: bytes) -> State | None:
    """The state that these bytes are, or None if they aren't whole."""
    *fields, checksum = _STATE.unpack(raw)
    return State(*fields) if checksum == zlib.crc32(raw[:-4]) else None


def record_bytes(length: int) -> int:
    """Bytes that an envelope of this length takes in a segment."""
    return (RECORD.size + length + GRAIN - 1) & -GRAIN


def pack_segment_header(epoch: int, number: int, size: int) -> bytes:
    """The first bytes of a segment, so that one of another store is never taken for ours."""
    body = SEGMENT_HEADER.pack(MAGIC, epoch, number, size, 0)[:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")

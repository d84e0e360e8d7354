"""The stored form of a record: a fixed header that can be read without decoding the value, names in clear, payload.

::

    magic 4 | CRC-32 4 | header 136 | names | extra | payload          numbers little-endian

The checksum covers everything behind it, and the magic is compared. ``names`` is the scope's prefix and the key, the
very bytes that the digest is made of. ``extra`` is msgpack and only there where a record has tags, an etag or the
like. Of a sensitive record all behind the header is sealed together (see `codecs.seal`)::

    magic 4 | CRC-32 4 | header 136 | nonce 12 | sealed (names | extra | payload) | tag 16

under the key that ``key_id`` names, bound to the header's 136 bytes: what it says of address, times, sequence and
flags cannot be changed either, nor the rest be moved under another header. The header's count of payload bytes holds
nonce and tag too, so that lengths add up and the checksum is verified as in any other envelope.
"""

from enum import IntFlag
from struct import Struct
from zlib import crc32

import msgspec

Buffer = bytes | memoryview

MAGIC = b"\xc9Gn\xc1"
FORMAT = 1
NO_KEY = bytes(8)

# magic, checksum; format, codec, compression, priority, flags; created, ttl, swr, sie, cost; seq, epoch, version;
# digest, key id; bytes of names, extra, payload as stored, payload when inflated
HEADER = Struct("<4sI4BI5d2Qq32s8sII2Q")
COMMON = Struct("<4s4x4BI2d24s2Q8x32s8xII2Q")  # the same bytes, less what few records have: three times as quick
_LEAD = Struct("<4sI")
_LENGTHS = Struct("<II2Q")
_LENGTHS_AT = HEADER.size - _LENGTHS.size
_DIGEST_AT = _LENGTHS_AT - 40  # before the key id of 8 bytes
_U32 = Struct("<I")
LEAD_BYTES = _LEAD.size


class Flag(IntFlag):
    """What a record has or is, told in the header."""

    TTL = 1
    VERSION = 2
    EXTRA = 4
    TAGS = 8
    ISOLATE = 16
    SENSITIVE = 32
    SEALED = 64


# The same as plain integers, because an operation on an IntFlag costs a hundred times one on an int.
TTL, VERSION, EXTRA, TAGS, ISOLATE, SENSITIVE, SEALED = (int(flag) for flag in Flag)


class Peek(msgspec.Struct, frozen=True, gc=False):
    """What the fixed header says. Wall seconds since 1970; ``ttl`` None and ``gone_at`` infinity: for ever."""

    seq: int
    epoch: int
    created: float
    ttl: float | None
    gone_at: float
    priority: int
    flags: int
    has_tags: bool
    digest: bytes
    version: int | None


def with_checksum(front: bytes, payload: Buffer) -> bytes:
    """The whole envelope: magic and checksum before a header (without those two), names and extra, and the payload."""
    checksum = crc32(payload, crc32(front))
    return b"".join((_LEAD.pack(MAGIC, checksum), front, payload))


def intact(envelope: Buffer) -> bool:
    """Whether it is one of ours, whole and unchanged: its lengths add up and its checksum is right."""
    if not _ours(envelope):
        return False
    names, extra, payload, _ = _LENGTHS.unpack_from(envelope, _LENGTHS_AT)
    if HEADER.size + names + extra + payload != len(envelope):
        return False
    _, checksum = _LEAD.unpack_from(envelope)
    return bool(crc32(memoryview(envelope)[LEAD_BYTES:]) == checksum)


def matches(envelope: Buffer, digest: bytes) -> bool:
    """Whether an envelope says that it belongs to this address: a reply meant for another caller does not."""
    return envelope[_DIGEST_AT : _DIGEST_AT + 32] == digest


def version_of(envelope: Buffer) -> int | None:
    """The version that the record was stored with, None where it has none or is not ours."""
    found = peek(envelope)
    return None if found is None else found.version


def peek(envelope: Buffer) -> Peek | None:
    """The fixed header, without a look at the rest; None where it is not ours."""
    if not _ours(envelope):
        return None
    header = HEADER.unpack_from(envelope)
    priority, flags, created, ttl, swr, sie = header[5:11]
    seq, epoch, version, digest = header[12:16]
    limited = flags & TTL
    gone_at = created + ttl + max(swr, sie) if limited else float("inf")
    return Peek(
        seq,
        epoch,
        created,
        ttl if limited else None,
        gone_at,
        priority,
        flags,
        bool(flags & TAGS),
        digest,
        version if flags & VERSION else None,
    )


def named(envelope: Buffer) -> tuple[str, str, str | None, str] | None:
    """Cache name, namespace, owner and key as they stand in clear; None where it is not ours, sealed or damaged."""
    if not _ours(envelope) or HEADER.unpack_from(envelope)[6] & SEALED:
        return None
    (length,) = _U32.unpack_from(envelope, _LENGTHS_AT)
    names = bytes(envelope[HEADER.size : HEADER.size + length])
    if len(names) != length:
        return None
    try:
        return _read_names(names)
    except ValueError:
        return None


def _ours(envelope: Buffer) -> bool:
    return len(envelope) >= HEADER.size and envelope[:4] == MAGIC and envelope[8] == FORMAT


def _read_names(names: bytes) -> tuple[str, str, str | None, str]:
    cache_name, at = _framed(names, 0)
    namespace, at = _framed(names, at)
    owner = None
    if names[at : at + 1] == b"\x01":
        owner, at = _framed(names, at + 1)
    elif names[at : at + 1] == b"\x00":
        at += 1
    else:
        raise ValueError("the owner's mark is neither 0 nor 1")
    return cache_name, namespace, owner, names[at:].decode()


def _framed(names: bytes, at: int) -> tuple[str, int]:
    start = at + _U32.size
    end = start + int.from_bytes(names[at:start], "little")
    if start > len(names) or end > len(names):
        raise ValueError("a name ends behind the names")
    return names[start:end].decode(), end

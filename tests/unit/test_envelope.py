"""The stored form: everything a record says survives, and bytes that are not right are a miss."""

# values of any type are what is tested

import random
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
import pytest

from genesis_cache.codecs import envelope as stored
from genesis_cache.codecs.codec import Codec
from genesis_cache.codecs.envelope import Flag, intact, named, peek, version_of
from genesis_cache.codecs.registry import Registry
from genesis_cache.model.entry import CachePriority, Record
from genesis_cache.model.errors import SerializationError
from genesis_cache.model.keys import Address, address_of, scope_of

GOLDEN = Path(__file__).parents[1] / "golden" / "envelopes-1.txt"
ADDRESS = address_of(scope_of("default", "shop/prices", "user:7"), "clé:1")
FULL = Record(
    address=ADDRESS,
    value={"price": 9.5, "labels": ["a", "b"]},
    created=1_763_700_000.123456,
    ttl=0.1,
    seq=2**63 + 5,
    epoch=2**64 - 1,
    tags=("product:1", "étiquette"),
    priority=CachePriority.CRITICAL,
    swr=30.5,
    sie=3600.25,
    refresh_ahead=0.8,
    version=-(2**63),
    etag='W/"x"',
    last_modified=1_763_600_000.5,
    cost=0.25,
    content_type="productos",
    isolate=True,
    tiers=frozenset({"disk", "memory"}),
)
VALUES: dict[str, object] = {
    "none": None,
    "bytes": bytes(range(256)) * 5,
    "text": "café " * 300,
    "plain": {"id": 7, "list": [1, 2.5, None, True, {"x": b"y"}]},
    "tagged": ((1, 2), {"when": datetime(2026, 1, 1, tzinfo=UTC), "who": [Decimal("1.5"), UUID(int=3)]}),
    "array": np.arange(100, dtype="float32"),
    "arrays": [np.arange(6).reshape(2, 3), np.float32(1)],
}


def make(value: object, **more: Any) -> Record:
    """A record of a value, otherwise plain."""
    return Record(address=ADDRESS, value=value, created=1_763_700_000.0, ttl=60.0, **more)


def sealed_again(envelope: bytes) -> bytes:
    """The same bytes with a checksum that fits, as a forger would write them."""
    return stored.with_checksum(envelope[stored.LEAD_BYTES :], b"")


def same(one: object, other: object) -> bool:
    """Whether two values show themselves alike, arrays included."""
    return repr(one) == repr(other)


def test_all_that_a_record_says_survives() -> None:
    """Every field of a record comes back as it was, from bytes and from a view of them."""
    codec = Codec()
    envelope = codec.encode(FULL)
    assert intact(envelope)
    assert codec.decode(envelope, ADDRESS) == FULL
    found = codec.decode(memoryview(bytearray(envelope)), ADDRESS)
    assert found == FULL
    assert type(found.priority) is CachePriority
    assert type(found.tiers) is frozenset


@pytest.mark.parametrize(
    "field", ["tags", "refresh_ahead", "etag", "last_modified", "content_type", "tiers", "version"]
)
def test_each_field_survives_alone(field: str) -> None:
    """A record that has only one of the rarer fields keeps it, and gains no other."""
    record = make(1, **{field: getattr(FULL, field)})
    assert Codec().decode(Codec().encode(record), ADDRESS) == record


def test_a_bare_record_stays_bare() -> None:
    """A record for ever, without a version, comes back without them; zero is not None."""
    for ttl in (None, 0, 0.0):
        for version in (None, 0):
            record = Record(address=ADDRESS, value=1, created=0.0, ttl=ttl, version=version)
            assert Codec().decode(Codec().encode(record), ADDRESS) == record


def test_the_header_is_read_without_the_value() -> None:
    """Sequence, epoch, times, priority, version and whether there are tags are told by the header alone."""
    envelope = Codec().encode(FULL)
    for form in (envelope, memoryview(envelope), envelope[: stored.HEADER.size]):
        seen = peek(form)
        assert seen is not None
        assert (seen.seq, seen.epoch, seen.created, seen.ttl) == (FULL.seq, FULL.epoch, FULL.created, FULL.ttl)
        assert (seen.gone_at, seen.priority, seen.version) == (FULL.gone_at, CachePriority.CRITICAL, FULL.version)
        assert (seen.has_tags, seen.digest) == (True, ADDRESS.digest)
        assert Flag(seen.flags) == Flag.TTL | Flag.VERSION | Flag.EXTRA | Flag.TAGS | Flag.ISOLATE
        assert version_of(form) == FULL.version
    bare = peek(Codec().encode(Record(address=ADDRESS, value=1, created=5.0, ttl=None)))
    assert bare is not None
    assert (bare.ttl, bare.gone_at, bare.has_tags, bare.version, bare.flags) == (None, float("inf"), False, None, 0)


def test_the_header_agrees_with_the_record_about_its_end() -> None:
    """When a record may be dropped is the same whether its header or the whole of it is read."""
    for ttl, swr, sie in ((None, 0.0, 5.0), (0.1, 0.2, 0.3), (7.0, 9.0, 1.0)):
        record = Record(address=ADDRESS, value=1, created=1e9 + 0.1, ttl=ttl, swr=swr, sie=sie)
        seen = peek(Codec().encode(record))
        assert seen is not None
        assert seen.gone_at == record.gone_at


@pytest.mark.parametrize(
    "names",
    [("default", "", None, "k"), ("a", "b/c", "user:7", "clé:1"), ("c", "", "\x00", "\x01\x00k"), ("é", "n", "o", " ")],
)
def test_names_stand_in_clear(names: tuple[str, str, str | None, str]) -> None:
    """A scan can tell whose entry an envelope is: cache, namespace, owner and key."""
    cache_name, namespace, owner, key = names
    address = address_of(scope_of(cache_name, namespace, owner), key)
    envelope = Codec().encode(Record(address=address, value=1, created=0.0, ttl=None))
    assert named(envelope) == named(memoryview(envelope)) == names


OTHERS = [
    address_of(scope_of("default", "shop/prices", "user:7"), "clé:2"),
    address_of(scope_of("default", "shop/prices", "user:8"), "clé:1"),
    address_of(scope_of("default", "shop/prices"), "clé:1"),
    address_of(scope_of("default", "shop", "user:7"), "clé:1"),
    address_of(scope_of("other", "shop/prices", "user:7"), "clé:1"),
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda address: repr(named(Codec().encode(make(1))) and address.scope))
def test_a_foreign_envelope_is_a_miss(other: Address) -> None:
    """An entry that lies under another key, owner, namespace or cache is never handed out there."""
    assert Codec().decode(Codec().encode(FULL), other) is None


@pytest.mark.parametrize("name", VALUES)
def test_every_truncation_is_a_miss(name: str) -> None:
    """However many bytes are missing at the end, or added, it is a miss and known as damaged."""
    codec = Codec()
    envelope = codec.encode(make(VALUES[name], tags=("t",)))
    for form in (*(envelope[:length] for length in range(len(envelope))), envelope + b"\x00", b"", b"\x00" * 500):
        assert not intact(form)
        assert codec.decode(form, ADDRESS) is None
        peek(form)
        named(form)
        version_of(form)


def flips(envelope: bytes, number: int, seed: str) -> Iterator[bytes]:
    """So many copies with one to eight bits flipped."""
    chance = random.Random(seed)  # repeatable places, no secret
    for _ in range(number):
        changed = bytearray(envelope)
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        if changed != envelope:
            yield bytes(changed)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("compression", ["off", "zlib", "zstd"])
def test_flipped_bits_are_noticed(name: str, compression: str) -> None:
    """Of twenty thousand envelopes with flipped bits not one passes as whole, and reading one never raises."""
    codec = Codec(compression=compression, compress_from=16)
    envelope = codec.encode(make(VALUES[name], tags=("t",)))
    for changed in flips(envelope, 1000, name + compression):
        assert not intact(changed)
        codec.decode(changed, ADDRESS)
        named(changed)
        peek(changed)


@pytest.mark.parametrize("name", VALUES)
def test_forged_bytes_never_raise(name: str) -> None:
    """Bytes changed behind a checksum that was made to fit are a miss or a value, never an exception."""
    codec = Codec(compress_from=16)
    envelope = codec.encode(make(VALUES[name], tags=("t",)))
    for changed in flips(envelope, 1000, name):
        codec.decode(sealed_again(changed), ADDRESS)


def with_payload(payload: bytes, codec_id: int) -> bytes:
    """An envelope of our address with any payload, its lengths and checksum in order."""
    front = bytearray(Codec().encode(make([]))[:-1])
    front[AT["codec"]] = codec_id
    names = len(front) - stored.HEADER.size
    front[LENGTHS_AT : stored.HEADER.size] = struct.pack("<II2Q", names, 0, len(payload), len(payload))
    return stored.with_checksum(bytes(front[stored.LEAD_BYTES :]), payload)


LENGTHS_AT = stored.HEADER.size - 24
AT = {"format": 8, "codec": 9, "compression": 10, "priority": 11}


@pytest.mark.parametrize("what", AT)
def test_what_is_not_known_here_is_a_miss(what: str) -> None:
    """A format, codec, compression or priority of a later release is left alone as a miss, not guessed at."""
    envelope = Codec().encode(make([1, 2]))
    readable = {
        "codec": {1, 3, 4},
        "compression": {0},
        "priority": set(CachePriority),
    }  # its bytes are no text or array
    for number in range(256):
        changed = bytearray(envelope)
        changed[AT[what]] = number
        forged = sealed_again(bytes(changed))
        found = Codec().decode(forged, ADDRESS)
        if what == "format":
            assert (found is None) == (number != stored.FORMAT)
            assert intact(forged) == (number == stored.FORMAT)
        else:
            assert (found is not None) == (number in readable[what])


def test_a_sealed_envelope_is_a_miss() -> None:
    """An encrypted entry met without the means to open it is a miss, and its names are not made up."""
    envelope = bytearray(Codec().encode(make([1, 2])))
    envelope[12] |= Flag.SEALED
    forged = sealed_again(bytes(envelope))
    assert intact(forged)
    assert Codec().decode(forged, ADDRESS) is None
    assert named(forged) is None
    seen = peek(forged)
    assert seen is not None
    assert seen.flags & Flag.SEALED


def test_lengths_that_lie_are_a_miss() -> None:
    """Lengths that point outside, overlap or do not add up are a miss, whatever the checksum says."""
    envelope = Codec().encode(make({"a": (1,)}, tags=("t",)))
    for sizes in ((2**32 - 1, 0, 0, 0), (0, 2**32 - 1, 2**64 - 1, 1), (0, 0, len(envelope), 5), (8, 4, 0, 2**64 - 1)):
        forged = sealed_again(envelope[:LENGTHS_AT] + struct.pack("<II2Q", *sizes) + envelope[stored.HEADER.size :])
        assert Codec().decode(forged, ADDRESS) is None
        assert not intact(forged)
        named(forged)
    names, extra, payload, size = struct.unpack_from("<II2Q", envelope, LENGTHS_AT)
    for moved in (1, 7, names):
        sizes = (names - moved, extra + moved, payload, size)
        forged = sealed_again(envelope[:LENGTHS_AT] + struct.pack("<II2Q", *sizes) + envelope[stored.HEADER.size :])
        assert Codec().decode(forged, ADDRESS) is None


@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x81\x01", b"\xc7\xff\x14", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("codec_id", [3, 4])
def test_endless_nesting_is_a_miss(opening: bytes, codec_id: int) -> None:
    """A hundred thousand levels of nesting, or a promise of four thousand million items, end as a miss."""
    forged = with_payload(opening * 100_000, codec_id)
    assert intact(forged)
    assert Codec().decode(forged, ADDRESS) is None


def test_nested_extensions_are_a_miss() -> None:
    """Tuples within tuples beyond what can be read end as a miss."""
    payload = b"\x90"
    for _ in range(3000):
        payload = b"\x91" + b"\xc9" + struct.pack(">IB", len(payload), 20) + payload
    forged = with_payload(payload, 4)
    assert intact(forged)
    allowed = sys.getrecursionlimit()
    sys.setrecursionlimit(2000)  # another test may have raised it
    try:
        assert Codec().decode(forged, ADDRESS) is None
    finally:
        sys.setrecursionlimit(allowed)


@pytest.mark.parametrize("content", [[1, 2, 1, 3], [1, 2, 3], [[1], 2]], ids=["twice", "odd", "unhashable"])
def test_pairs_that_are_no_mapping_are_a_miss(content: list[object]) -> None:
    """A stored mapping with a key twice, without its value, or with a key that cannot be one is a miss."""
    pairs = msgspec.msgpack.encode(msgspec.msgpack.Ext(23, msgspec.msgpack.encode(content)))
    assert Codec().decode(with_payload(pairs, 4), ADDRESS) is None
    pairs = msgspec.msgpack.encode(msgspec.msgpack.Ext(23, msgspec.msgpack.encode([1, 2])))
    found = Codec().decode(with_payload(pairs, 4), ADDRESS)
    assert found is not None
    assert found.value == {1: 2}


def test_more_than_the_limit_is_a_miss() -> None:
    """A stored value larger than this process allows is not read."""
    envelope = Codec(compression="off").encode(make(b"x" * 2000))
    assert Codec(max_bytes=1999).decode(envelope, ADDRESS) is None
    assert Codec(max_bytes=2000).decode(envelope, ADDRESS) is not None


def test_numbers_out_of_range_are_refused() -> None:
    """A version that the header cannot hold is refused with a reason, not cut off."""
    for version in (2**63, -(2**63) - 1):
        with pytest.raises(SerializationError, match="out of range"):
            Codec().encode(make(1, version=version))


def test_the_checksum_is_crc32_over_everything_behind_it() -> None:
    """Another program can check an envelope: zlib's CRC-32, little-endian, over all bytes behind it."""
    envelope = Codec().encode(FULL)
    assert envelope[:4] == b"\xc9Gn\xc1"
    assert int.from_bytes(envelope[4:8], "little") == zlib.crc32(envelope[8:])


@dataclass
class Item:
    name: str
    tags: set[int]


Item.__module__ = "golden"


class Kind(Enum):
    A = 1


Kind.__module__ = "golden"


class Row(NamedTuple):
    a: int
    b: str


Row.__module__ = "golden"


class Packet(msgspec.Struct):
    a: int
    b: bytes


Packet.__module__ = "golden"

GOLDEN_VALUES: dict[str, object] = {
    "none": None,
    "int": -5,
    "big-int": 2**100,
    "bytes": b"\x00\x01",
    "text": "señal",
    "plain": {"a": [1, 2.5, None, True], "b": {"c": b"d"}, 1: "int key"},
    "tuple": (1, ("a", 2.5)),
    "sets": [{1}, frozenset({"a"})],
    "pairs": {(1, 2): "a", 1.5: "b"},
    "bytearray": bytearray(b"x"),
    "datetime": datetime(2026, 11, 21, 10, 30, 0, 5, tzinfo=UTC),
    "naive": datetime(2026, 11, 21, fold=1),  # noqa: DTZ001  # naive is what is kept
    "date-time-delta": [date(2026, 1, 2), time(1, 2, 3, 4), timedelta(-1, 2, 3)],
    "decimal": Decimal("-1.50"),
    "uuid": UUID(int=7),
    "complex": 1 - 2j,
    "texts": [Fraction(1, 3), ip_address("10.0.0.1"), ip_address("::1"), ip_network("10.0.0.0/8"), ip_network("::/0")],
    "paths": [PurePosixPath("a/b"), PureWindowsPath("c:/d")],
    "dataclass": Item("n", {1}),
    "enum": Kind.A,
    "named-tuple": Row(1, "b"),
    "struct": Packet(1, b"b"),
    "array": np.arange(4, dtype="<f4").reshape(2, 2),
    "nested-array": [np.array([1, 2], dtype=">i2"), np.float32(0.5)],
}


def golden_codec() -> Codec:
    """A codec that knows the classes of the kept envelopes."""
    codec = Codec(compression="off", registry=Registry())
    codec.register(Item, Kind, Row, Packet)
    return codec


def golden_lines() -> dict[str, bytes]:
    """The kept envelopes by name."""
    return {name: bytes.fromhex(text) for name, text in map(str.split, GOLDEN.read_text().splitlines())}


def golden_record(name: str) -> Record:
    """The record that a kept envelope is of."""
    return msgspec.structs.replace(FULL, value=GOLDEN_VALUES[name])


@pytest.mark.parametrize("name", GOLDEN_VALUES)
def test_the_format_stays_as_it_is(name: str) -> None:
    """What this release writes is byte for byte what its format number stands for, and what was kept can be read."""
    kept = golden_lines()[name]
    assert golden_codec().encode(golden_record(name)) == kept
    found = golden_codec().decode(kept, ADDRESS)
    assert found is not None
    assert same(found, golden_record(name))


@pytest.mark.parametrize("name", ["zlib", "zstd"])
def test_compressed_envelopes_can_still_be_read(name: str) -> None:
    """What was compressed by an earlier release of a compressor is read, whatever this one would make of it."""
    found = Codec().decode(golden_lines()[name], ADDRESS)
    assert found is not None
    assert found.value == {"text": "la caché " * 200}

"""Codecs, for any value: what goes in comes back exactly, and no bytes whatever make the reader raise."""

# values of any type are what is tested

import enum
import string
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, timedelta, timezone
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pydantic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genesis_cache.codecs import envelope as stored
from genesis_cache.codecs.codec import Codec
from genesis_cache.codecs.seal import KeyRing
from genesis_cache.model.allowed import EncryptionKey
from genesis_cache.model.entry import CachePriority, Record
from genesis_cache.model.keys import address_of, scope_of

ADDRESS = address_of(scope_of("default", "n"), "k")
CODEC = Codec(compress_from=64, keyring=KeyRing([EncryptionKey("k", bytes(range(32)))]))
PLAIN = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Suit(enum.Enum):
    HEARTS = "h"
    SPADES = ("s", 1)


class Bits(enum.IntFlag):
    A = 1
    B = 2
    C = 4


@dataclass
class Node:
    left: Any
    right: Any = None


@dataclass(frozen=True, slots=True)
class Leaf:
    content: Any


class Line(NamedTuple):
    start: Any
    end: Any


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    head: Any
    body: Any = None


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)
    content: Any
    number: int = 0


ZONES = st.sampled_from(
    [None, UTC, timezone(timedelta(hours=-5, seconds=7)), timezone(timedelta(hours=2), "X"), ZoneInfo("America/Lima")]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HASHABLE_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(max_size=20),
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.complex_numbers(allow_nan=False),
    st.sampled_from(Suit),
    st.integers(0, 7).map(Bits),
    st.integers(-128, 127).map(np.int8),
    st.floats(width=32, allow_nan=False).map(np.float32),
)
KEYS = st.recursive(
    HASHABLE_SCALARS,
    lambda inner: st.one_of(
        st.tuples(inner, inner), st.frozensets(inner, max_size=3), st.builds(Leaf, inner), st.builds(Line, inner, inner)
    ),
    max_leaves=4,
)
ARRAYS = st.one_of(
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9).map(lambda items: np.array(items, dtype=">i4")),
    st.lists(st.floats(width=32), min_size=4, max_size=4).map(lambda items: np.array(items, "f4").reshape(2, 2)),
)
SCALARS = st.one_of(HASHABLE_SCALARS, st.floats(), st.binary(max_size=20).map(bytearray), ARRAYS)
NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(TEXT, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4),
        st.builds(Node, inner, inner),
        st.builds(Leaf, inner),
        st.builds(Line, inner, inner),
        st.builds(Packet, head=inner, body=inner),
        st.dictionaries(NAMES.map("x_".__add__), inner, max_size=2).map(lambda more: Model(content=1, **more)),
        inner.map(lambda item: Model.model_construct(content=item)),
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type and value at every depth; NaN is the same as NaN."""
    if type(one) is not type(other):
        return False
    compare = next((compare for kind, compare in ALIKE if isinstance(one, kind)), None)
    if compare is not None:
        return compare(one, other)
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return bool(one == other) and getattr(one, "fold", 0) == getattr(other, "fold", 0) and repr(one) == repr(other)


ALIKE: list[tuple[Any, Callable[[Any, Any], bool]]] = [
    (float | complex, lambda one, other: repr(one) == repr(other)),
    (
        np.ndarray,
        lambda one, other: (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()),
    ),
    (list | tuple, lambda one, other: len(one) == len(other) and all(map(same, one, other))),
    (dict, lambda one, other: same(list(one.items()), list(other.items()))),
    (set | frozenset, lambda one, other: one == other and sorted(map(kind_name, one)) == sorted(map(kind_name, other))),
    (Packet, lambda one, other: same((one.head, one.body), (other.head, other.body))),
    (Model, lambda one, other: same(vars(one), vars(other)) and same(one.model_extra, other.model_extra)),
]


def kind_name(value: object) -> str:
    """The type of a set's member, as text that can be sorted."""
    return repr(type(value))


@PLAIN
@given(VALUES)
def test_any_value_comes_back(value: object) -> None:
    """Whatever a value is made of, it comes back the same at every depth, sealed or in clear."""
    for sensitive in (False, True):
        envelope = CODEC.encode(Record(address=ADDRESS, value=value, created=1.0, ttl=2.0, sensitive=sensitive))
        assert stored.intact(envelope)
        for form in (envelope, memoryview(envelope)):
            found = CODEC.decode(form, ADDRESS)
            assert found is not None
            assert same(found.value, value)
            assert found.sensitive is sensitive


FINITE = st.floats(allow_nan=False)


@PLAIN
@given(
    st.builds(
        Record,
        address=st.builds(
            lambda cache, space, owner, key: address_of(scope_of(cache, space, owner), key),
            NAMES,
            NAMES | st.just(""),
            st.none() | TEXT.filter(bool),
            TEXT.filter(bool),
        ),
        value=st.integers(),
        created=FINITE,
        ttl=st.none() | FINITE,
        seq=st.integers(0, 2**64 - 1),
        epoch=st.integers(0, 2**64 - 1),
        tags=st.lists(TEXT).map(tuple),
        priority=st.sampled_from(CachePriority),
        swr=FINITE,
        sie=FINITE,
        refresh_ahead=st.none() | FINITE,
        version=st.none() | st.integers(-(2**63), 2**63 - 1),
        etag=st.none() | TEXT,
        last_modified=st.none() | FINITE,
        cost=FINITE,
        content_type=st.none() | TEXT,
        isolate=st.booleans(),
        tiers=st.none() | st.frozensets(NAMES),
        sensitive=st.booleans(),
    )
)
def test_any_record_comes_back(record: Record) -> None:
    """Every field of any record survives, and the header and the names agree with it."""
    envelope = CODEC.encode(record)
    assert CODEC.decode(envelope, record.address) == record
    assert CODEC.decode(envelope, ADDRESS) is None
    seen = stored.peek(envelope)
    assert seen is not None
    assert (seen.seq, seen.epoch, seen.ttl, seen.version) == (record.seq, record.epoch, record.ttl, record.version)
    assert (seen.has_tags, seen.priority, seen.digest) == (bool(record.tags), record.priority, record.address.digest)
    scope = record.address.scope
    names = (scope.cache_name, scope.namespace, scope.owner, record.address.key)
    assert stored.named(envelope) == (None if record.sensitive else names)


@PLAIN
@given(VALUES, st.data())
def test_changed_bytes_never_pass(value: object, data: st.DataObject) -> None:
    """Any change of an envelope is noticed by its checksum, and reading it without that check does not raise."""
    envelope = CODEC.encode(Record(address=ADDRESS, value=value, created=1.0, ttl=2.0, tags=("t",)))
    start = data.draw(st.integers(0, len(envelope) - 1))
    piece = data.draw(st.binary(min_size=1, max_size=4))
    changed = envelope[:start] + piece + envelope[start + len(piece) :]
    if changed != envelope:
        assert not stored.intact(changed)
    CODEC.decode(changed, ADDRESS)
    CODEC.decode(stored.with_checksum(changed[stored.LEAD_BYTES :], b""), ADDRESS)


@PLAIN
@given(VALUES, st.data())
def test_changed_secrets_are_a_miss(value: object, data: st.DataObject) -> None:
    """Any change of a sealed envelope behind its checksum is a miss, also where the checksum was made to fit."""
    record = Record(address=ADDRESS, value=value, created=1.0, ttl=2.0, tags=("t",), sensitive=True)
    envelope = CODEC.encode(record)
    start = data.draw(st.integers(stored.LEAD_BYTES, len(envelope)))
    cut = data.draw(st.integers(0, 4))
    changed = envelope[:start] + data.draw(st.binary(max_size=4)) + envelope[start + cut :]
    if changed != envelope:
        assert CODEC.decode(changed, ADDRESS) is None
        assert CODEC.decode(stored.with_checksum(changed[stored.LEAD_BYTES :], b""), ADDRESS) is None


@PLAIN
@given(st.binary(max_size=300), st.binary(max_size=300), st.data())
def test_two_secrets_cannot_be_mixed(one: bytes, other: bytes, data: st.DataObject) -> None:
    """The head of one sealed envelope and the rest of another, of the same key even, are a miss."""
    first, second = (
        CODEC.encode(Record(address=ADDRESS, value=value, created=1.0, ttl=2.0, sensitive=True))
        for value in (one, other.ljust(len(one), b"-")[: len(one)])
    )
    at = data.draw(st.integers(stored.HEADER.size + 8, len(first) - 8))  # fewer bytes may be the same by chance
    assert CODEC.decode(first[:at] + second[at:], ADDRESS) is None


@PLAIN
@given(st.integers(0, 8), st.integers(0, 3), st.binary(max_size=200), st.integers(0, 300))
def test_any_payload_is_a_value_or_a_miss(codec: int, method: int, payload: bytes, size: int) -> None:
    """Whatever bytes stand where a value should, reading them never raises."""
    front = bytearray(CODEC.encode(Record(address=ADDRESS, value=None, created=1.0, ttl=2.0))[:-1])
    front[9:11] = bytes((codec, method))
    front[stored.HEADER.size - 16 : stored.HEADER.size] = len(payload).to_bytes(8, "little") + size.to_bytes(
        8, "little"
    )
    forged = stored.with_checksum(bytes(front[stored.LEAD_BYTES :]), payload)
    assert stored.intact(forged)
    CODEC.decode(forged, ADDRESS)


@PLAIN
@given(st.binary(max_size=400))
def test_garbage_is_a_miss(garbage: bytes) -> None:
    """Bytes that no cache wrote are a miss everywhere."""
    for form in (garbage, stored.MAGIC + garbage):
        assert not stored.intact(form)
        assert CODEC.decode(form, ADDRESS) is None
        stored.peek(form)
        stored.named(form)
        stored.version_of(form)

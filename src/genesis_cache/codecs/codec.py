"""Records to envelopes and back: the codecs' door. A stored envelope that is not right is a miss, never an error.

A sensitive record leaves here sealed or not at all, and what comes in marked as sensitive counts only if it opens.
"""

import struct

import msgspec

from genesis_cache.codecs import envelope as stored
from genesis_cache.codecs import serialize
from genesis_cache.codecs.compress import Compressor, inflate
from genesis_cache.codecs.registry import REGISTRY, Registry
from genesis_cache.codecs.seal import OVERHEAD_BYTES, KeyRing
from genesis_cache.model.entry import CachePriority, Record
from genesis_cache.model.errors import SerializationError
from genesis_cache.model.keys import Address
from genesis_cache.model.missing import UNSET

Buffer = bytes | memoryview

_PRIORITIES = tuple(CachePriority)

# By their plain names, because looking them up in a module takes a share of the time of a small read.
_unpack = stored.COMMON.unpack_from
_NO_REST = bytes(24)
_HEADER_BYTES = stored.HEADER.size
_HEADER_REST = _HEADER_BYTES - stored.LEAD_BYTES  # what a sealed text is bound to
_MAGIC, _FORMAT, _TTL = stored.MAGIC, stored.FORMAT, stored.TTL
_SECRET = stored.SENSITIVE | stored.SEALED
_BYTES = serialize.BYTES
_NORMAL = int(CachePriority.NORMAL)


class _Extra(msgspec.Struct, array_like=True, gc=False):
    """What only some records have. Part of the stored format: new fields go to the end and have a default."""

    tags: tuple[str, ...] = ()
    refresh_ahead: float | None = None
    etag: str | None = None
    last_modified: float | None = None
    content_type: str | None = None
    tiers: frozenset[str] | None = None


_encode_extra = msgspec.msgpack.Encoder(order="sorted").encode
_decode_extra = msgspec.msgpack.Decoder(_Extra).decode


class Codec:
    """Encodes records and decodes envelopes.

    ``compression`` is ``auto``, ``off``, ``zstd`` or ``zlib`` (`SettingsError` otherwise), used from ``compress_from``
    bytes on; ``max_bytes`` bounds a value's serialized form, before and after compression. With a ``keyring``, which
    ``can_seal`` tells of, sensitive records are encrypted; without one they are refused. Safe from any thread.
    """

    __slots__ = ("_compressor", "_keyring", "_max_bytes", "_reader", "_registry", "can_seal")

    def __init__(
        self,
        *,
        compression: str = "auto",
        compress_from: int = 1024,
        max_bytes: int = 256 * 2**20,
        registry: Registry = REGISTRY,
        keyring: KeyRing | None = None,
    ) -> None:
        self._compressor = Compressor(compression, compress_from)
        self._max_bytes = max_bytes
        self._registry = registry
        self._reader = serialize.Reader(registry)
        self._keyring = keyring
        self.can_seal = keyring is not None

    def register(self, *classes: type) -> None:
        """Allow these classes, and those that their fields name, to be rebuilt in this process."""
        self._registry.register(*classes)

    def expect(self, annotation: object) -> None:
        """Allow the classes that a type annotation names, such as a function's return type, to be rebuilt."""
        self._registry.learn(annotation)

    def encode(self, record: Record, *, annotation: object = UNSET) -> bytes:
        """The envelope. `SerializationError` if the value would not come back as it is, or is too large.

        A sensitive record is sealed; without a key ring that is a `SerializationError` too. It is never compressed,
        because its size would tell of its content.
        """
        if annotation is not UNSET:
            self._registry.learn(annotation)
        codec, payload = serialize.dumps(record.value, self._registry, self._max_bytes)
        size = len(payload)
        if size > self._max_bytes:
            raise SerializationError(
                f"the value takes {size} bytes and an entry may have {self._max_bytes}: store less"
            )
        try:
            if record.sensitive:
                return self._sealed(record, codec, payload)
            method, payload = self._compressor.shrink(payload)
            front = _front(record, codec, method, (len(payload), size))
        except (struct.error, OverflowError) as error:
            raise SerializationError(f"a number of the record is out of range: {error}") from None
        return stored.with_checksum(front, payload)

    def _sealed(self, record: Record, codec: int, payload: Buffer) -> bytes:
        ring = self._keyring
        if ring is None:
            raise SerializationError(
                "a sensitive value leaves memory only encrypted, and there is no key: set CACHE_ENCRYPTION_KEYS"
            )
        size = len(payload)
        front = _front(record, codec, 0, (size + OVERHEAD_BYTES, size), ring.sealing_id)
        header = front[:_HEADER_REST]
        return stored.with_checksum(header, ring.seal(front[_HEADER_REST:] + payload, header))

    def decode(self, envelope: Buffer, address: Address, *, annotation: object = UNSET) -> Record | None:
        """The record; None (a miss) where the envelope is foreign, damaged, or of a format or class not known here.

        So is a sealed one whose key is not in the ring, or of which anything behind the checksum was changed. The
        checksum itself is not looked at: that is `envelope.intact`, once for each stored copy.
        """
        try:
            (
                magic, form, codec, method, priority, flags, created, ttl, rest,
                seq, epoch, digest, names, extra_size, payload_size, size,
            ) = _unpack(envelope)  # fmt: skip
        except struct.error:  # too short
            return None
        start = _HEADER_BYTES + names + extra_size
        if digest != address.digest or magic != _MAGIC or form != _FORMAT or start + payload_size != len(envelope):
            return None
        if size > self._max_bytes or (size != payload_size and not (method or flags & _SECRET)):
            return None
        if annotation is not UNSET:
            self._registry.learn(annotation)
        if flags & _SECRET:
            return self._opened(envelope, address)
        try:
            if codec == _BYTES and not method:
                value: object = bytes(envelope[start:])
            else:
                value = self._value(envelope[start:], codec, method, size)
            record = Record(address, value, created, ttl if flags & _TTL else None, seq, epoch)
            if flags > _TTL or priority != _NORMAL or rest != _NO_REST:
                _add_rest(record, envelope, flags, _PRIORITIES[priority])
                if extra_size:
                    _put_extra(record, _decode_extra(envelope[start - extra_size : start]))
        except Exception:  # noqa: BLE001  # bytes that are no value may fail in any way a class or codec can; all miss
            return None
        return record

    def _opened(self, envelope: Buffer, address: Address) -> Record | None:
        """As `decode`, which has compared address and lengths, for what says that it is sealed or ought to be."""
        header = stored.HEADER.unpack_from(envelope)
        codec, method, priority, flags, created, ttl = header[3:9]
        seq, epoch, key_id, names, extra_size, size = (*header[12:14], *header[16:19], header[20])
        if self._keyring is None:
            return None
        bound_to = envelope[stored.LEAD_BYTES : _HEADER_BYTES]
        plain = self._keyring.open(key_id, envelope[_HEADER_BYTES:], bound_to)
        if plain is None:
            return None
        start = names + extra_size
        try:
            value = self._value(memoryview(plain)[start:], codec, method, size)
            record = Record(address, value, created, ttl if flags & _TTL else None, seq, epoch, sensitive=True)
            _add_rest(record, envelope, flags, _PRIORITIES[priority])
            if extra_size:
                _put_extra(record, _decode_extra(plain[names:start]))
        except Exception:  # noqa: BLE001  # as in `decode`: another release may have sealed what this one cannot read
            return None
        return record

    def _value(self, payload: Buffer, codec: int, method: int, size: int) -> object:
        return self._reader.loads(codec, inflate(method, payload, size) if method else payload)


def _add_rest(record: Record, envelope: Buffer, flags: int, priority: CachePriority) -> None:
    """What the header says beyond the common part."""
    header = stored.HEADER.unpack_from(envelope)
    record.priority = priority
    record.swr, record.sie, record.cost = header[9:12]
    record.version = header[14] if flags & stored.VERSION else None
    record.isolate = bool(flags & stored.ISOLATE)


def _front(record: Record, codec: int, method: int, sizes: tuple[int, int], key_id: bytes = stored.NO_KEY) -> bytes:
    scope = record.address.scope
    names = scope.prefix + record.address.key.encode()
    extra, flags = _extra_of(record)
    if record.sensitive:
        flags |= _SECRET
    ttl, version = record.ttl, record.version
    if ttl is not None:
        flags |= stored.TTL
    if version is not None:
        flags |= stored.VERSION
    if record.isolate:
        flags |= stored.ISOLATE
    header = stored.HEADER.pack(
        stored.MAGIC,
        0,
        stored.FORMAT,
        codec,
        method,
        record.priority,
        flags,
        record.created,
        ttl or 0.0,
        record.swr,
        record.sie,
        record.cost,
        record.seq,
        record.epoch,
        version or 0,
        record.address.digest,
        key_id,
        len(names),
        len(extra),
        *sizes,
    )
    return header[stored.LEAD_BYTES :] + names + extra


def _extra_of(record: Record) -> tuple[bytes, int]:
    found = (
        record.tags,
        record.refresh_ahead,
        record.etag,
        record.last_modified,
        record.content_type,
        record.tiers,
    )
    if found == _NO_EXTRA:
        return b"", 0
    return _encode_extra(_Extra(*found)), stored.EXTRA | (stored.TAGS if record.tags else 0)


_NO_EXTRA = ((), None, None, None, None, None)


def _put_extra(record: Record, extra: _Extra) -> None:
    record.tags = extra.tags
    record.refresh_ahead = extra.refresh_ahead
    record.etag = extra.etag
    record.last_modified = extra.last_modified
    record.content_type = extra.content_type
    record.tiers = extra.tiers

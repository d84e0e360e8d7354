"""Records to envelopes and back: the codecs' door. A stored envelope that is not right is a miss, never an error."""

from struct import error as StructError

import msgspec

from genesis_cache.codecs import envelope as stored
from genesis_cache.codecs import serialize
from genesis_cache.codecs.compress import Compressor, inflate
from genesis_cache.codecs.registry import REGISTRY, Registry
from genesis_cache.model.entry import CachePriority, Record
from genesis_cache.model.errors import SerializationError
from genesis_cache.model.keys import Address
from genesis_cache.model.missing import UNSET

Buffer = bytes | memoryview

_PRIORITIES = tuple(CachePriority)


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
    bytes on; ``max_bytes`` bounds a value's serialized form, before and after compression. Safe from any thread.
    """

    __slots__ = ("_compressor", "_max_bytes", "_reader", "_registry")

    def __init__(
        self,
        *,
        compression: str = "auto",
        compress_from: int = 1024,
        max_bytes: int = 256 * 2**20,
        registry: Registry = REGISTRY,
    ) -> None:
        self._compressor = Compressor(compression, compress_from)
        self._max_bytes = max_bytes
        self._registry = registry
        self._reader = serialize.Reader(registry)

    def register(self, *classes: type) -> None:
        """Allow these classes, and those that their fields name, to be rebuilt in this process."""
        self._registry.register(*classes)

    def encode(self, record: Record, *, annotation: object = UNSET, sensitive: bool = False) -> bytes:
        """The envelope. `SerializationError` if the value would not come back as it is, or is too large.

        A ``sensitive`` value is never compressed, because its size would tell of its content.
        """
        if annotation is not UNSET:
            self._registry.learn(annotation)
        codec, payload = serialize.dumps(record.value, self._registry, self._max_bytes)
        size = len(payload)
        if size > self._max_bytes:
            raise SerializationError(
                f"the value takes {size} bytes and an entry may have {self._max_bytes}: store less"
            )
        method = 0
        if not sensitive:
            method, payload = self._compressor.shrink(payload)
        try:
            front = _front(record, codec, method, stored.SENSITIVE if sensitive else 0, (len(payload), size))
        except (StructError, OverflowError) as error:
            raise SerializationError(f"a number of the record is out of range: {error}") from None
        return stored.seal(front, payload)

    def decode(self, envelope: Buffer, address: Address, *, annotation: object = UNSET) -> Record | None:
        """The record; None (a miss) where the envelope is foreign, damaged, or of a format or class not known here.

        The checksum is not looked at: that is `envelope.intact`, once for each stored copy.
        """
        if len(envelope) < stored.HEADER.size:
            return None
        (
            magic, _, form, codec, method, priority, flags, created, ttl, swr, sie, cost,
            seq, epoch, version, digest, _, names, extra_size, payload_size, size,
        ) = stored.HEADER.unpack_from(envelope)  # fmt: skip
        if digest != address.digest or magic != stored.MAGIC or form != stored.FORMAT or flags & stored.SEALED:
            return None
        extra_at = stored.HEADER.size + names
        start = extra_at + extra_size
        if start + payload_size != len(envelope) or size > self._max_bytes or priority >= len(_PRIORITIES):
            return None
        if annotation is not UNSET:
            self._registry.learn(annotation)
        try:
            value = self._value(envelope[start:], codec, method, size)
            extra = _decode_extra(envelope[extra_at:start]) if extra_size else None
        except Exception:  # noqa: BLE001  # bytes that are no value may fail in any way a class or codec can; all miss
            return None
        record = Record(
            address=address,
            value=value,
            created=created,
            ttl=ttl if flags & stored.TTL else None,
            seq=seq,
            epoch=epoch,
            priority=_PRIORITIES[priority],
            swr=swr,
            sie=sie,
            version=version if flags & stored.VERSION else None,
            cost=cost,
            isolate=bool(flags & stored.ISOLATE),
        )
        if extra is not None:
            _put_extra(record, extra)
        return record

    def _value(self, payload: Buffer, codec: int, method: int, size: int) -> object:
        return self._reader.loads(codec, inflate(method, payload, size) if method else payload)


def _front(record: Record, codec: int, method: int, flags: int, sizes: tuple[int, int]) -> bytes:
    scope = record.address.scope
    names = scope.prefix + record.address.key.encode()
    extra, more = _extra_of(record)
    flags |= more
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
        stored.NO_KEY,
        len(names),
        len(extra),
        *sizes,
    )
    return header[stored.SEAL_BYTES :] + names + extra


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

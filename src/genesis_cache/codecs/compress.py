"""Compression of payloads: zstd or zlib, tried only where it promises something, kept only where it saves a tenth."""

import importlib
import threading
import zlib
from types import ModuleType
from typing import Any, Protocol

from genesis_cache.model.errors import SettingsError

Buffer = bytes | memoryview

STORED = 0
ZLIB = 1
ZSTD = 2

METHODS = ("auto", "off", "zstd", "zlib")

_LEVEL = 1
_KEPT_PERCENT = 90  # a compressed payload may have at most so much of its size
_SAMPLE_BYTES = 4096  # a payload larger than this is compressed only if a sample of so many bytes gives way
_GLANCE_BYTES = 32
_GLANCE_DISTINCT = 28  # of 32 random bytes 30 differ on average, of base64 25, of text 18, of hexadecimal 14


class Method(Protocol):
    """One way to compress."""

    number: int

    def deflate(self, data: Buffer) -> bytes:
        """The compressed form."""

    def inflate(self, data: Buffer, size: int) -> bytes:
        """The original of exactly ``size`` bytes; any exception where it is not that, before more than that is made."""


class Zlib:
    """DEFLATE (RFC 1951) as the standard library has it."""

    number = ZLIB

    def deflate(self, data: Buffer) -> bytes:
        """The compressed form."""
        return zlib.compress(data, _LEVEL)

    def inflate(self, data: Buffer, size: int) -> bytes:
        """The original; ValueError or ``zlib.error`` where it is not ``size`` bytes."""
        engine = zlib.decompressobj()
        found = engine.decompress(data, size + 1)
        if len(found) != size or not engine.eof or engine.unused_data:
            raise ValueError("the compressed payload is not of the size that it says")
        return found


class PackageZstd(threading.local):
    """Zstandard (RFC 8878) by the package ``zstandard``; a context of its own for each thread, as that asks for."""

    number = ZSTD

    def __init__(self, module: ModuleType) -> None:
        # Any: the package has no required stubs and may be absent.
        self._compressor: Any = module.ZstdCompressor(level=_LEVEL)
        self._decompressor: Any = module.ZstdDecompressor()
        self._content_size: Any = module.frame_content_size

    def deflate(self, data: Buffer) -> bytes:
        """The compressed form, its size in the frame."""
        return bytes(self._compressor.compress(data))

    def inflate(self, data: Buffer, size: int) -> bytes:
        """The original; the frame must say ``size`` itself, because that is what the package allocates."""
        if self._content_size(data) != size:
            raise ValueError("the compressed payload is not of the size that it says")
        found = bytes(self._decompressor.decompress(data, max_output_size=size, allow_extra_data=False))
        if len(found) != size:
            raise ValueError("the compressed payload is not of the size that it says")
        return found


class BuiltinZstd:
    """Zstandard by ``compression.zstd`` of Python 3.14, or ``backports.zstd``, which is the same."""

    number = ZSTD

    def __init__(self, module: ModuleType) -> None:
        self._module: Any = module  # Any: older type sheds do not know it

    def deflate(self, data: Buffer) -> bytes:
        """The compressed form."""
        return bytes(self._module.compress(data, level=_LEVEL))

    def inflate(self, data: Buffer, size: int) -> bytes:
        """The original; ValueError or its own error where it is not ``size`` bytes."""
        engine = self._module.ZstdDecompressor()
        found = bytes(engine.decompress(data, max_length=size + 1))
        if len(found) != size or not engine.eof or engine.unused_data:
            raise ValueError("the compressed payload is not of the size that it says")
        return found


_ZSTD_MAKERS = (("compression.zstd", BuiltinZstd), ("zstandard", PackageZstd), ("backports.zstd", BuiltinZstd))


def _find_zstd() -> Method | None:
    for name, method in _ZSTD_MAKERS:
        try:
            return method(importlib.import_module(name))
        except ImportError:
            continue
    return None


_ZLIB = Zlib()
_ZSTD = _find_zstd()


def has_zstd() -> bool:
    """Whether this process can read and write zstd."""
    return _ZSTD is not None


class Compressor:
    """Compresses by one method, inflates by any.

    ``compression`` is ``auto`` (zstd, else zlib), ``off``, ``zstd`` or ``zlib``; `SettingsError` for another word, or
    for ``zstd`` where it is not to be had. Payloads below ``compress_from`` bytes are left as they are.
    """

    __slots__ = ("_compress_from", "_method")

    def __init__(self, compression: str = "auto", compress_from: int = 1024) -> None:
        self._method = _method_of(compression)
        self._compress_from = compress_from

    def shrink(self, payload: Buffer) -> tuple[int, Buffer]:
        """The method's number and the compressed payload, or `STORED` and the payload as it came."""
        size = len(payload)
        if self._method is None or size < self._compress_from:
            return STORED, payload
        if _looks_random(payload, size):
            return STORED, payload
        if size > _SAMPLE_BYTES and not _pays(self._method, _sample(payload)):
            return STORED, payload
        smaller = self._method.deflate(payload)
        if len(smaller) * 100 > size * _KEPT_PERCENT:
            return STORED, payload
        return self._method.number, smaller


def _looks_random(payload: Buffer, size: int) -> bool:
    """Whether two glances show next to no byte twice, as random and compressed bytes do, and text never does."""
    first, second = size // 3, 2 * size // 3
    return (
        len(set(payload[first : first + _GLANCE_BYTES])) >= _GLANCE_DISTINCT
        and len(set(payload[second : second + _GLANCE_BYTES])) >= _GLANCE_DISTINCT
    )


def inflate(number: int, payload: Buffer, size: int) -> Buffer:
    """The payload of ``size`` bytes again. Any exception where it is not that; LookupError for a method not here."""
    if number == STORED:
        if len(payload) != size:
            raise ValueError("the payload is not of the size that it says")
        return payload
    if number == ZLIB:
        return _ZLIB.inflate(payload, size)
    if number == ZSTD and _ZSTD is not None:
        return _ZSTD.inflate(payload, size)
    raise LookupError(f"no way to inflate a payload compressed by method {number}")


def _method_of(compression: str) -> Method | None:
    word = compression.lower()
    if word not in METHODS:
        raise SettingsError(f"CACHE_COMPRESSION={compression!r} is not one of {', '.join(METHODS)}")
    if word == "zstd" and _ZSTD is None:
        raise SettingsError(
            "CACHE_COMPRESSION=zstd needs the package zstandard (or Python 3.14): install it or use auto"
        )
    if word == "off":
        return None
    return _ZLIB if word == "zlib" else _ZSTD or _ZLIB


def _sample(payload: Buffer) -> bytes:
    half = _SAMPLE_BYTES // 2
    middle = len(payload) // 2
    return bytes(payload[:half]) + bytes(payload[middle : middle + half])


def _pays(method: Method, sample: bytes) -> bool:
    return len(method.deflate(sample)) * 100 <= len(sample) * _KEPT_PERCENT

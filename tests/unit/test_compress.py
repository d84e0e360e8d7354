"""Compression: only where it saves, never for what is secret, and no bomb goes off."""

import importlib
import os
import random
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import msgspec
import pytest
import zstandard

from genesis_cache.codecs.codec import Codec
from genesis_cache.codecs.compress import STORED, ZLIB, ZSTD, BuiltinZstd, Compressor, PackageZstd, inflate
from genesis_cache.codecs.envelope import intact
from genesis_cache.codecs.seal import KeyRing
from genesis_cache.model.allowed import EncryptionKey
from genesis_cache.model.entry import Record
from genesis_cache.model.errors import SettingsError
from genesis_cache.model.keys import address_of, scope_of

ADDRESS = address_of(scope_of("default"), "k")
TEXT = "the quick brown fox jumps over the lazy dog. "


def record(value: object) -> Record:
    """A record of a value."""
    return Record(address=ADDRESS, value=value, created=0.0, ttl=None)


@pytest.mark.parametrize("method", ["auto", "zstd", "zlib", "ZSTD", "off"])
@pytest.mark.parametrize("value", [TEXT * 50, TEXT * 5000, {"rows": [TEXT] * 500}, (TEXT * 50,), b"\x00" * 300_000])
def test_what_was_compressed_comes_back(method: str, value: object) -> None:
    """With every method a value comes back as it was, and takes less room with all but `off`."""
    envelope = Codec(compression=method).encode(record(value))
    for reader in ("auto", "off", "zlib"):
        found = Codec(compression=reader).decode(memoryview(envelope), ADDRESS)
        assert found is not None
        assert found.value == value
    assert intact(envelope)
    assert (len(envelope) < len(Codec(compression="off").encode(record(value)))) == (method != "off")


def test_an_unknown_method_is_refused() -> None:
    """A word that is no method is a `SettingsError` that names the setting and what is allowed."""
    with pytest.raises(SettingsError, match=r"CACHE_COMPRESSION='lz4'.*auto, off, zstd, zlib"):
        Codec(compression="lz4")


def test_small_values_are_left_alone() -> None:
    """Below 1 KiB nothing is compressed; from there on it is."""
    compressor = Compressor()
    assert compressor.shrink(b"a" * 1023)[0] == STORED
    assert compressor.shrink(b"a" * 1024)[0] == ZSTD
    assert Compressor("zlib").shrink(b"a" * 1024)[0] == ZLIB


@pytest.mark.parametrize("method", ["zstd", "zlib"])
def test_a_tenth_must_be_saved(method: str) -> None:
    """What shrinks by less than a tenth is stored as it is; what shrinks by more is compressed."""
    chance = random.Random(1)  # repeatable bytes, no secret
    for size in (2000, 200_000):
        for share in range(0, 101, 5):
            zeros = size * share // 100
            block = chance.randbytes(size - zeros) + bytes(zeros)
            number, data = Compressor(method).shrink(block)
            assert (number == STORED) == (data is block)
            assert number == STORED or len(data) <= 0.9 * size
            if share <= 5:
                assert number == STORED


def test_incompressible_values_cost_little() -> None:
    """Random bytes are tried by a sample only: the work for 10 MB is that for 4 KB, counted in bytes compressed."""
    seen = []

    class Counting:
        number = ZLIB

        def deflate(self, data: bytes) -> bytes:
            seen.append(len(data))
            return zlib.compress(data, 1)

        def inflate(self, data: bytes, size: int) -> bytes:
            raise NotImplementedError

    compressor = Compressor("zlib")
    compressor._method = Counting()
    assert compressor.shrink(os.urandom(10_000_000))[0] == STORED
    assert sum(seen) <= 4096
    assert compressor.shrink(TEXT.encode() * 10_000)[0] == ZLIB


def test_a_sensitive_value_is_never_compressed() -> None:
    """The size of a secret's stored form depends on its length alone, so that it cannot be guessed from it."""
    codec = Codec(keyring=KeyRing([EncryptionKey("k", bytes(32))]))
    secrets = [record(text) for text in ("a" * 5000, "b" * 5000, os.urandom(2500).hex())]
    sizes = {len(codec.encode(msgspec.structs.replace(secret, sensitive=True))) for secret in secrets}
    assert len(sizes) == 1
    assert len(codec.encode(record("a" * 5000))) < min(sizes)


BOMB_ZLIB = zlib.compress(bytes(64 * 2**20), 9)
BOMB_ZSTD = zstandard.ZstdCompressor().compress(bytes(64 * 2**20))


@pytest.mark.parametrize(("number", "bomb"), [(ZLIB, BOMB_ZLIB), (ZSTD, BOMB_ZSTD)], ids=["zlib", "zstd"])
@pytest.mark.parametrize("claimed", [0, 1, 1000, 2**20, 64 * 2**20 - 1, 64 * 2**20 + 1])
def test_a_bomb_that_lies_about_its_size_is_refused(number: int, bomb: bytes, claimed: int) -> None:
    """A payload that inflates to more or less than it says is refused before more than that is made."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="size"):
            inflate(number, bomb, claimed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 2 * claimed + 2**18


@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_a_bomb_above_the_limit_is_a_miss(method: str) -> None:
    """A small envelope that says it inflates beyond the limit is a miss without being inflated."""
    envelope = Codec(compression=method).encode(record(b"\x00" * 10_000_000))
    assert len(envelope) < 100_000
    assert Codec(max_bytes=9_999_999).decode(envelope, ADDRESS) is None
    assert Codec(max_bytes=10_000_000).decode(envelope, ADDRESS) is not None


@pytest.mark.parametrize("method", [ZLIB, ZSTD])
def test_what_is_not_a_compressed_form_is_refused(method: int) -> None:
    """Garbage, a cut frame, two frames and a tail after the frame are refused."""
    deflate = {ZLIB: zlib.compress, ZSTD: zstandard.ZstdCompressor().compress}[method]
    whole = deflate(TEXT.encode() * 100)
    size = len(TEXT) * 100
    assert inflate(method, whole, size) == TEXT.encode() * 100
    for wrong in (b"", b"garbage", whole[:-1], whole[: len(whole) // 2], whole + b"x", whole + whole):
        with pytest.raises(Exception, match=r".+"):
            inflate(method, wrong, size)


def test_unknown_methods_are_refused() -> None:
    """A method of a later release is a LookupError, which the codec turns into a miss."""
    with pytest.raises(LookupError):
        inflate(77, b"x", 1)
    with pytest.raises(ValueError, match="size"):
        inflate(STORED, b"x", 2)


def builtin_zstd() -> BuiltinZstd:
    """The module of Python 3.14, or the same code packaged for older ones."""
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return BuiltinZstd(importlib.import_module(name))


def test_both_makers_of_zstd_read_each_other() -> None:
    """What Python's own zstd writes the package reads, and the other way round; bombs and tails are refused by both."""
    own, package = builtin_zstd(), PackageZstd(zstandard)
    data = TEXT.encode() * 100
    assert own.inflate(package.deflate(data), len(data)) == data
    assert package.inflate(own.deflate(data), len(data)) == data
    for wrong, size in ((BOMB_ZSTD, 1000), (own.deflate(data) + b"x", len(data)), (own.deflate(data)[:-1], len(data))):
        for method in (own, package):
            with pytest.raises(Exception, match=r".+"):
                method.inflate(wrong, size)


WITHOUT_ZSTD = """
import sys
sys.modules["zstandard"] = None
sys.modules["compression"] = sys.modules["compression.zstd"] = sys.modules["backports.zstd"] = None
from genesis_cache.codecs.codec import Codec
from genesis_cache.codecs.compress import has_zstd
from genesis_cache.model.entry import Record
from genesis_cache.model.errors import SettingsError
from genesis_cache.model.keys import address_of, scope_of
address = address_of(scope_of("default"), "k")
assert not has_zstd()
print(Codec().decode(sys.stdin.buffer.read(), address))
made = Codec().encode(Record(address=address, value="x" * 5000, created=0.0, ttl=None))
print(len(made) < 500, Codec().decode(made, address).value == "x" * 5000)
try:
    Codec(compression="zstd")
except SettingsError as error:
    print(error)
"""


def test_a_process_without_zstd_misses_and_uses_zlib() -> None:
    """Where zstd is not installed, what was stored with it is a miss, `auto` means zlib, and `zstd` says what to do."""
    envelope = Codec(compression="zstd").encode(record("x" * 5000))
    source = str(Path(__file__).parents[2] / "src")
    ran = subprocess.run(  # noqa: S603  # our own interpreter and code
        [sys.executable, "-c", WITHOUT_ZSTD],
        input=envelope,
        capture_output=True,
        check=True,
        env={"PYTHONPATH": source},
    )
    missed, made, refused = ran.stdout.decode().splitlines()
    assert (missed, made) == ("None", "True True")
    assert "install" in refused

"""Sealing: what is sensitive leaves memory encrypted or not at all, and opens only as what it was, where it was."""

import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rich.pretty import pretty_repr

from genesis_cache.codecs import envelope as stored
from genesis_cache.codecs import seal
from genesis_cache.codecs.codec import Codec
from genesis_cache.codecs.envelope import Flag, intact, named, peek, version_of, with_checksum
from genesis_cache.codecs.seal import KeyRing, key_id_of, keyring_of
from genesis_cache.model.allowed import EncryptionKey
from genesis_cache.model.entry import CachePriority, Entry, Extra, Record
from genesis_cache.model.errors import SerializationError, SettingsError
from genesis_cache.model.keys import Address, address_of, scope_of

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "sealed-1.txt"
OLD = EncryptionKey("2025-01", bytes(range(32)))
NEW = EncryptionKey("2026-11", bytes(range(32, 64)))
CODEC = Codec(keyring=KeyRing([OLD]))
SCOPE = scope_of("default", "clinic/records", "user:7")
ADDRESS = address_of(SCOPE, "patient:1")
CANARY = "canary-value-3f1c"
FULL = Record(
    address=ADDRESS,
    value={"diagnosis": CANARY, "codes": [CANARY.encode(), 2.5]},
    created=1_763_700_000.123456,
    ttl=0.1,
    seq=2**63 + 5,
    epoch=2**64 - 1,
    tags=("patient:1", "canary-tag"),
    priority=CachePriority.HIGH,
    swr=30.5,
    sie=3600.25,
    refresh_ahead=0.8,
    version=-(2**63),
    etag='W/"canary-etag"',
    last_modified=1_763_600_000.5,
    cost=0.25,
    content_type="canary-type",
    isolate=True,
    tiers=frozenset({"disk", "memory"}),
    sensitive=True,
)
HEADER_END = stored.HEADER.size
FLAGS_AT, CREATED_AT, TTL_AT, SEQ_AT, EPOCH_AT, VERSION_AT, DIGEST_AT, KEY_ID_AT = 12, 16, 24, 56, 64, 72, 80, 112


def secret(value: object, address: Address = ADDRESS) -> Record:
    """A sensitive record of a value, otherwise plain."""
    return Record(address, value, 1_763_700_000.0, 60.0, seq=5, epoch=6, sensitive=True)


def forged(envelope: bytes, at: int, piece: bytes) -> bytes:
    """The same with some bytes replaced and a checksum that fits."""
    changed = envelope[:at] + piece + envelope[at + len(piece) :]
    return with_checksum(changed[stored.LEAD_BYTES :], b"")


@pytest.mark.parametrize(
    "value", [None, b"", b"\x00" * 5000, CANARY, {"a": [1, 2.5, None]}, (1, {CANARY}), 2**100], ids=repr
)
def test_what_was_sealed_comes_back(value: object) -> None:
    """A sensitive value of any kind comes back as it was, marked as sensitive, from bytes and from a view of them."""
    envelope = CODEC.encode(secret(value))
    assert intact(envelope)
    for form in (envelope, memoryview(envelope), memoryview(bytearray(envelope))):
        assert CODEC.decode(form, ADDRESS) == secret(value)


def test_all_that_a_sensitive_record_says_survives() -> None:
    """Every field of a sealed record comes back, and what stores need stands in its header."""
    envelope = CODEC.encode(FULL)
    assert CODEC.decode(envelope, ADDRESS) == FULL
    seen = peek(envelope)
    assert seen is not None
    assert (seen.seq, seen.epoch, seen.ttl, seen.gone_at) == (FULL.seq, FULL.epoch, FULL.ttl, FULL.gone_at)
    assert seen.flags & (Flag.SEALED | Flag.SENSITIVE) == Flag.SEALED | Flag.SENSITIVE
    assert version_of(envelope) == FULL.version
    assert stored.matches(envelope, ADDRESS.digest)


def test_nothing_of_a_secret_stands_in_clear() -> None:
    """Neither the value nor key, owner, namespace or tags are in the stored bytes, and nobody reads names from them."""
    envelope = CODEC.encode(FULL)
    for word in (b"canary", b"patient", b"user:7", b"clinic", b"disk", OLD.secret):
        assert word not in envelope
    assert named(envelope) is None
    assert CODEC.encode(FULL) != envelope  # not even that it is the same value as before


def test_without_a_key_a_sensitive_value_is_refused() -> None:
    """A cache without keys cannot write a sensitive value outside memory, and says what to do without telling it."""
    assert CODEC.can_seal
    assert not Codec().can_seal
    with pytest.raises(SerializationError, match="CACHE_ENCRYPTION_KEYS") as caught:
        Codec().encode(secret(CANARY))
    assert CANARY not in str(caught.value)


def test_every_flipped_bit_is_a_miss() -> None:
    """Whichever single bit of a sealed envelope changes, it is known as damaged, and with a forged checksum a miss."""
    envelope = CODEC.encode(FULL)
    for bit in range(len(envelope) * 8):
        changed = bytearray(envelope)
        changed[bit // 8] ^= 1 << bit % 8
        assert not intact(changed)
        in_checksum = 32 <= bit < 64  # which stores verify, and which is no part of what was sealed
        assert in_checksum or CODEC.decode(bytes(changed), ADDRESS) is None
        if bit >= 64:
            assert CODEC.decode(with_checksum(bytes(changed[stored.LEAD_BYTES :]), b""), ADDRESS) is None


def test_every_truncation_is_a_miss() -> None:
    """However many bytes are missing at the end, or added, it is a miss, also where the lengths were made to fit."""
    envelope = CODEC.encode(secret(CANARY))
    for length in range(len(envelope)):
        assert CODEC.decode(envelope[:length], ADDRESS) is None
        if length >= HEADER_END:
            names, extra, _, size = struct.unpack_from("<II2Q", envelope, HEADER_END - 24)
            left = length - HEADER_END
            for sizes in ((names, extra, max(0, left - names - extra), size), (0, 0, left, left)):
                cut = forged(envelope[:length], HEADER_END - 24, struct.pack("<II2Q", *sizes))
                assert CODEC.decode(cut, ADDRESS) is None
    assert CODEC.decode(envelope + b"\x00", ADDRESS) is None


OTHERS = [
    address_of(SCOPE, "patient:2"),
    address_of(scope_of("default", "clinic/records", "user:8"), "patient:1"),
    address_of(scope_of("default", "clinic/records"), "patient:1"),
    address_of(scope_of("default", "clinic/archive", "user:7"), "patient:1"),
    address_of(scope_of("backups", "clinic/records", "user:7"), "patient:1"),
]


@pytest.mark.parametrize("other", OTHERS, ids=["key", "owner", "nobody", "namespace", "cache"])
def test_nothing_can_be_moved_to_another_address(other: Address) -> None:
    """A sealed value under another key, owner, namespace or cache is a miss there, however its envelope is dressed."""
    ours, theirs = CODEC.encode(secret(CANARY)), CODEC.encode(secret(CANARY, other))
    for taken, at in ((ours, other), (theirs, ADDRESS)):
        assert CODEC.decode(taken, at) is None
        assert CODEC.decode(forged(taken, DIGEST_AT, at.digest), at) is None
    assert CODEC.decode(forged(theirs, HEADER_END, ours[HEADER_END:]), other) is None
    assert CODEC.decode(forged(ours, HEADER_END, theirs[HEADER_END:]), ADDRESS) is None


@pytest.mark.parametrize(
    ("at", "piece"),
    [
        (FLAGS_AT, struct.pack("<I", Flag.TTL)),
        (FLAGS_AT, struct.pack("<I", Flag.TTL | Flag.SENSITIVE)),
        (FLAGS_AT, struct.pack("<I", Flag.TTL | Flag.SEALED)),
        (FLAGS_AT, struct.pack("<I", Flag.SENSITIVE | Flag.SEALED)),
        (CREATED_AT, struct.pack("<d", 1_763_700_001.0)),
        (TTL_AT, struct.pack("<d", 1e9)),
        (SEQ_AT, struct.pack("<Q", 2**60)),
        (EPOCH_AT, struct.pack("<Q", 7)),
        (VERSION_AT, struct.pack("<q", 1)),
        (KEY_ID_AT, key_id_of(NEW.id)),
        (KEY_ID_AT, stored.NO_KEY),
        (9, b"\x04"),
        (10, b"\x01"),
        (11, b"\x03"),
    ],
    ids=[
        "plain", "unsealed", "harmless", "for-ever", "younger", "longer", "later", "log", "version", "key", "no-key",
        "codec", "compressed", "critical",
    ],
)  # fmt: skip
def test_the_header_cannot_be_changed(at: int, piece: bytes) -> None:
    """Flags, times, sequence, log, version or key changed behind a checksum that fits make it a miss, not a value."""
    codec = Codec(keyring=KeyRing([OLD, NEW]))
    for value in (CANARY.encode(), CANARY, [CANARY]):
        envelope = codec.encode(secret(value))
        changed = forged(envelope, at, piece)
        assert intact(changed)
        assert changed != envelope
        assert codec.decode(changed, ADDRESS) is None


def test_what_says_it_is_sensitive_and_is_not_sealed_is_a_miss() -> None:
    """A value in clear that claims to be a secret, as a forger would leave it, is not taken for one."""
    plain = CODEC.encode(msgspec.structs.replace(secret([1]), sensitive=False))
    found = CODEC.decode(plain, ADDRESS)
    assert found is not None
    assert not found.sensitive
    for flags in (Flag.SENSITIVE, Flag.SEALED, Flag.SENSITIVE | Flag.SEALED):
        assert CODEC.decode(forged(plain, FLAGS_AT, struct.pack("<I", Flag.TTL | flags)), ADDRESS) is None


def test_keys_rotate_without_a_miss() -> None:
    """With the new key first and the old one behind it, what either sealed is read, and the new one seals."""
    before, between, after = (Codec(keyring=KeyRing(keys)) for keys in ([OLD], [NEW, OLD], [NEW]))
    old, new = before.encode(secret("old")), between.encode(secret("new"))
    assert between.decode(old, ADDRESS) == secret("old")
    assert between.decode(new, ADDRESS) == after.decode(new, ADDRESS) == secret("new")
    assert before.decode(new, ADDRESS) is None
    assert after.decode(old, ADDRESS) is None
    assert Codec(keyring=KeyRing([OLD, NEW])).decode(new, ADDRESS) == secret("new")


def test_the_wrong_keys_are_a_miss() -> None:
    """Without keys, without this key, or with another key of the same id there is a miss, never an error or bytes."""
    envelope = CODEC.encode(secret(CANARY))
    for codec in (Codec(), Codec(keyring=KeyRing([NEW])), Codec(keyring=KeyRing([EncryptionKey(OLD.id, NEW.secret)]))):
        assert codec.decode(envelope, ADDRESS) is None


def test_plain_records_are_read_and_written_as_ever() -> None:
    """A key ring changes nothing for what is not sensitive: the same bytes, read with and without keys."""
    plain = msgspec.structs.replace(FULL, sensitive=False)
    assert CODEC.encode(plain) == Codec().encode(plain)
    assert CODEC.decode(Codec().encode(plain), ADDRESS) == plain


@pytest.mark.slow
def test_no_nonce_comes_twice() -> None:
    """Of 200,000 writes under one key no two have a nonce in common."""
    record = secret(b"x")
    nonces = {CODEC.encode(record)[HEADER_END : HEADER_END + seal.NONCE_BYTES] for _ in range(200_000)}
    assert len(nonces) == 200_000


FORKS = """
import os, sys
from genesis_cache.codecs.seal import NONCE_BYTES, KeyRing
from genesis_cache.model.allowed import EncryptionKey
ring = KeyRing([EncryptionKey("k", bytes(32))])
ring.seal(b"x", b"")
pipes = []
for _ in range(4):
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        with os.fdopen(write, "wb") as out:
            out.write(b"".join(ring.seal(b"x", b"")[:NONCE_BYTES] for _ in range(20_000)))
        os._exit(0)
    os.close(write)
    pipes.append(read)
drawn = b"".join(ring.seal(b"x", b"")[:NONCE_BYTES] for _ in range(20_000))
for read in pipes:
    with os.fdopen(read, "rb") as said:
        drawn += said.read()
    os.wait()
nonces = {drawn[at : at + NONCE_BYTES] for at in range(0, len(drawn), NONCE_BYTES)}
print(len(drawn) // NONCE_BYTES, len(nonces))
"""


def run(program: str) -> str:
    """What a program of ours prints in a process of its own."""
    ran = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.slow
def test_forked_children_share_no_nonce() -> None:
    """A process and its forked children, with one key ring made before the fork, never draw the same nonce."""
    assert run(FORKS) == "100000 100000"


def test_one_ring_serves_many_threads() -> None:
    """Threads that seal and open with one ring at the same time each get back what they put in."""

    def work(seed: int) -> bool:
        chance = random.Random(seed)
        for _ in range(200):
            value = chance.randbytes(chance.randrange(20_000))
            if CODEC.decode(CODEC.encode(secret(value)), ADDRESS) != secret(value):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


def test_a_key_that_is_shown_is_not_told() -> None:
    """Keys, rings, codecs, and sensitive records and entries show themselves without a key or a value."""
    ring = KeyRing([OLD, NEW])
    entry = Entry("k", CANARY, 0.0, 1.0, 1.0, None, 0, 1, extra=Extra(sensitive=True))
    shown = [OLD, [NEW], ring, Codec(keyring=ring), FULL, [FULL], entry, {"e": entry}]
    texts = [text for thing in shown for text in (repr(thing), str(thing), f"{thing!r:.9999}", pretty_repr(thing))]
    for text in texts:
        assert "canary-value" not in text
        for key in (OLD, NEW):
            assert not any(form in text for form in (repr(key.secret)[2:-1], key.secret.hex(), str(list(key.secret))))
    assert repr(ring) == "KeyRing('2025-01', '2026-11')"
    assert "<sensitive>" in repr(FULL)
    assert "<sensitive>" in pretty_repr(entry)


def test_what_is_not_sensitive_is_shown_as_it_is() -> None:
    """A record or entry that is no secret shows its value and all its fields, as it is written."""
    entry = Entry("k", [1, "two"], 0.0, 1.0, 1.0, None, 0, 1)
    assert repr(entry).startswith("Entry(key='k', value=[1, 'two'], quick_until=0.0, ")
    assert repr(msgspec.structs.replace(FULL, value=9, sensitive=False)).startswith("Record(address=Address(")
    assert "value=9," in repr(msgspec.structs.replace(FULL, value=9, sensitive=False))


MISSING_PACKAGE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
from genesis_cache.codecs.seal import keyring_of
from genesis_cache.model.allowed import EncryptionKey
from genesis_cache.model.errors import SettingsError
assert keyring_of(()) is None
try:
    keyring_of([EncryptionKey("k", b"canary-secret-canary-secret-1234")])
except SettingsError as error:
    print(error)
"""


def test_keys_without_the_package_say_what_to_install() -> None:
    """With keys set and no cryptography installed the cache does not start, and says which extra is missing."""
    said = run(MISSING_PACKAGE)
    assert "genesis-cache[encryption]" in said
    assert "CACHE_ENCRYPTION_KEYS" in said
    assert "canary" not in said


def test_without_keys_the_package_is_not_even_imported() -> None:
    """Who does not encrypt does not pay for it."""
    program = (
        "import sys; from genesis_cache import Cache; Cache.from_url('memory://'); print('cryptography' in sys.modules)"
    )
    assert run(program) == "False"


def test_a_ring_without_keys_is_refused() -> None:
    """No keys are no ring, and an empty ring cannot be made by mistake."""
    assert keyring_of(()) is None
    assert repr(keyring_of([NEW])) == "KeyRing('2026-11')"
    with pytest.raises(SettingsError, match="at least one key"):
        KeyRing(())


GOLDEN_VALUES: dict[str, object] = {"text": "señal", "bytes": b"\x00\x01", "tuple": (1, ("a", 2.5)), "none": None}


def golden_lines() -> dict[str, bytes]:
    """The kept envelopes by name."""
    return {name: bytes.fromhex(text) for name, text in map(str.split, GOLDEN.read_text().splitlines())}


def golden_nonces() -> Iterator[bytes]:
    """The nonces that the kept envelopes were made with, in order."""
    for number in range(len(GOLDEN_VALUES)):
        yield bytes([number]) * seal.NONCE_BYTES


def golden_record(name: str) -> Record:
    """The record that a kept envelope is of."""
    return msgspec.structs.replace(FULL, value=GOLDEN_VALUES[name])


def test_the_sealed_format_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this release seals is byte for byte what its format number stands for, and what was kept can be opened."""
    nonces = golden_nonces()
    monkeypatch.setattr(seal, "urandom", lambda size: next(nonces))
    kept = golden_lines()
    assert list(kept) == list(GOLDEN_VALUES)
    for name, envelope in kept.items():
        assert CODEC.encode(golden_record(name)) == envelope
        assert CODEC.decode(envelope, ADDRESS) == golden_record(name)


def test_another_program_can_open_what_was_sealed() -> None:
    """The layout that is documented is enough to open an envelope with nothing but AES-256-GCM."""
    for name, envelope in golden_lines().items():
        header, nonce, sealed = envelope[8:144], envelope[144:156], envelope[156:]
        plain = AESGCM(OLD.secret).decrypt(nonce, sealed, header)
        names_size, extra_size = struct.unpack_from("<II", envelope, 120)
        assert plain[:names_size] == SCOPE.prefix + b"patient:1"
        if name == "bytes":
            assert plain[names_size + extra_size :] == GOLDEN_VALUES[name]

"""Sealing: AES-256-GCM (NIST SP 800-38D, RFC 5116) with a ring of keys; the first seals, all of them open.

A sealed text is ``nonce 12 | ciphertext | tag 16``. The nonce is drawn from the operating system for each text, which a
forked child does not share. At 2^32 texts under one key, over all processes, the chance that a nonce came twice is one
in 2^33, and SP 800-38D (8.3) allows no more: a new key has to come first in the ring before that.
"""

from collections.abc import Sequence
from hashlib import blake2b
from importlib import import_module
from os import urandom
from typing import Any

from genesis_cache.model.allowed import EncryptionKey
from genesis_cache.model.errors import SettingsError

Buffer = bytes | memoryview

NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
KEY_ID_BYTES = 8


def key_id_of(name: str) -> bytes:
    """How an envelope names its key: the first 8 bytes of BLAKE2b over the key's id, so that no id is too long."""
    return blake2b(name.encode()).digest()[:KEY_ID_BYTES]


def keyring_of(keys: Sequence[EncryptionKey]) -> "KeyRing | None":
    """The ring of the settings' keys; None where there are none. `SettingsError` if ``cryptography`` is missing."""
    return KeyRing(keys) if keys else None


class KeyRing:
    """Keys to seal and open with. Safe from any thread and across fork; it shows the ids of its keys, never a key."""

    __slots__ = ("_ciphers", "_names", "_refused", "_seal", "sealing_id")

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        try:
            # Any: an extra that may be absent, and is looked for only where there are keys
            aead: Any = import_module("cryptography.hazmat.primitives.ciphers.aead")
            self._refused: Any = import_module("cryptography.exceptions").InvalidTag
        except ImportError:
            raise SettingsError(
                "CACHE_ENCRYPTION_KEYS needs the package cryptography: pip install 'genesis-cache[encryption]'"
            ) from None
        if not keys:
            raise SettingsError("a key ring needs at least one key: the first one seals")
        self._names = tuple(key.id for key in keys)
        self._ciphers = {key_id_of(key.id): aead.AESGCM(key.secret) for key in keys}
        self.sealing_id = key_id_of(keys[0].id)
        """The id, in 8 bytes, of the key that `seal` uses."""
        self._seal = self._ciphers[self.sealing_id].encrypt

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(map(repr, self._names))})"

    def seal(self, plain: Buffer, bound_to: Buffer) -> bytes:
        """The sealed text, `OVERHEAD_BYTES` longer, which opens only together with what it is ``bound_to``.

        OverflowError where either has 2^31 bytes or more.
        """
        nonce = urandom(NONCE_BYTES)
        sealed: bytes = nonce + self._seal(nonce, plain, bound_to)
        return sealed

    def open(self, key_id: bytes, sealed: Buffer, bound_to: Buffer) -> bytes | None:
        """The plain text; None where the key is not in the ring, or one bit of the text or its bond was changed."""
        cipher = self._ciphers.get(key_id)
        if cipher is None or len(sealed) < OVERHEAD_BYTES:
            return None
        try:
            plain: bytes = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
        except (self._refused, OverflowError):
            return None
        return plain

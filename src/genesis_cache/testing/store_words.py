"""What tests of stores say: addresses, changes and envelopes, in few words."""

import math
import struct

from genesis_cache.model.keys import Address, address_of, scope_of
from genesis_cache.tiers.base import Buffer, Kill, Kind, Notice, Put, Store

MB = 1024 * 1024
NEVER = math.inf

_VERSIONED = struct.Struct("<8sq")
_VERSION_MARK = b"version\0"


def address(key: str, owner: str | None = None) -> Address:
    """An address in the namespace of these tests."""
    return address_of(scope_of("contract", "shop", owner), key)


def put(key: str, envelope: bytes, *, gone_at: float = NEVER, since: int | None = None) -> Put:
    """A set, or a fill where ``since`` is given."""
    return Put(address(key), envelope, gone_at, since)


def kill(kind: Kind, name: str = "", namespace: str = "shop", owner: str | None = None) -> Kill:
    """A notice to append."""
    return Kill(Notice(kind, namespace, owner, name))


def versioned(version: int) -> bytes:
    """An envelope that says its version."""
    return _VERSIONED.pack(_VERSION_MARK, version)


def version_of(envelope: Buffer) -> int | None:
    """The version that `versioned` wrote, for stores that read it out of the envelope."""
    if len(envelope) != _VERSIONED.size:
        return None
    mark, version = _VERSIONED.unpack(envelope)
    return int(version) if mark == _VERSION_MARK else None


def read(store: Store, key: str) -> bytes | None:
    """The envelope of a key, copied."""
    envelope = store.get(address(key))
    return None if envelope is None else bytes(envelope)

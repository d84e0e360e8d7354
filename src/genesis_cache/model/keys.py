"""Where an entry lives: cache name, namespace, owner and key, and the digest that far tiers store it by."""

from hashlib import blake2b

import msgspec

from genesis_cache.model.errors import InvalidKey

MAX_KEY_BYTES = 1024
MAX_TAG_BYTES = 1024
MAX_NAME_BYTES = 256


class Scope(msgspec.Struct, frozen=True, gc=False):
    """The part of an address that a view fixes: which cache, which namespace, whose entries.

    ``owner`` None means entries that belong to nobody in particular. ``prefix`` is the length-prefixed encoding
    of the three, so that no two scopes can run into each other.
    """

    cache_name: str
    namespace: str
    owner: str | None
    prefix: bytes


class Address(msgspec.Struct, frozen=True, gc=False):
    """One entry's full name. ``digest`` is BLAKE2b-256 over scope and key, and is injective up to collisions."""

    scope: Scope
    key: str
    digest: bytes


def scope_of(cache_name: str, namespace: str = "", owner: str | None = None) -> Scope:
    """The scope with its prefix made; `InvalidKey` where a name is not 1 to 256 bytes of UTF-8."""
    parts = [_framed(cache_name.encode()), _framed(_name_bytes(namespace, "namespace") if namespace else b"")]
    parts.append(b"\x00" if owner is None else b"\x01" + _framed(_name_bytes(owner, "owner", MAX_KEY_BYTES)))
    return Scope(cache_name, namespace, owner, b"".join(parts))


def address_of(scope: Scope, key: object) -> Address:
    """The address of a key in a scope; `InvalidKey` where the key is not 1 to 1,024 bytes of UTF-8 text."""
    encoded = key_bytes(key)
    digest = blake2b(scope.prefix + encoded, digest_size=32).digest()
    return Address(scope, key, digest)  # type: ignore[arg-type]  # key_bytes() has refused everything but str


def key_bytes(key: object) -> bytes:
    """A key as UTF-8; `InvalidKey` says what is wrong with one that cannot be a key."""
    return _name_bytes(key, "key", MAX_KEY_BYTES)


def text_key(key: object) -> str:
    """A key as plain text: a member of a StrEnum becomes the text it stands for. `InvalidKey` as `key_bytes`.

    Tables tell owned entries from others by the key's type, so nothing but plain text may reach them as a key.
    """
    key_bytes(key)
    return key if type(key) is str else str.__str__(key)


def tag_name(tag: object) -> str:
    """A tag that was checked, as plain text of 1 to 1,024 bytes of UTF-8."""
    _name_bytes(tag, "tag", MAX_TAG_BYTES)
    return tag if type(tag) is str else str.__str__(tag)


def nested(outer: str, name: object) -> str:
    """The full name of a namespace inside another; `InvalidKey` unless each part between slashes says something."""
    _name_bytes(name, "namespace")
    if not isinstance(name, str) or not all(name.split("/")):
        raise InvalidKey(f"a namespace must have something before, between and after its slashes, got {name!r:.80}")
    return f"{outer}/{name}" if outer else name


def _name_bytes(name: object, what: str, limit: int = MAX_NAME_BYTES) -> bytes:
    if not isinstance(name, str):
        raise InvalidKey(f"{_a(what)} must be a string, got {type(name).__name__}: use str(...) or an f-string")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise InvalidKey(f"{_a(what)} must be valid Unicode text, got {name!r:.80}: {error.reason}") from None
    if not 1 <= len(encoded) <= limit:
        raise InvalidKey(f"{_a(what)} must be 1 to {limit} bytes of UTF-8, got {len(encoded)}: hash or shorten it")
    return encoded


def _a(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(4, "little") + part

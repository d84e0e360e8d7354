"""What each kind of setting may be: checks that convert a value or raise `SettingsError` with what is allowed."""

import binascii
import math
import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from genesis_cache.model.durations import seconds
from genesis_cache.model.errors import SettingsError
from genesis_cache.model.keys import MAX_NAME_BYTES

Check = Callable[[str, object], object]
"""Takes the variable's name and a value; gives the converted value."""

KEY_BYTES = 32

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEX_KEY = re.compile(r"[0-9A-Fa-f]{64}")
_NEVER = {"none", "never"}

_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """A key of 32 bytes and the name by which stored values say that they were encrypted with it."""

    id: str
    secret: bytes = field(repr=False)


def refused(variable: str, value: object, allowed: str) -> SettingsError:
    """The error for a value that is not allowed."""
    return SettingsError(f"{variable} is {value!r:.80}: it must be {allowed}")


def optional(check: Check) -> Check:
    """The same check, and None."""
    return lambda variable, value: None if value is None else check(variable, value)


def count(least: int) -> Check:
    """A whole number from ``least``."""

    def check(variable: str, value: object) -> int:
        number: object = value
        if isinstance(value, str) and value.strip().isdecimal():
            number = int(value)
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise refused(variable, value, f"a whole number from {least}")
        return number

    return check


def size_mb(variable: str, value: object) -> float:
    """A number of MB above 0."""
    return _number(variable, value, "a number of MB (2^20 bytes) above 0")


def milliseconds(variable: str, value: object) -> float:
    """A number of milliseconds above 0."""
    return _number(variable, value, "a number of milliseconds above 0")


def _number(variable: str, value: object, allowed: str) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise refused(variable, value, allowed)
    return number


def span(variable: str, value: object) -> float:
    """A length of time above 0, in seconds."""
    try:
        length = seconds(value, variable)
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from None
    if length is None:
        raise refused(variable, value, 'a length of time such as 5, "90s" or "5m"')
    return length


def ttl(variable: str, value: object) -> float | None:
    """A length of time, or None (as text: ``none`` or ``never``) for no expiry."""
    never = value is None or (isinstance(value, str) and value.strip().lower() in _NEVER)
    return None if never else span(variable, value)


def one_of(*words: str) -> Callable[[str, object], str]:
    """One of these words in any case."""
    known = {word.lower(): word for word in words}

    def check(variable: str, value: object) -> str:
        found = known.get(value.strip().lower()) if isinstance(value, str) else None
        if found is None:
            raise refused(variable, value, f"one of {', '.join(words)}")
        return found

    return check


def word(kind: type[_E]) -> Callable[[str, object], _E]:
    """A member of an enumeration, or its name in any case."""
    check = one_of(*kind)
    return lambda variable, value: kind(check(variable, value))


def name(variable: str, value: object) -> str:
    """A name of 1 to 256 bytes of UTF-8."""
    if isinstance(value, str) and value.isprintable() and 1 <= len(value.encode()) <= MAX_NAME_BYTES:
        return value
    raise refused(variable, value, f"1 to {MAX_NAME_BYTES} bytes of printable text")


def path(variable: str, value: object) -> str:
    """A folder, as text or as a path object."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise refused(variable, value, "the path of a folder")
    return text


def token(variable: str, value: object) -> str | None:
    """A secret word, or None; never shown."""
    if value is None:
        return None
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        raise SettingsError(f"{variable} must be printable ASCII text without spaces (its value is not shown)")
    return value


def keys(variable: str, value: object) -> tuple[EncryptionKey, ...]:
    """Encryption keys from ``id:key,id:key`` or from `EncryptionKey` objects; never shown."""
    words: Iterable[object] = (
        value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else ()
    )
    found = tuple(_key(variable, one) for one in words)
    if len({key.id for key in found}) != len(found):
        raise SettingsError(f"{variable} has two keys of one id: give each its own")
    return found


def _key(variable: str, said: object) -> EncryptionKey:
    if isinstance(said, str):
        identity, _, text = said.strip().partition(":")
        said = EncryptionKey(identity, _key_bytes(text.strip()))
    if isinstance(said, EncryptionKey) and _KEY_ID.fullmatch(said.id) and len(said.secret) == KEY_BYTES:
        return said
    raise SettingsError(
        f"{variable} must be id:key,id:key with ids of letters, digits and . _ - and keys of {KEY_BYTES} bytes"
        " in base64 or hex (the value is not shown)"
    )


def _key_bytes(text: str) -> bytes:
    if _HEX_KEY.fullmatch(text):
        return bytes.fromhex(text)
    try:
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        return b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return b""

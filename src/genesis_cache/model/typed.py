"""Typed text: a value written so that equal text means an equal value of the same type, in every process.

Every piece that can hold anything is preceded by its length, and every container by its count, so that no value can
imitate the text of another.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from types import NoneType
from typing import Any
from uuid import UUID

import msgspec

MAX_DEPTH = 32  # of nested containers; a value that holds itself would never end


def typed(value: object) -> str:
    """The text of a value; TypeError for one that is known only by its place in memory, or is nested too deep.

    Dicts and sets do not mind their order. Zeros of different signs differ, and so do times in different zones.
    """
    return _typed(value, 0)


def _typed(value: object, depth: int) -> str:
    if depth > MAX_DEPTH:
        msg = f"it is nested deeper than {MAX_DEPTH} levels"
        raise TypeError(msg)
    write = _PLAIN.get(type(value))
    if write is not None:
        return write(value)
    nested = _NESTED.get(type(value))
    if nested is not None:
        return nested(value, depth + 1)
    return _object(value, depth + 1)


def _object(value: object, depth: int) -> str:
    """A value of a class of somebody's own: the class, then what it consists of."""
    kind = type(value)
    if isinstance(value, type):
        return f"C{_framed(f'{value.__module__}.{value.__qualname__}')}"
    inside = _inside(value, depth)
    if inside is None:
        msg = f"{kind.__qualname__} does not say what it consists of"
        raise TypeError(msg)
    return f"O{_framed(f'{kind.__module__}.{kind.__qualname__}')}{inside}"


def _inside(value: object, depth: int) -> str | None:
    """What a value consists of, None where it does not say."""
    if isinstance(value, Enum):
        return _framed(value.name or str(value.value))  # a combination of flags may have no name
    if isinstance(value, PurePath):
        return _framed(str(value))
    if isinstance(value, msgspec.Struct):
        return _fields(value, value.__struct_fields__, depth)
    if is_dataclass(value):
        return _fields(value, (field.name for field in fields(value)), depth)
    return _foreign(value, depth) or _as_plain(value, depth)


def _foreign(value: object, depth: int) -> str | None:
    """A value of a library that need not be installed: a pydantic model, a numpy array or scalar."""
    kind = type(value)
    if hasattr(kind, "model_fields") and hasattr(kind, "model_dump"):
        hidden = [getattr(value, name, None) or {} for name in ("__pydantic_extra__", "__pydantic_private__")]
        return "".join(_mapping(part, depth) for part in (vars(value), *hidden))
    return _array(value) if hasattr(kind, "dtype") and hasattr(kind, "tobytes") else None


def _as_plain(value: object, depth: int) -> str | None:
    """A value of a subclass of a plain type, such as a named tuple, as that type; None if it holds more than that."""
    if getattr(value, "__dict__", None):
        return None
    for base in type(value).__mro__:
        if base in _PLAIN:
            return _PLAIN[base](value)
        if base in _NESTED:
            return _NESTED[base](value, depth)
        if vars(base).get("__slots__"):
            return None
    return None


def _fields(value: object, names: Iterable[str], depth: int) -> str:
    return _mapping({name: getattr(value, name) for name in names}, depth)


def _array(value: Any) -> str:
    """A numpy array or scalar: its type, shape and bytes."""
    dtype = value.dtype
    if dtype.hasobject:
        msg = "an array of objects does not say what it consists of"
        raise TypeError(msg)
    digest = blake2b(value.tobytes(), digest_size=32).hexdigest()
    return f"{_framed(str(dtype.descr))}{_framed(str(value.shape))}{digest}"


def _framed(text: str) -> str:
    return f"{len(text)}:{text}"


def _sequence(letter: str) -> Callable[[Iterable[object], int], str]:
    def write(value: Iterable[object], depth: int) -> str:
        items = [_typed(item, depth) for item in value]
        return f"{letter}{len(items)}:{''.join(items)}"

    return write


def _unordered(letter: str) -> Callable[[Iterable[object], int], str]:
    def write(value: Iterable[object], depth: int) -> str:
        items = sorted(_typed(item, depth) for item in value)
        return f"{letter}{len(items)}:{''.join(items)}"

    return write


def _mapping(value: Mapping[object, object] | Mapping[str, object], depth: int) -> str:
    items = sorted(_typed(key, depth) + _typed(item, depth) for key, item in value.items())
    return f"D{len(items)}:{''.join(items)}"


def _moment(letter: str) -> Callable[[dt.datetime | dt.time], str]:
    def write(value: dt.datetime | dt.time) -> str:
        zone = "" if value.tzinfo is None else f"{value.tzinfo}"
        return f"{letter}{_framed(value.isoformat())}{value.fold}{_framed(zone)}"

    return write


_PLAIN: dict[type, Callable[..., str]] = {
    NoneType: lambda _: "N",
    bool: lambda value: "T" if value else "F",
    int: lambda value: f"i{value:d};" if abs(value) < 1 << 64 else f"i{value:#x};",
    float: lambda value: f"f{float.__repr__(value)};",
    complex: lambda value: f"j{float(value.real)!r},{float(value.imag)!r};",
    str: lambda value: f"s{len(value)}:{str.__str__(value)}",
    bytes: lambda value: f"b{len(value)}:{value.hex()}",
    bytearray: lambda value: f"y{len(value)}:{value.hex()}",
    dt.datetime: _moment("t"),
    dt.time: _moment("h"),
    dt.date: lambda value: f"d{value.isoformat()};",
    dt.timedelta: lambda value: f"l{value.days},{value.seconds},{value.microseconds};",
    UUID: lambda value: f"u{value.hex};",
    Decimal: lambda value: f"m{value};",
    Fraction: lambda value: f"q{value.numerator:#x}/{value.denominator:#x};",
    IPv4Address: lambda value: f"4{value};",
    IPv6Address: lambda value: f"6{value};",
    range: lambda value: f"r{value.start},{value.stop},{value.step};",
    type(...): lambda _: "e",
}

_NESTED: dict[type, Callable[..., str]] = {
    tuple: _sequence("("),
    list: _sequence("["),
    dict: _mapping,
    set: _unordered("{"),
    frozenset: _unordered("<"),
}

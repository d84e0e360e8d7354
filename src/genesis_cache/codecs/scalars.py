"""Values without parts that msgpack does not know: how each becomes bytes, and how it is made again from them."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from struct import Struct
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

from genesis_cache.codecs.refusal import refuse

Pack = Callable[[object], bytes]
Build = Callable[[bytes], object]

_DATETIME = Struct("<H5BIB")
_DATE = Struct("<H2B")
_TIME = Struct("<3BIB")
_TIMEDELTA = Struct("<iII")
_COMPLEX = Struct("<2d")
_UUID_BYTES = 16
_SAFETIES = {SafeUUID.safe: b"\x01", SafeUUID.unsafe: b"\x02"}
_SAFETY_OF = {mark: safety for safety, mark in _SAFETIES.items()}


def pack_int(value: int) -> bytes:
    """Two's complement, little-endian, as many bytes as it takes."""
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def build_int(data: bytes) -> int:
    """The integer again."""
    return int.from_bytes(data, "little", signed=True)


def _pack_zone(zone: tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if type(zone) is ZoneInfo and zone.key:
        return b"z" + zone.key.encode()
    if type(zone) is not timezone:
        kind = f"{type(zone).__module__}.{type(zone).__qualname__}"
        refuse(f"its time zone is a {kind}: use zoneinfo.ZoneInfo or datetime.timezone")
    return b"o" + _pack_offset(zone)


def _pack_offset(zone: timezone) -> bytes:
    offset = zone.utcoffset(None)
    name = zone.tzname(None)
    own_name = name.encode() if name != timezone(offset).tzname(None) else b""
    return _pack_timedelta(offset) + own_name


def _build_zone(data: bytes) -> tzinfo | None:
    if not data:
        return None
    if data[:1] == b"z":
        return ZoneInfo(data[1:].decode())
    if data[:1] != b"o":
        raise ValueError("a time zone of an unknown kind")
    offset = _build_timedelta(data[1 : 1 + _TIMEDELTA.size])
    name = data[1 + _TIMEDELTA.size :].decode()
    return timezone(offset, name) if name else timezone(offset)


def _pack_datetime(value: datetime) -> bytes:
    fields = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold)
    return _DATETIME.pack(*fields) + _pack_zone(value.tzinfo)


def _build_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold = _DATETIME.unpack_from(data)
    zone = _build_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _pack_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _build_date(data: bytes) -> date:
    return date(*_DATE.unpack(data))


def _pack_time(value: time) -> bytes:
    fields = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return _TIME.pack(*fields) + _pack_zone(value.tzinfo)


def _build_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, microsecond, _build_zone(data[_TIME.size :]), fold=fold)


def _pack_timedelta(value: timedelta) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _build_timedelta(data: bytes) -> timedelta:
    return timedelta(*_TIMEDELTA.unpack(data))


def _pack_uuid(value: UUID) -> bytes:
    return value.bytes + _SAFETIES.get(value.is_safe, b"")


def _build_uuid(data: bytes) -> UUID:
    safety = data[_UUID_BYTES:]
    return UUID(bytes=data[:_UUID_BYTES], is_safe=_SAFETY_OF[safety] if safety else SafeUUID.unknown)


def _pack_complex(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _build_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _pack_text(value: object) -> bytes:
    return str(value).encode()


def _from_text(kind: Callable[[str], object]) -> Build:
    return lambda data: kind(data.decode())


# The numbers are part of the stored format: a number is never given to another type.
_TABLE: tuple[tuple[int, type, Callable[..., bytes], Build], ...] = (
    (2, bytearray, bytes, bytearray),
    (3, datetime, _pack_datetime, _build_datetime),
    (4, date, _pack_date, _build_date),
    (5, time, _pack_time, _build_time),
    (6, timedelta, _pack_timedelta, _build_timedelta),
    (7, Decimal, _pack_text, _from_text(Decimal)),
    (8, UUID, _pack_uuid, _build_uuid),
    (9, complex, _pack_complex, _build_complex),
    (10, Fraction, _pack_text, _from_text(Fraction)),
    (11, IPv4Address, _pack_text, _from_text(IPv4Address)),
    (12, IPv6Address, _pack_text, _from_text(IPv6Address)),
    (13, IPv4Network, _pack_text, _from_text(IPv4Network)),
    (14, IPv6Network, _pack_text, _from_text(IPv6Network)),
    (15, PurePosixPath, _pack_text, _from_text(PurePosixPath)),
    (16, PosixPath, _pack_text, _from_text(PosixPath)),
    (17, PureWindowsPath, _pack_text, _from_text(PureWindowsPath)),
    (18, WindowsPath, _pack_text, _from_text(WindowsPath)),
)

BIG_INT = 1
PACKERS: dict[type, tuple[int, Callable[..., bytes]]] = {kind: (code, pack) for code, kind, pack, _ in _TABLE}
BUILDERS: dict[int, Build] = {BIG_INT: build_int, **{code: build for code, _, _, build in _TABLE}}

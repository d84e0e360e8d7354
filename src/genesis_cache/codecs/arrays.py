"""NumPy arrays and scalars as raw bytes with dtype, shape and order; numpy itself is imported only to build one."""

# numpy is optional, so no type of it can be named here

import importlib
import sys
from math import prod
from struct import Struct, pack, unpack_from
from typing import Any

from genesis_cache.codecs.refusal import refuse

_C_ORDER = 0
_FORTRAN_ORDER = 1
_HEAD = Struct("<3B")  # order, bytes of the dtype's name, dimensions
_MAX_DIMENSIONS = 64

# Dtypes of numbers, which are few; others have sizes and units and could be without end.
_NUMBERS = frozenset("biufc")
_names: dict[tuple[type, str], bytes] = {}
_dtypes: dict[bytes, Any] = {}


def is_array(value: object) -> bool:
    """Whether it is a plain array of numpy (no subclass, which would come back as another type)."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def is_scalar(value: object) -> bool:
    """Whether it is one of numpy's own scalars."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def pack_array(value: Any) -> bytes:
    """Order, dtype and shape before the items' own bytes."""
    name = _dtype_name(value.dtype)
    flags = value.flags
    order = _FORTRAN_ORDER if flags.f_contiguous and not flags.c_contiguous else _C_ORDER
    head = _HEAD.pack(order, len(name), value.ndim) + name + pack(f"<{value.ndim}Q", *value.shape)
    bare = flags.c_contiguous and value.dtype.kind in _NUMBERS  # others may not lend their memory
    return b"".join((head, value.data if bare else value.tobytes("F" if order else "C")))


def build_array(data: memoryview) -> object:
    """A writable array with memory of its own; any exception where the bytes do not add up."""
    order, name_length, dimensions = _HEAD.unpack_from(data)
    if dimensions > _MAX_DIMENSIONS or order > _FORTRAN_ORDER:
        raise ValueError("an array of an unknown layout")
    at = _HEAD.size + name_length
    dtype = _dtype(bytes(data[_HEAD.size : at]))
    shape = unpack_from(f"<{dimensions}Q", data, at)
    at += 8 * dimensions
    if prod(shape) * dtype.itemsize != len(data) - at:
        raise ValueError("an array's items do not fill its shape")
    letter = "F" if order == _FORTRAN_ORDER else "C"
    if at == len(data):
        return _numpy().empty(shape, dtype, order=letter)
    items = _numpy().frombuffer(data, dtype, offset=at)
    return (items if dimensions == 1 else items.reshape(shape, order=letter)).copy(order="K")


def pack_scalar(value: Any) -> bytes:
    """Dtype before the item's own bytes; text and bytes as they are, because their dtype would drop trailing NULs."""
    kind = type(value)
    numpy = _numpy()
    if kind is numpy.str_:
        return b"\x00U" + str.encode(value)
    if kind is numpy.bytes_:
        return b"\x00S" + bytes.__getitem__(value, slice(None))
    name = _dtype_name(value.dtype)
    if value.dtype.type is not kind:
        refuse(f"a {kind.__qualname__} is not numpy's own scalar: convert it with .item()")
    return bytes((len(name),)) + name + bytes(value.tobytes())


def build_scalar(data: bytes) -> object:
    """The scalar again; any exception where the bytes do not add up."""
    numpy = _numpy()
    if data[0] == 0:
        return _build_text(numpy, data)
    at = 1 + data[0]
    (made,) = numpy.frombuffer(data, _dtype(data[1:at]), offset=at)
    return made


def _build_text(numpy: Any, data: bytes) -> object:
    if data[1:2] == b"U":
        return numpy.str_(data[2:].decode())
    if data[1:2] == b"S":
        return numpy.bytes_(data[2:])
    raise ValueError("a numpy scalar of an unknown kind")


def _numpy() -> Any:
    return sys.modules.get("numpy") or importlib.import_module("numpy")


def _dtype(name: bytes) -> Any:
    dtype = _dtypes.get(name)
    if dtype is None:
        dtype = _numpy().dtype(name.decode("ascii"))
        if dtype.hasobject or dtype.itemsize == 0:
            raise ValueError("items that are not plain bytes")
        if dtype.kind in _NUMBERS:
            _dtypes[name] = dtype
    return dtype


def _dtype_name(dtype: Any) -> bytes:
    """A name that gives exactly this dtype again; its letter where two of the same size differ (``longlong``)."""
    known = _names.get((dtype.type, dtype.byteorder))
    if known is not None and dtype.metadata is None:
        return known
    texts = (dtype.str, dtype.byteorder.replace("|", "") + dtype.char)
    name: bytes | None = next((text.encode("ascii") for text in texts if _means(text, dtype)), None)
    if name is None:
        refuse(f"items of numpy dtype {dtype} do not come back as they were: convert with .astype() or .tolist()")
    if dtype.kind in _NUMBERS:
        _names[dtype.type, dtype.byteorder] = name
    return name


def _means(name: str, dtype: Any) -> bool:
    if dtype.hasobject or dtype.metadata is not None or not dtype.itemsize:
        return False
    try:
        again = _numpy().dtype(name)
    except TypeError:
        return False
    return bool(again == dtype and again.type is dtype.type and again.kind == dtype.kind)

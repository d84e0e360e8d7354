"""NumPy arrays and scalars as raw bytes with dtype, shape and order; numpy itself is imported only to build one."""

import importlib
import sys
from math import prod
from struct import Struct
from types import ModuleType
from typing import Any

from genesis_cache.codecs.refusal import refuse

_C_ORDER = 0
_FORTRAN_ORDER = 1
_HEAD = Struct("<3B")  # order, bytes of the dtype's name, dimensions
_MAX_DIMENSIONS = 64

# Any below: numpy is optional, so no type of it can be named here.


def is_array(value: object) -> bool:
    """Whether it is a plain array of numpy (no subclass, which would come back as another type)."""
    kind = type(value)
    return kind.__module__ == "numpy" and kind is _numpy().ndarray


def is_scalar(value: object) -> bool:
    """Whether it is one of numpy's own scalars."""
    return type(value).__module__ == "numpy" and isinstance(value, _numpy().generic)


def pack_array(value: Any) -> bytes:
    """Order, dtype and shape before the items' own bytes."""
    name = _dtype_name(value.dtype)
    flags = value.flags
    order = _FORTRAN_ORDER if flags.f_contiguous and not flags.c_contiguous else _C_ORDER
    head = _HEAD.pack(order, len(name), value.ndim) + name + Struct(f"<{value.ndim}Q").pack(*value.shape)
    return b"".join((head, value.tobytes("F" if order == _FORTRAN_ORDER else "C")))


def build_array(data: memoryview) -> object:
    """A writable array with memory of its own; any exception where the bytes do not add up."""
    numpy = _numpy()
    order, name_length, dimensions = _HEAD.unpack_from(data)
    if dimensions > _MAX_DIMENSIONS or order > _FORTRAN_ORDER:
        raise ValueError("an array of an unknown layout")
    at = _HEAD.size + name_length
    dtype = _dtype(numpy, bytes(data[_HEAD.size : at]).decode("ascii"))
    sizes = Struct(f"<{dimensions}Q")
    shape = sizes.unpack_from(data, at)
    at += sizes.size
    if prod(shape) * dtype.itemsize != len(data) - at:
        raise ValueError("an array's items do not fill its shape")
    letter = "F" if order == _FORTRAN_ORDER else "C"
    made = numpy.empty(shape, dtype, order=letter)
    if made.nbytes:
        made[...] = numpy.frombuffer(data, dtype, offset=at).reshape(shape, order=letter)
    return made


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
    dtype = _dtype(numpy, data[1:at].decode("ascii"))
    (made,) = numpy.frombuffer(data, dtype, offset=at)
    return made


def _build_text(numpy: Any, data: bytes) -> object:
    if data[1:2] == b"U":
        return numpy.str_(data[2:].decode())
    if data[1:2] == b"S":
        return numpy.bytes_(data[2:])
    raise ValueError("a numpy scalar of an unknown kind")


def _numpy() -> Any:
    found: ModuleType | None = sys.modules.get("numpy")
    return found if found is not None else importlib.import_module("numpy")


def _dtype(numpy: Any, name: str) -> Any:
    dtype = numpy.dtype(name)
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError("items that are not plain bytes")
    return dtype


def _dtype_name(dtype: Any) -> bytes:
    """A name that gives exactly this dtype again; its letter where two of the same size differ (``longlong``)."""
    if not dtype.hasobject and dtype.metadata is None and dtype.itemsize:
        for name in (dtype.str, dtype.byteorder.replace("|", "") + dtype.char):
            if _names(dtype, name):
                return bytes(name.encode("ascii"))
    refuse(f"items of numpy dtype {dtype} do not come back as they were: convert the array with .astype() or .tolist()")


def _names(dtype: Any, name: str) -> bool:
    try:
        again = _numpy().dtype(name)
    except TypeError:
        return False
    return bool(again == dtype and again.type is dtype.type and again.kind == dtype.kind)

"""How many bytes an entry takes: an estimate that looks at no more than about a hundred objects.

Exact for flat values; for nested ones every part is looked at while there are few, and an even sample of them when
there are many. An object met twice in one value is counted once, and what the whole process shares (small integers,
enum members, classes, functions) not at all.
"""

import datetime as dt
import decimal
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from itertools import islice
from sys import getsizeof
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

ENTRY_BYTES = 224
"""What an entry takes besides its key and value: the `Entry`, its place in the table, queues and sketch."""

WEIGHT_BYTES = 16
"""What one unit of `Entry.weight` stands for."""

_NODES = 100  # objects looked at in one value
_SAMPLE = 12  # parts looked at of a container with too many
_SHORT = 8  # items of a dict that is looked at without ado
_TEXT_BYTES = ENTRY_BYTES + 49  # and one more for each letter
_PAIR_BYTES = ENTRY_BYTES + 56 + 2 * 49
_DICT_BYTES = 104  # of an instance's dict, whose keys its class has
_ARRAY_BYTES = 128  # of an array object that tells only the size of its data

_FLAT = frozenset({
    str, bytes, bytearray, int, float, complex, range, array, decimal.Decimal, dt.datetime, dt.date, dt.time,
    dt.timedelta,
})  # fmt: skip
_FIXED = {type(None): 0, bool: 0, float: 24}  # bytes
_LEAST_SHARED, _MOST_SHARED = -5, 256  # integers of which the process has one each
_SHARED = (type, FunctionType, BuiltinFunctionType, ModuleType, Enum)
_SEQUENCES = (list, tuple, deque)
_COLLECTIONS = (set, frozenset)


def weigh(key: str | tuple[str, str], value: object) -> int:
    """Bytes of an entry with that key and value, overhead included; within a quarter for plain data."""
    kind = type(value)
    fixed = _FIXED.get(kind)
    own = len(key) + _TEXT_BYTES if type(key) is str else len(key[0]) + len(key[1]) + _PAIR_BYTES
    if fixed is not None:
        return own + fixed
    if kind in _FLAT:
        return own + getsizeof(value)
    if kind is dict and len(value) <= _SHORT:  # type: ignore[arg-type]  # it is a dict
        size = _short_mapping(value)  # type: ignore[arg-type]  # it is a dict
        if size:
            return own + size
    return own + _size(value, _NODES, set())


def weight_of(key: str | tuple[str, str], value: object) -> int:
    """The same in units of 16 bytes, rounded up, as `Entry.weight` wants it."""
    return (weigh(key, value) + WEIGHT_BYTES - 1) // WEIGHT_BYTES


def _short_mapping(value: dict[Any, Any]) -> int:
    """The size of a dict of a few flat values, 0 if one is not flat."""
    total = getsizeof(value)
    for key, item in value.items():
        fixed = _FIXED.get(type(item))
        if fixed is not None:
            total += fixed
        elif type(item) in _FLAT:
            total += getsizeof(item)
        else:
            return 0
        total += getsizeof(key)
    return total


def _size(value: object, nodes: int, seen: set[int]) -> int:
    kind = type(value)
    if kind is int and _LEAST_SHARED <= value <= _MOST_SHARED:  # type: ignore[operator]  # it is an int
        return 0
    if value is None or kind is bool or id(value) in seen:
        return 0
    seen.add(id(value))
    if kind in _FLAT:
        return getsizeof(value)
    parts = _PARTS.get(kind)
    if parts is not None:
        return getsizeof(value) + parts(value, nodes - 1, seen)
    return _other(value, nodes - 1, seen)


def _mapping(value: dict[Any, Any], nodes: int, seen: set[int]) -> int:
    if 2 * len(value) <= nodes:
        total, each = 0, nodes // (2 * len(value)) if value else 0
        for key, item in value.items():
            total += _size(key, 1, seen) + _size(item, each, seen)
        return total
    pairs = max(min(_SAMPLE, nodes // 4), 1)
    return _scaled([part for pair in islice(value.items(), pairs) for part in pair], 2 * len(value), nodes, seen, 2)


def _sequence(value: Sequence[Any], nodes: int, seen: set[int]) -> int:
    length = len(value)
    if length <= nodes:
        return _sum(value, nodes // length if length else 0, seen)
    taken = max(min(_SAMPLE, nodes // 2), 1)
    return _scaled([value[at * length // taken] for at in range(taken)], length, nodes, seen, 1)


def _collection(value: Iterable[Any], nodes: int, seen: set[int]) -> int:
    length = len(value)  # type: ignore[arg-type]  # a set
    if length <= nodes:
        return _sum(value, nodes // length if length else 0, seen)
    return _scaled(list(islice(value, max(min(_SAMPLE, nodes // 2), 1))), length, nodes, seen, 1)


def _sum(parts: Iterable[object], each: int, seen: set[int]) -> int:
    total = 0
    for part in parts:
        total += _size(part, each, seen)
    return total


def _scaled(sample: list[Any], length: int, nodes: int, seen: set[int], step: int) -> int:
    """The size of so many parts, told from some; the first tells what all share, such as the keys of records."""
    each = nodes // len(sample)
    first = _sum(sample[:step], each, seen)
    rest = _sum(sample[step:], each, seen)
    if len(sample) == step:
        return first * length // step
    return first + rest * (length - step) // (len(sample) - step)


def _other(value: object, nodes: int, seen: set[int]) -> int:
    if isinstance(value, _SHARED):
        return 0
    data = getattr(value, "nbytes", None)
    if type(data) is int:
        return data + _ARRAY_BYTES
    for kinds, parts in _KINDS:
        if isinstance(value, kinds):
            return getsizeof(value) + parts(value, nodes, seen) + _attributes(value, 0, seen)
    return getsizeof(value) + _attributes(value, nodes, seen)


def _attributes(value: object, nodes: int, seen: set[int]) -> int:
    """What an object's fields hold; its ``__dict__`` is only asked for where nothing else names them."""
    kind = type(value)
    fields = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        extra = 0 if hasattr(kind, "__slots__") else 8 * len(fields)
        return extra + _sum((getattr(value, name, None) for name in fields), max(nodes // len(fields), 1), seen)
    names = [name for base in kind.__mro__ for name in _slots(base) if name not in {"__dict__", "__weakref__"}]
    total = _sum((getattr(value, name, None) for name in names), max(nodes // max(len(names), 1), 1), seen)
    own = getattr(value, "__dict__", None)
    if own:
        total += _DICT_BYTES + _sum(own.values(), max(nodes // len(own), 1), seen)
    return total


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


_Parts = Callable[[Any, int, set[int]], int]
_PARTS: dict[type, _Parts] = {
    dict: _mapping, list: _sequence, tuple: _sequence, deque: _sequence, set: _collection, frozenset: _collection,
}  # fmt: skip
_KINDS: tuple[tuple[tuple[type, ...] | type, _Parts], ...] = (
    (dict, _mapping),
    (_SEQUENCES, _sequence),
    (_COLLECTIONS, _collection),
    ((str, bytes, bytearray, int, float), lambda _value, _nodes, _seen: 0),
)

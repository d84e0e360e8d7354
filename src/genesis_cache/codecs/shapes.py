"""How an instance of a class is taken apart and put together again, for each kind of class that can be stored.

A shape's ``token`` stands for the class in stored bytes: a digest of its module, its qualified name and its fields, so
that another class, or this one with other fields, is never taken for it.
"""

# each shape takes instances of its own class, known only by looking

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Sequence
from enum import Enum
from enum import Flag as EnumFlag
from hashlib import blake2b
from itertools import chain
from typing import Any, Protocol

import msgspec

from genesis_cache.codecs.refusal import refuse

TOKEN_BYTES = 16

# What the last parts of a pydantic model are, after its fields.
_MODEL_STATE = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class _Absent:
    """A field that was never set."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


class Shape(Protocol):
    """What the writer and the reader need of a class."""

    cls: Any
    """The class; Any, because only each shape knows how its own are made."""
    token: bytes

    def parts(self, value: Any) -> list[object]:  # Any: each shape takes instances of its own class
        """Everything an instance consists of."""

    def build(self, parts: list[Any]) -> object:
        """The instance again, without its ``__init__``; any exception where the parts are not those of the class."""

    def step(self, index: int) -> str:
        """How a path shows one part."""


def name_of(cls: type) -> str:
    """Module and qualified name."""
    return f"{cls.__module__}:{cls.__qualname__}"


def shape_of(cls: type) -> Shape | None:
    """The shape of a class, None for a class of a kind that cannot be stored."""
    if issubclass(cls, Enum):
        return FlagShape(cls) if issubclass(cls, EnumFlag) else EnumShape(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return NamedTupleShape(cls)
    if dataclasses.is_dataclass(cls):
        return DataclassShape(cls) if _is_plain_object(cls) else None
    if issubclass(cls, msgspec.Struct):
        return StructShape(cls)
    if hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_construct"):
        return ModelShape(cls)
    return UrlShape(cls) if any(base.__module__ == "pydantic.networks" for base in cls.__mro__) else None


class EnumShape:
    """A member of an `Enum`, by name."""

    def __init__(self, cls: type[Enum]) -> None:
        self.cls: Any = cls
        self.token = _token("enum", cls, (_member(name, member.value) for name, member in cls.__members__.items()))

    def parts(self, value: Enum) -> list[object]:
        """Its name."""
        return [value.name]

    def build(self, parts: list[Any]) -> object:
        """The member of that name."""
        (name,) = parts
        return self.cls.__members__[name]

    def step(self, index: int) -> str:
        """Never shown: a name can always be stored."""
        return f".name#{index}"


class FlagShape(EnumShape):
    """A combination of flags, by value."""

    def parts(self, value: Enum) -> list[object]:
        """Its value."""
        return [value.value]

    def build(self, parts: list[Any]) -> object:
        """The combination of that value."""
        (number,) = parts
        return self.cls(number)


class NamedTupleShape:
    """A named tuple, by position."""

    def __init__(self, cls: Any) -> None:
        self.cls: Any = cls
        self._fields: tuple[str, ...] = tuple(cls._fields)
        hints = plain_annotations(cls)
        self.token = _token("namedtuple", cls, ((name, described(hints.get(name))) for name in self._fields))

    def parts(self, value: tuple[object, ...]) -> list[object]:
        """Its items, and attributes of its own if a subclass has any."""
        if len(value) != len(self._fields):
            refuse("it has not as many items as fields")
        return [*value, getattr(value, "__dict__", None) or None]

    def build(self, parts: list[Any]) -> object:
        """The tuple, made without a constructor of the class."""
        *items, attributes = parts
        if len(items) != len(self._fields):
            raise ValueError("not as many items as the named tuple has fields")
        made = tuple.__new__(self.cls, items)
        if attributes:
            vars(made).update(attributes)
        return made

    def step(self, index: int) -> str:
        """The field's name."""
        return _field_step(self._fields, index)


class DataclassShape:
    """A dataclass: its fields and whatever else an instance holds, set without ``__init__`` and past ``frozen``."""

    def __init__(self, cls: type) -> None:
        self.cls: Any = cls
        fields = dataclasses.fields(cls)
        self.token = _token("dataclass", cls, ((field.name, described(field.type)) for field in fields))
        self._slots = frozenset(_slots(cls))
        names = [field.name for field in fields]
        self._names = tuple(dict.fromkeys(chain(names, sorted(self._slots))))
        self._has_dict = bool(cls.__dictoffset__)
        self._recomputed = _cached_properties(cls)

    def parts(self, value: object) -> list[object]:
        """Its fields in order (`ABSENT` where not set), and what else it holds (None: exactly its fields, in order)."""
        if not self._has_dict:
            found = [_slot(value, name) for name in self._names]
            return [*found, {}]
        held = vars(value)
        if tuple(held) == self._names:
            return [*held.values(), None]
        found = [_slot(value, name) if name in self._slots else held.get(name, ABSENT) for name in self._names]
        return [*found, _rest(held, self._names, self._recomputed)]

    def build(self, parts: list[Any]) -> object:
        """The instance, made by ``object.__new__``."""
        *values, rest = parts
        made = object.__new__(self.cls)
        if rest is None and self._has_dict:
            vars(made).update(zip(self._names, values, strict=True))
            return made
        put = object.__setattr__
        for name, value in zip(self._names, values, strict=True):
            if value is ABSENT:
                continue
            if name in self._slots:
                put(made, name, value)
            else:
                vars(made)[name] = value
        if rest:
            vars(made).update(rest)
        return made

    def step(self, index: int) -> str:
        """The field's name."""
        return _field_step(self._names, index)


class StructShape:
    """A msgspec Struct, made by its own fast constructor; what ``__post_init__`` changes is set back."""

    def __init__(self, cls: type[msgspec.Struct]) -> None:
        self.cls: Any = cls
        self._names = cls.__struct_fields__
        self.token = _token("struct", cls, _struct_fields(cls))
        self._by_position = cls.__match_args__ == cls.__struct_fields__  # not so with keyword-only fields
        self._has_hook = hasattr(cls, "__post_init__")
        self._recomputed = _cached_properties(cls)

    def parts(self, value: msgspec.Struct) -> list[object]:
        """Its fields in order, and attributes of its own if it has any."""
        try:
            values = [getattr(value, name) for name in self._names]
        except AttributeError as error:
            refuse(f"a field of it is not set: {error}")
        return [*values, _rest(getattr(value, "__dict__", {}), (), self._recomputed) or None]

    def build(self, parts: list[Any]) -> object:
        """The instance, frozen or not."""
        *values, attributes = parts
        if len(values) != len(self._names):
            raise ValueError("not the fields of the struct")
        made = self.cls(*values) if self._by_position else self.cls(**dict(zip(self._names, values, strict=True)))
        if self._has_hook:
            for name, value in zip(self._names, values, strict=True):
                if getattr(made, name) is not value:
                    msgspec.structs.force_setattr(made, name, value)
        if attributes:
            vars(made).update(attributes)
        return made

    def step(self, index: int) -> str:
        """The field's name."""
        return _field_step(self._names, index)


class ModelShape:
    """A pydantic v2 model: its exact state, set without validation as ``model_construct`` does."""

    def __init__(self, cls: Any) -> None:
        self.cls: Any = cls
        fields: dict[str, Any] = cls.__pydantic_fields__
        self._names = tuple(fields)
        self._all = frozenset(fields)
        self._recomputed = _cached_properties(cls)
        hints = ((name, described(field.annotation)) for name, field in fields.items())
        private = sorted(getattr(cls, "__private_attributes__", {}))
        self.token = _token("pydantic", cls, chain(hints, private))

    def parts(self, value: Any) -> list[object]:
        """Fields, the rest of ``__dict__``, the fields that were set (None: all), extra and private attributes."""
        held, names_set = vars(value), value.__pydantic_fields_set__
        return [
            *(held.get(name, ABSENT) for name in self._names),
            _rest(held, self._names, self._recomputed) or None,
            None if names_set == self._all else sorted(names_set),
            value.__pydantic_extra__,
            value.__pydantic_private__,
        ]

    def build(self, parts: list[Any]) -> object:
        """The model."""
        *values, rest, names_set, extra, private = parts
        made = object.__new__(self.cls)
        fields = {name: value for name, value in zip(self._names, values, strict=True) if value is not ABSENT}
        put = object.__setattr__
        put(made, "__dict__", fields | rest if rest else fields)
        put(made, "__pydantic_fields_set__", set(self._names if names_set is None else names_set))
        put(made, "__pydantic_extra__", extra)
        put(made, "__pydantic_private__", private)
        return made

    def step(self, index: int) -> str:
        """The field's name."""
        return _field_step(self._names, index, _MODEL_STATE)


class UrlShape:
    """An address as pydantic has it (``HttpUrl``, ``PostgresDsn``), by its text."""

    def __init__(self, cls: type) -> None:
        self.cls: Any = cls
        self.token = _token("url", cls, ())

    def parts(self, value: object) -> list[object]:
        """Its text."""
        text = str(value)
        if self.cls(text) != value:
            refuse("its text does not give it again")
        return [text]

    def build(self, parts: list[Any]) -> object:
        """The address of that text."""
        (text,) = parts
        return self.cls(text)

    def step(self, index: int) -> str:
        """Never shown: a text can always be stored."""
        return f".text#{index}"


def described(annotation: object) -> str:
    """A field's type as text that is the same in every process and every Python."""
    if isinstance(annotation, str):
        return annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        word = "Union" if origin in {typing.Union, types.UnionType} else described(origin)
        return f"{word}[{', '.join(map(described, arguments))}]"
    if isinstance(annotation, type):
        return f"{annotation.__module__}.{annotation.__qualname__}"
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    return _ADDRESS.sub("", repr(annotation))


def plain_annotations(cls: type) -> dict[str, Any]:
    """A class's own annotations as they were written; none where Python cannot tell them."""
    try:
        return inspect.get_annotations(cls)
    except NameError:  # Python 3.14 evaluates them only now
        return {}


def _member(name: str, value: object) -> tuple[str, str]:
    # A value of a richer type may show itself in another way in another process; then its type must do.
    simple = isinstance(value, int | str | bytes | float | tuple | None)
    return name, _ADDRESS.sub("", repr(value)) if simple else described(type(value))


def _token(kind: str, cls: type, fields: typing.Iterable[object]) -> bytes:
    text = repr((kind, name_of(cls), list(fields)))
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=TOKEN_BYTES).digest()


def _is_plain_object(cls: type) -> bool:
    try:
        object.__new__(cls)
    except TypeError:  # derives from a builtin with state of its own, such as dict or Exception
        return False
    return True


def _slots(cls: type) -> list[str]:
    found = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__dict__", "__weakref__"}:
                private = name.startswith("__") and not name.endswith("__")
                found.append(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return found


def _slot(value: object, name: str) -> object:
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return ABSENT


def _cached_properties(cls: type) -> frozenset[str]:
    return frozenset(
        name for base in cls.__mro__ for name, held in vars(base).items() if isinstance(held, functools.cached_property)
    )


def _rest(held: dict[str, object], names: Sequence[str], recomputed: frozenset[str]) -> dict[str, object]:
    return {name: value for name, value in held.items() if name not in names and name not in recomputed}


def _struct_fields(cls: type[msgspec.Struct]) -> Sequence[object]:
    try:
        return [(field.name, described(field.type)) for field in msgspec.structs.fields(cls)]
    except NameError:  # an annotation that names what is not there at run time; the fields' names must do
        return cls.__struct_fields__


def _field_step(names: Sequence[str], index: int, others: Sequence[str] = ("__dict__",)) -> str:
    return f".{[*names, *others][index]}"

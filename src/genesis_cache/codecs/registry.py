"""Which classes this process may rebuild from stored bytes: those registered, annotated or stored by it.

A class is never imported by a name that was read. Of two classes with one name the one met last counts.
"""

import typing
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock
from typing import Any

from genesis_cache.codecs.shapes import Shape, name_of, plain_annotations, shape_of
from genesis_cache.model.errors import SerializationError

_MAX_CLASSES = 10_000  # beyond, the one met first is forgotten: a program that makes classes without end must not leak
_MAX_LEARNED = 4096  # annotations remembered as walked; beyond, they are forgotten and walked again


class Registry:
    """Shapes by class, by token and by name; lookups take no lock."""

    __slots__ = ("_by_class", "_by_name", "_by_token", "_learned", "_lock")

    def __init__(self) -> None:
        self._by_class: dict[type, Shape] = {}
        self._by_token: dict[bytes, Shape] = {}
        self._by_name: dict[str, Shape] = {}
        self._learned: dict[int, object] = {}
        self._lock = Lock()

    def register(self, *classes: object) -> None:
        """Allow these classes and those that their fields name; `SerializationError` for one of no kind known here."""
        for cls in classes:
            if not isinstance(cls, type) or self.shape_for(cls) is None:
                raise SerializationError(
                    f"{cls!r} cannot be registered: only dataclasses, msgspec Structs, pydantic models, enums and "
                    "named tuples can be stored"
                )
            self.learn(cls)

    def learn(self, annotation: object) -> None:
        """Allow every class that an annotation names, however deep; what cannot be stored is passed over."""
        if self._learned.get(id(annotation)) is annotation:
            return
        for cls in _classes_in(annotation):
            with suppress(Exception):  # a class too odd to be looked at is one that cannot be stored
                self.shape_for(cls)
        if len(self._learned) >= _MAX_LEARNED:
            self._learned.clear()
        self._learned[id(annotation)] = annotation

    def known(self, cls: type) -> Shape | None:
        """The shape of a class that is allowed already."""
        return self._by_class.get(cls)

    def shape_for(self, cls: type) -> Shape | None:
        """The shape of a class, which is allowed from now on; None if its kind cannot be stored."""
        found = self._by_class.get(cls)
        if found is not None:
            return found
        shape = shape_of(cls)
        if shape is not None:
            self._add(shape)
        return shape

    def by_token(self, token: bytes) -> Shape:
        """The shape that stored bytes ask for; LookupError if its class is not allowed here or has other fields."""
        return self._by_token[token]

    def _add(self, shape: Shape) -> None:
        name = name_of(shape.cls)
        with self._lock:
            older = self._by_name.get(name)
            if older is not None:
                self._forget(older)
            elif len(self._by_name) >= _MAX_CLASSES:
                self._forget(next(iter(self._by_name.values())))
            self._by_name[name] = shape
            self._by_token[shape.token] = shape
            self._by_class[shape.cls] = shape

    def _forget(self, shape: Shape) -> None:
        self._by_name.pop(name_of(shape.cls), None)
        self._by_class.pop(shape.cls, None)
        self._by_token.pop(shape.token, None)


# One for the process, because the rule is "what this process registered, annotated or stored", whichever cache did it.
REGISTRY = Registry()


def _classes_in(annotation: object) -> Iterator[type]:
    seen: set[int] = set()
    todo = [annotation]
    while todo:
        met = todo.pop()
        if id(met) in seen:
            continue
        seen.add(id(met))
        arguments = typing.get_args(met)
        if arguments:
            todo += [typing.get_origin(met), *arguments]
        elif isinstance(met, type):
            yield met
            todo += _field_types(met)
        elif isinstance(met, typing.TypeVar):
            todo += [met.__bound__, *met.__constraints__]
        elif isinstance(met, list | tuple):  # the parameters of a Callable
            todo += met
        else:
            todo.append(getattr(met, "__value__", None))  # `type X = ...` of Python 3.12


def _field_types(cls: type) -> list[Any]:
    if cls.__module__ in {"builtins", "typing", "collections.abc"}:
        return []
    try:
        return list(typing.get_type_hints(cls, include_extras=True).values())
    except Exception:  # noqa: BLE001  # a forward reference to what is not there may fail in any way; use what is known
        return list(plain_annotations(cls).values())

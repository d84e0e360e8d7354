"""Argument keys: the key of a call, from a template of its parameters or from typed, unambiguous arguments."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from inspect import Signature
from operator import attrgetter

from genesis_cache.model.typed import typed

MAX_READABLE_BYTES = 512  # of an argument key; a longer one ends in a BLAKE2b-256 hash of its arguments

_ESCAPE_CHARACTERS = frozenset("0123456789ABCDEF%")  # an escape is written with them, so none of them can end a value


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a template that a value fills."""

    name: str
    """The parameter."""
    attributes: str = ""
    """Dotted path below the parameter's value; empty for the value itself."""
    escapes: tuple[tuple[str, str], ...] = ()
    """Replaced in the value, in this order, so that it cannot run into what follows it."""

    def write(self, argument: object) -> str:
        """What stands here for an argument; TypeError for one whose text is only its place in memory."""
        value = attrgetter(self.attributes)(argument) if self.attributes else argument
        text = text_of(value, self.name)
        for character, escape in self.escapes:
            if character in text:
                text = text.replace(character, escape)
        return text


@dataclass(frozen=True, slots=True)
class Template:
    """A key or a tag with places for parameters, such as ``user:{user_id}``."""

    text: str
    parts: tuple[str | Slot, ...]
    """Literal text and slots in order; no slot at all makes a constant."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The places, in order."""
        return tuple(part for part in self.parts if isinstance(part, Slot))

    def write(self, arguments: Mapping[str, object]) -> str:
        """The key or tag for bound arguments."""
        return "".join([part if isinstance(part, str) else part.write(arguments[part.name]) for part in self.parts])


def template_key(template: str, signature: Signature) -> Template:
    """A key's template taken apart, ``{name}`` or ``{name.attribute}`` standing for a parameter.

    ``:`` and ``%`` inside a value are written ``%3A`` and ``%25``; where the text between two places has no ``:``, one
    of its characters is escaped in the value before it, so that different values never make one key. ValueError for a
    name that is no parameter, or for two places with nothing between them that could part them.
    """
    pairs = _pairs(template, signature)
    return _template(template, [(text, field, _escapes(template, pairs, n)) for n, (text, field) in enumerate(pairs)])


def template_tag(template: str, signature: Signature) -> Template:
    """A tag's template taken apart. Nothing is escaped, so that an f-string of the same values finds the tag."""
    return _template(template, [(text, field, ()) for text, field in _pairs(template, signature)])


def argument_key(prefix: str | None, qualname: str, arguments: Mapping[str, object]) -> str:
    """The key of a call without a template: prefix, function and typed arguments by parameter.

    Equal keys mean equal functions and arguments of equal types: 1, 1.0, True and "1" are four calls. TypeError for an
    argument that is known only by its place in memory.
    """
    parts = []
    for name, value in arguments.items():
        try:
            parts.append(f"{name}={typed(value)}")
        except TypeError as error:
            msg = (
                f"the argument {name!r} of {qualname} cannot be part of a key: {error}; use a template or key=callable"
            )
            raise TypeError(msg) from None
    start = f"{prefix}:{qualname}" if prefix else qualname
    text = ",".join(parts)
    encoded = text.encode("utf-8", "surrogatepass")
    if len(start.encode()) + len(encoded) < MAX_READABLE_BYTES and text.isprintable():
        return f"{start}({text})"
    return f"{start}#{blake2b(encoded, digest_size=32).hexdigest()}"


def text_of(value: object, name: str = "value") -> str:
    """A value as an f-string writes it; TypeError for one whose text is only its place in memory."""
    if type(value) is str:
        return value
    if isinstance(value, bytes | bytearray):
        return repr(value)  # what str() gives, without its BytesWarning
    text = f"{value}"
    if " at 0x" in text:
        msg = f"{name} is a {type(value).__name__} known by its place in memory ({text:.80}): name an attribute of it"
        raise TypeError(msg)
    return text


def _template(text: str, pairs: list[tuple[str, str | None, tuple[tuple[str, str], ...]]]) -> Template:
    parts: list[str | Slot] = []
    for literal, field, escapes in pairs:
        if literal:
            parts.append(literal)
        if field is not None:
            name, _, attributes = field.partition(".")
            parts.append(Slot(name, attributes, escapes))
    return Template(text, tuple(parts))


def _pairs(template: str, signature: Signature) -> list[tuple[str, str | None]]:
    """Each literal with the field after it, None after the last."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        msg = f"the template {template!r} cannot be read: {error}; a brace itself is written twice"
        raise ValueError(msg) from None
    pairs: list[tuple[str, str | None]] = []
    literal = ""
    for text, field, spec, conversion in parsed:
        literal += text
        if field is not None:  # else it was an escaped brace, or the end
            _check_field(template, field, bool(spec or conversion), signature)
            pairs.append((literal, field))
            literal = ""
    return [*pairs, (literal, None)]


def _check_field(template: str, field: str, formatted: bool, signature: Signature) -> None:  # noqa: FBT001  # private, one caller
    if formatted or not all(part.isidentifier() for part in field.split(".")):
        msg = f"in the template {template!r} only {{name}} or {{name.attribute}} may stand in braces, got {field!r}"
        raise ValueError(msg)
    name = field.partition(".")[0]
    if name not in signature.parameters:
        known = ", ".join(signature.parameters) or "none"
        msg = (
            f"the template {template!r} names {name!r}, which is no parameter of the function; its parameters: {known}"
        )
        raise ValueError(msg)


def _escapes(template: str, pairs: list[tuple[str, str | None]], n: int) -> tuple[tuple[str, str], ...]:
    """What is escaped in the value of the n-th field."""
    usual = (("%", "%25"), (":", "%3A"))
    if pairs[n][1] is None or n + 1 >= len(pairs):
        return usual
    separator, following = pairs[n + 1]
    if following is None or ":" in separator:
        return usual
    ending = next((c for c in separator if c not in _ESCAPE_CHARACTERS), None)
    if ending is None:
        both = f"{pairs[n][1]!r} and {following!r}"
        msg = f"in the template {template!r} the values of {both} run into each other: part them by a colon"
        raise ValueError(msg)
    return (*usual, (ending, "".join(f"%{byte:02X}" for byte in ending.encode())))

"""Values to bytes and back, exactly: msgpack by msgspec, with an extension for every type that msgpack does not know.

msgspec would turn a tuple or a set into a list without a word, so a value goes straight to it only after a look at
every type in it. Anything else is lowered first: each part that msgpack does not know becomes an extension that holds
that part's own msgpack.
"""

# a cache stores values of any type

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

import msgspec
from msgspec.msgpack import Ext

from genesis_cache.codecs import arrays, scalars
from genesis_cache.codecs.refusal import Refusal, item_step, refuse, shown
from genesis_cache.codecs.registry import Registry
from genesis_cache.codecs.shapes import ABSENT, TOKEN_BYTES, Shape, name_of

Buffer = bytes | memoryview

# How a payload is to be read. Part of the stored format.
BYTES = 1
TEXT = 2
PLAIN = 3
TAGGED = 4
ARRAY = 5

MAX_DEPTH = 200  # levels of lists and dicts; a level of any other kind counts twice, because it is read by Python code

# Extension codes beside those of scalars.py. Part of the stored format.
_TUPLE = 20
_SET = 21
_FROZENSET = 22
_DICT = 23
_ORDERED_DICT = 24
_COUNTER = 25
_DEQUE = 26
_INSTANCE = 30
_ABSENT = 31
_UNSET = 32
_ND_ARRAY = 40
_ND_SCALAR = 41

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_PLAIN_KEYS = frozenset({type(None), bool, int, str, bytes})
_PLAIN = _SCALARS | {list, dict}
_QUICK_LIMIT = 200_000  # containers looked at before the thorough writer takes over, which counts what is shared
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

_encode = msgspec.msgpack.Encoder().encode


def dumps(value: object, registry: Registry, max_bytes: int) -> tuple[int, Buffer]:
    """How to read it, and the bytes. `SerializationError` where the value would not come back as it is."""
    try:
        try:
            return _dump_quickly(value) or _dump_tagged(value, registry, max_bytes, careful=False)
        except (OverflowError, UnicodeEncodeError):  # a big integer, to be lowered, or a lone surrogate, to be named
            return _dump_tagged(value, registry, max_bytes, careful=True)
    except Refusal as refusal:
        raise refusal.error() from None
    except RecursionError:
        raise Refusal("it is nested deeper than the stack has room for: flatten it").error() from None
    except Exception as error:  # a user's class can fail in any way when it is asked for its parts
        raise Refusal(f"it could not be read ({type(error).__name__}: {error}): convert it first").error() from error


def _dump_quickly(value: Any) -> tuple[int, Buffer] | None:
    kind = type(value)
    if kind is bytes:
        return BYTES, value
    if kind is str:
        return TEXT, value.encode()
    return (PLAIN, _encode(value)) if _is_plain(value) else None


def _dump_tagged(value: object, registry: Registry, max_bytes: int, *, careful: bool) -> tuple[int, Buffer]:
    if arrays.is_array(value):
        return ARRAY, arrays.pack_array(value)
    return TAGGED, _encode(Writer(registry, max_bytes, careful=careful).lower(value, 0))


def _is_plain(value: Any) -> bool:
    """Whether msgpack knows every type in it, it is no deeper than allowed, and nothing in it repeats endlessly."""
    kind = type(value)
    if kind is dict:
        # Most values are flat dicts, and this tells them in half the time.
        if _SCALARS.issuperset(map(type, value.values())):
            return _PLAIN_KEYS.issuperset(map(type, value))
        return _is_plain_below(value)
    return kind in _SCALARS or (kind is list and _is_plain_below(value))


def _is_plain_below(value: list[object] | dict[object, object]) -> bool:
    level: list[Any] = [value]
    met = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            if not _look_into(container, below):
                return False
        if not below:
            return True
        level = below
        met += len(below)
        if met > _QUICK_LIMIT:
            break
    return False


def _look_into(container: Any, below: list[Any]) -> bool:
    """Whether one container may be plain; what it holds of containers is added to those to look into next."""
    items = container
    if type(container) is dict:
        if not _PLAIN_KEYS.issuperset(map(type, container)):
            return False
        items = container.values()
    kinds = set(map(type, items))
    if kinds <= _SCALARS:
        return True
    below += [item for item in items if type(item) is dict or type(item) is list]
    return kinds <= _PLAIN


class Writer:
    """Lowers one value for msgspec: what msgpack knows stays as it is, the rest becomes extensions.

    ``careful`` looks at every number and text by itself; without, an OverflowError or UnicodeEncodeError of msgspec
    tells that this is needed. A container met again is not lowered again, but counted again, so that a small value
    that shares its parts a thousand times over cannot grow beyond ``max_bytes``.
    """

    __slots__ = ("_careful", "_max_bytes", "_nodes", "_registry", "_seen")

    def __init__(self, registry: Registry, max_bytes: int, *, careful: bool) -> None:
        self._registry = registry
        self._max_bytes = max_bytes
        self._careful = careful
        self._nodes = 0
        self._seen: dict[int, tuple[object, object, int]] = {}

    def lower(self, value: Any, depth: int) -> object:
        """What msgspec is to encode in its place; `Refusal` where nothing would do."""
        kind = type(value)
        self._nodes += 1
        if kind in _SCALARS:
            return self._scalar(value) if self._careful else value
        if kind is tuple and depth < MAX_DEPTH and not self._careful and _SCALARS.issuperset(map(type, value)):
            self._nodes += len(value)
            return Ext(_TUPLE, _encode(value))  # rows of a database, mostly; there may be very many
        container = _CONTAINERS.get(kind)
        if container is not None:
            return self._once(value, depth, container)
        packer = scalars.PACKERS.get(kind)
        if packer is not None:
            code, pack = packer
            return Ext(code, pack(value))
        return self._other(value, kind, depth)

    def _other(self, value: object, kind: type, depth: int) -> object:
        shape = self._registry.known(kind)
        if shape is None:
            if value is ABSENT:
                return Ext(_ABSENT, b"")
            if value is msgspec.UNSET:
                return Ext(_UNSET, b"")
            if arrays.is_array(value):
                return Ext(_ND_ARRAY, arrays.pack_array(value))
            if arrays.is_scalar(value):
                return Ext(_ND_SCALAR, arrays.pack_scalar(value))
            shape = self._registry.shape_for(kind) or _refuse_kind(kind)
        parts = shape.parts(value)
        if depth < MAX_DEPTH and not self._careful and _SCALARS.issuperset(map(type, parts)):
            self._nodes += len(parts)
            return Ext(_INSTANCE, shape.token + _encode(parts))
        return self._once(value, depth, partial(Writer.instance, shape=shape, parts=parts))

    def _scalar(self, value: object) -> object:
        if type(value) is int and not _INT_MIN <= value <= _INT_MAX:
            return Ext(scalars.BIG_INT, scalars.pack_int(value))
        if type(value) is str and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                refuse("it is text with a lone surrogate, which is no valid Unicode: repair it first")
        return value

    def _once(self, value: object, depth: int, lower: "Lower") -> object:
        known = self._seen.get(id(value))
        if known is not None:
            _, lowered, nodes = known
            if lowered is ABSENT:
                refuse("it contains itself: store a part that does not")
            self._nodes += nodes
            self._bound()
            return lowered
        if depth >= MAX_DEPTH:
            refuse(f"it is nested deeper than {MAX_DEPTH} lists and dicts, or half as many of other kinds: flatten it")
        before = self._nodes
        self._seen[id(value)] = (value, ABSENT, 0)
        lowered = lower(self, value, depth + 1)
        self._seen[id(value)] = (value, lowered, self._nodes - before)
        self._bound()
        return lowered

    def _bound(self) -> None:
        if self._nodes > self._max_bytes:
            refuse(f"it has more parts than the {self._max_bytes} bytes that an entry may have: store less")

    def ext(self, code: int, content: object, prefix: bytes = b"") -> Ext:
        """An extension that holds content already lowered."""
        data = prefix + _encode(content)
        if len(data) > self._max_bytes:
            refuse(f"it needs more than the {self._max_bytes} bytes that an entry may have: store less")
        return Ext(code, data)

    def items(self, value: Sequence[object], depth: int, step: Callable[[int], str] = item_step) -> Sequence[object]:
        """Each item lowered; the same list back where nothing in it needs it."""
        if not self._careful and _SCALARS.issuperset(map(type, value)):
            self._nodes += len(value)
            return value
        found = []
        try:
            for item in value:
                found.append(self.lower(item, depth))  # noqa: PERF401  # the number of the item that fails is needed
        except Refusal as refusal:
            raise refusal.within(step(len(found))) from None
        return found

    def members(self, value: Iterable[object], depth: int) -> list[object]:
        """Each member of a set lowered."""
        return [self.key(item, depth) for item in value]

    def key(self, key: object, depth: int) -> object:
        """A key or a member of a set lowered; one that is not equal to itself could never be found again."""
        if _has_nan(key):
            refuse(f"the key or member {shown(key)} is not equal to itself: use another")
        try:
            return self.lower(key, depth)
        except Refusal as refusal:
            raise refusal.within(f"{{{shown(key)}}}") from None

    def mapping(self, value: dict[Any, object], depth: int) -> object:
        """A dict: as it is where msgpack knows its keys, else as pairs."""
        if self._careful or not _PLAIN_KEYS.issuperset(map(type, value)):
            return self.pairs(value, depth, _DICT)
        if _SCALARS.issuperset(map(type, value.values())):
            self._nodes += len(value)
            return value
        found = {}
        key = None
        try:
            for key, item in value.items():
                found[key] = self.lower(item, depth)
        except Refusal as refusal:
            raise refusal.within(item_step(key)) from None
        return found

    def pairs(self, value: dict[Any, object], depth: int, code: int) -> Ext:
        """A mapping as key, value, key, value."""
        found = []
        for key, item in value.items():
            found.append(self.key(key, depth + 1))
            try:
                found.append(self.lower(item, depth + 1))
            except Refusal as refusal:
                raise refusal.within(item_step(key)) from None
        return self.ext(code, found)

    def queue(self, value: deque[object], depth: int) -> Ext:
        """A deque after its longest length."""
        return self.ext(_DEQUE, [value.maxlen, *self.items(value, depth + 1)])

    def instance(self, _: object, depth: int, shape: Shape, parts: list[object]) -> Ext:
        """An instance of a class: the class's token, then its parts."""
        return self.ext(_INSTANCE, self.items(parts, depth + 1, shape.step), shape.token)


Lower = Callable[[Writer, Any, int], object]

_CONTAINERS: dict[type, Lower] = {
    list: Writer.items,
    dict: Writer.mapping,
    tuple: lambda writer, value, depth: writer.ext(_TUPLE, writer.items(value, depth + 1)),
    set: lambda writer, value, depth: writer.ext(_SET, writer.members(value, depth + 1)),
    frozenset: lambda writer, value, depth: writer.ext(_FROZENSET, writer.members(value, depth + 1)),
    OrderedDict: lambda writer, value, depth: writer.pairs(value, depth, _ORDERED_DICT),
    Counter: lambda writer, value, depth: writer.pairs(value, depth, _COUNTER),
    deque: Writer.queue,
}


def _has_nan(key: object) -> bool:
    if type(key) is str or type(key) is int:
        return False
    if isinstance(key, tuple | frozenset):
        return any(map(_has_nan, key))
    return bool(key != key)  # noqa: PLR0124  # only what is like NaN is unequal to itself


def _refuse_kind(kind: type) -> NoReturn:
    base = next((base.__name__ for base in kind.__mro__[1:-1] if base in _CONTAINERS or base in _SCALARS), None)
    if base is not None:
        refuse(f"{name_of(kind)} is a subclass of {base} and would come back as another type: convert it to {base}")
    refuse(
        f"there is no way to keep a {name_of(kind)}: convert it to plain types, or make its class a dataclass, "
        "msgspec Struct, pydantic model, enum or named tuple"
    )


class Reader:
    """Makes values of payloads. Any exception where the bytes are not a value, or name a class not allowed here."""

    __slots__ = ("_builders", "_decode", "_list", "_registry")

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._decode = msgspec.msgpack.Decoder(ext_hook=self._extension).decode
        self._list = msgspec.msgpack.Decoder(list, ext_hook=self._extension).decode
        self._builders: dict[int, Callable[[memoryview], object]] = {
            _TUPLE: msgspec.msgpack.Decoder(tuple, ext_hook=self._extension).decode,
            _SET: msgspec.msgpack.Decoder(set, ext_hook=self._extension).decode,
            _FROZENSET: msgspec.msgpack.Decoder(frozenset, ext_hook=self._extension).decode,
            _DICT: self._pairs,
            _ORDERED_DICT: lambda data: OrderedDict(self._pairs(data)),
            _COUNTER: lambda data: Counter(self._pairs(data)),
            _DEQUE: self._queue,
            _INSTANCE: self._instance,
            _ABSENT: lambda _: ABSENT,
            _UNSET: lambda _: msgspec.UNSET,
            _ND_ARRAY: arrays.build_array,
        }

    def loads(self, codec: int, payload: Buffer) -> object:
        """The value."""
        if codec == PLAIN:
            return _decode_plain(payload)
        if codec == BYTES:
            return bytes(payload)
        if codec == TEXT:
            return str(payload, "utf-8")
        if codec == TAGGED:
            return self._decode(payload)
        if codec == ARRAY:
            return arrays.build_array(memoryview(payload))
        raise ValueError(f"payload of unknown codec {codec}")

    def _extension(self, code: int, data: memoryview) -> object:
        builder = self._builders.get(code)
        if builder is not None:
            return builder(data)
        if code == _ND_SCALAR:
            return arrays.build_scalar(bytes(data))
        return scalars.BUILDERS[code](bytes(data))

    def _pairs(self, data: memoryview) -> dict[object, object]:
        flat = self._list(data)
        found = dict(zip(flat[::2], flat[1::2], strict=True))
        if len(found) * 2 != len(flat):
            raise ValueError("a key stands twice in a mapping")
        return found

    def _queue(self, data: memoryview) -> deque[object]:
        longest, *items = self._list(data)
        return deque(items, longest)

    def _instance(self, data: memoryview) -> object:
        shape = self._registry.by_token(bytes(data[:TOKEN_BYTES]))
        return shape.build(self._list(data[TOKEN_BYTES:]))


def _no_extension(code: int, _: memoryview) -> object:
    raise ValueError(f"extension {code} in a plain payload")


_decode_plain = msgspec.msgpack.Decoder(ext_hook=_no_extension).decode

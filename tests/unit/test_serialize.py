"""Values through the codec: each comes back as the type it went in, or is refused with a reason."""

# values of any type are what is tested

import enum
import math
import re
import subprocess
import sys
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pydantic
import pytest

from genesis_cache.codecs.codec import Codec
from genesis_cache.codecs.registry import Registry
from genesis_cache.codecs.serialize import MAX_DEPTH
from genesis_cache.model.entry import Record
from genesis_cache.model.errors import SerializationError
from genesis_cache.model.keys import address_of, scope_of

ADDRESS = address_of(scope_of("default", "products", "user:7"), "item:1")
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    CRIMSON = "red"  # noqa: PIE796  # an alias, which must come back as what it stands for
    BLUE = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


class Permission(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Mode(enum.IntFlag):
    A = 1
    B = 4


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Price:
    amount: Decimal
    labels: set[str]
    where: Point | None = None


@dataclass
class Tagged(Point):
    tags: tuple[str, ...] = ()
    kind: ClassVar[str] = "tagged"
    computed: str = field(init=False, default="-")

    def __post_init__(self) -> None:
        self.computed = f"{self.x}!"
        self.extra_attribute = [self.x]


@dataclass(slots=True)
class Slotted:
    a: int
    later: int = field(init=False)


@dataclass(slots=True)
class SlottedParent:
    a: int
    __hidden: int = 5


@dataclass(slots=True)
class SlottedChild(SlottedParent):
    b: bytes = b""


@dataclass(kw_only=True)
class Box(Generic[T]):
    content: T


@dataclass(frozen=True, order=True)
class Key:
    name: str


class Pair(NamedTuple):
    left: int
    right: object = None


OldPair = namedtuple("OldPair", ["first", "second"])  # noqa: PYI024  # the untyped kind is what is tested


class Position(msgspec.Struct):
    x: int
    marks: set[int]


class Frozen(msgspec.Struct, frozen=True, kw_only=True, tag="frozen", gc=False):
    name: str
    at: datetime | msgspec.UnsetType = msgspec.UNSET


class Hooked(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        self.number += 1


class User(pydantic.BaseModel):
    id: int
    name: str = "Ada"
    seen: datetime | None = None
    friends: list["User"] = []
    price: Price | None = None


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    id: int
    _note: str = pydantic.PrivateAttr(default="none")


class Many(pydantic.RootModel[list[int]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    number: int
    when: date


def codec(**options: Any) -> Codec:
    """A codec that knows no class yet."""
    return Codec(registry=Registry(), **options)


def record(value: object) -> Record:
    """A record of a value."""
    return Record(address=ADDRESS, value=value, created=1_700_000_000.0, ttl=60.0)


def through(value: object, using: Codec | None = None) -> Any:
    """The value after a stay outside memory."""
    using = using or codec()
    envelope = using.encode(record(value))
    found = using.decode(memoryview(envelope), ADDRESS)
    assert found is not None
    again = using.decode(envelope, ADDRESS)
    assert again is not None
    return found.value


LOCAL = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Madrid"))
EXACT = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    10**400,
    -(10**400),
    0.1,
    -0.0,
    math.inf,
    -math.inf,
    "",
    "ñandú 🦤 \x00",
    b"",
    b"\x00\xff",
    bytearray(b"abc"),
    [],
    {},
    (),
    set(),
    frozenset(),
    [1, [2, (3, {4})]],
    ((), ((),)),
    {1, "a", (2, frozenset({3}))},
    frozenset({b"x", None, 2**70}),
    {"b": 1, "a": 2},
    {1: "int", "1": "str", b"1": "bytes", None: 0, True and 2: 3},
    {(1, "a"): [1], frozenset({2}): (3,), 1.5: {4}, Word.YES: 1, Key("k"): Decimal(1)},
    {"deep": {"deeper": [{"deepest": (1, {2})}]}},
    {"big": 2**80, "small": 1, "list": [2**64, 1]},
    {2**70: "big key"},
    datetime(2026, 1, 2, 3, 4, 5, 678901),  # noqa: DTZ001  # naive is what is tested
    datetime(1, 1, 1, tzinfo=UTC),
    datetime.max,  # noqa: DTZ901  # naive is what is tested
    LOCAL,
    LOCAL.replace(fold=1),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30, seconds=-1))),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
    date.min,
    date(2026, 11, 21),
    time(23, 59, 59, 999999, fold=1),
    time(1, tzinfo=UTC),
    timedelta.max,
    timedelta.min,
    timedelta(microseconds=-1),
    Decimal("1.10"),
    Decimal("-0E+5"),
    Decimal("Infinity"),
    Decimal("1E-999999"),
    uuid.UUID(int=5),
    uuid.UUID(int=5, is_safe=uuid.SafeUUID.unsafe),
    complex(1, -2.5),
    Fraction(-1, 3),
    IPv4Address("10.0.0.1"),
    IPv6Address("fe80::1%eth0"),
    IPv4Network("10.0.0.0/8"),
    IPv6Network("::/0"),
    Path("/tmp/ñ"),  # noqa: S108  # no file is touched
    PurePosixPath("a/../b"),
    PureWindowsPath("C:/x"),
    Colour.RED,
    Colour.CRIMSON,
    Colour.BLUE,
    Level.HIGH,
    Word.YES,
    Permission.READ | Permission.WRITE,
    Permission(0),
    Mode.A | Mode.B,
    Point(1, 2.5),
    Price(Decimal("9.99"), {"a", "b"}, Point(1)),
    Tagged(3, tags=("x", "y")),
    SlottedChild(1, 6, b"z"),
    Box(content=Box(content={Key("a")})),
    Pair(1, {2}),
    OldPair("a", Pair(3)),
    Position(1, {2, 3}),
    Frozen(name="f", at=LOCAL),
    Frozen(name="g"),
    Hooked(1),
    User(id=1, friends=[User(id=2, seen=LOCAL)], price=Price(Decimal(1), set())),
    User.model_construct(id="not an int"),  # type: ignore[arg-type]  # an unvalidated state must survive too
    Loose(id=1, other={"x": (1, 2)}),  # type: ignore[call-arg]  # extra attributes are allowed by its configuration
    Many([1, 2]),
    pydantic.HttpUrl("https://example.com/a?b=ñ#c"),
    pydantic.PostgresDsn("postgresql://u:p@h:5432/d"),
    Checked(1, date(2026, 1, 1)),
    OrderedDict([("b", 1), ("a", (2,))]),
    Counter({"a": 3, (1, 2): -1}),
    deque([1, (2,)], maxlen=5),
    deque(),
    msgspec.UNSET,
    np.float32(1.5),
    np.float64(0.1),
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.bool_(1),
    np.complex128(1 + 2j),
    np.longlong(5),
    np.datetime64("2026-11-21T10:00:00.123456789"),
    np.timedelta64(5, "D"),
    np.str_("tail\x00"),
    np.bytes_(b"tail\x00"),
]


@pytest.mark.parametrize("value", EXACT, ids=lambda value: type(value).__name__)
def test_every_type_comes_back(value: object) -> None:
    """A value comes back equal and of the same type, alone and inside other values."""
    found = through(value)
    assert type(found) is type(value)
    assert found == value
    assert repr(found) == repr(value) or isinstance(value, set | frozenset | dict | Price | Position | Pair | Box)
    nested = through({"a": [value, (value,)], "b": {(1,): value}})
    assert type(nested["a"]) is list
    assert type(nested["a"][1]) is tuple
    assert type(nested["a"][0]) is type(nested["a"][1][0]) is type(nested["b"][1,]) is type(value)
    assert nested == {"a": [value, (value,)], "b": {(1,): value}}


def test_parts_keep_their_types() -> None:
    """Inside a container, too, an int stays an int, a bool a bool, a tuple a tuple, a key its type."""
    value = {1: True, "1": 1, 2: 1.0, 3: (1, [2]), 4: {True}, None: b"x"}
    found = through(value)
    assert [type(key) for key in found] == [type(key) for key in value]
    assert [type(item) for item in found.values()] == [type(item) for item in value.values()]
    assert type(found[3][1]) is list
    assert [type(item) for item in found[4]] == [bool]


def test_not_a_number_comes_back() -> None:
    """NaN is a value like any other, in floats, lists and arrays."""
    assert math.isnan(through(math.nan))
    assert math.isnan(through([math.nan, (math.nan,)])[1][0])
    assert through(Decimal("NaN")).is_nan()
    assert np.isnan(through(np.array([math.nan]))[0])
    assert math.copysign(1, through({"x": -0.0})["x"]) == -1


def test_dict_order_is_kept() -> None:
    """Keys come back in the order in which they were put in, however they are stored."""
    assert list(through({"b": 1, "a": 2, "c": (3,)})) == ["b", "a", "c"]
    assert list(through({(2,): 1, 1.5: 2, "c": 3})) == [(2,), 1.5, "c"]


@pytest.mark.parametrize("zone", [LOCAL.tzinfo, UTC, timezone(timedelta(hours=1), "CET"), timezone(timedelta(0), "Z")])
def test_time_zones_keep_name_and_fold(zone: tzinfo) -> None:
    """A zone's name, its rules and which of two repeated hours was meant survive."""
    found = through(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zone))
    assert type(found.tzinfo) is type(zone)
    assert found.tzname() == datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zone).tzname()
    assert found.fold == 1
    assert getattr(found.tzinfo, "key", None) == getattr(zone, "key", None)


def test_uuid_keeps_its_safety() -> None:
    """What a UUID says about its making survives."""
    assert through(uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe)).is_safe is uuid.SafeUUID.safe
    assert through(uuid.UUID(int=1)).is_safe is uuid.SafeUUID.unknown


def test_dataclass_state_is_restored_without_its_constructor() -> None:
    """Fields without init, attributes beside the fields and fields never set come back; no constructor runs again."""
    value = Tagged(3)
    value.computed = "changed"
    value.extra_attribute.append(4)
    found = through(value)
    assert (found.computed, found.extra_attribute) == ("changed", [3, 4])
    assert not hasattr(through(Slotted(1)), "later")


@dataclass
class Lazy:
    number: int

    @cached_property
    def lock(self) -> object:
        return object()


class LazyModel(pydantic.BaseModel):
    number: int

    @cached_property
    def lock(self) -> object:
        return object()


def test_cached_properties_are_made_anew() -> None:
    """A cached property does not travel: it could hold anything and is made again when asked for."""
    for value in (Lazy(1), LazyModel(number=1)):
        assert value.lock is value.lock
        assert through(value).number == 1
        assert "lock" not in vars(through(value))


def test_struct_is_not_changed_by_its_hook() -> None:
    """A struct whose `__post_init__` changes it comes back as it was stored, not changed once more."""
    assert Hooked(1).number == 2
    assert through(Hooked(1)).number == 2


def test_model_keeps_its_exact_state() -> None:
    """Which fields were set, extra and private attributes of a pydantic model survive; a frozen one stays frozen."""
    value = Loose(id=1, other=(1, 2))  # type: ignore[call-arg]  # extra attributes are allowed by its configuration
    value._note = "kept"
    found = through(value)
    assert (found, found._note, found.__pydantic_extra__) == (value, "kept", {"other": (1, 2)})
    assert through(User(id=1)).model_fields_set == {"id"}
    swapped = Loose.model_construct({"other"}, id=1, other=2)
    assert through(swapped).model_fields_set == {"other"}
    with pytest.raises(pydantic.ValidationError):
        found.id = 2
    assert through(User(id=1)).model_copy(update={"name": "B"}).name == "B"


ARRAYS = [
    np.arange(1536, dtype="float32"),
    np.arange(12, dtype=">i4").reshape(3, 4),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
    np.zeros((0, 3), dtype="int16"),
    np.array(3.5),
    np.array([True, False]),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array(["2026-01-01", "NaT"], dtype="datetime64[ms]"),
    np.array([1, 2], dtype="timedelta64[h]"),
    np.array([1, 2], dtype=np.longlong),
    np.array([1 + 2j], dtype="complex64"),
    np.arange(3, dtype="float16"),
]


@pytest.mark.parametrize("value", ARRAYS, ids=lambda value: f"{value.dtype.str}-{value.shape}")
@pytest.mark.parametrize("place", ["alone", "nested"])
def test_arrays_come_back(value: Any, place: str) -> None:
    """An array keeps dtype, byte order, shape, order and items, and is writable memory of its own."""
    found = through(value) if place == "alone" else through({"x": [value]})["x"][0]
    assert type(found) is np.ndarray
    assert (found.dtype, found.dtype.type, found.dtype.byteorder) == (
        value.dtype,
        value.dtype.type,
        value.dtype.byteorder,
    )
    assert found.shape == value.shape
    assert found.flags.writeable
    assert found.flags.owndata
    assert found.flags.f_contiguous or not (value.flags.f_contiguous and not value.flags.c_contiguous)
    np.testing.assert_array_equal(found, value)


class Sub(dict[str, int]):
    pass


class SubList(list[int]):
    pass


class SubTuple(tuple[int, ...]):
    __slots__ = ()


class SubStr(str):
    __slots__ = ()


class SubInt(int):
    pass


class SubDate(date):
    pass


class Other:
    pass


@dataclass
class Failing(Exception):
    code: int


class OwnZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)


REFUSED = [
    lambda: None,
    (number for number in ()),
    object(),
    Other(),
    Other,
    ValueError("x"),
    Failing(1),
    sys,
    range(3),
    re.compile("a"),
    pydantic.SecretStr("x"),
    memoryview(b"x"),
    types.SimpleNamespace(a=1),
    types.MappingProxyType({}),
    Sub(a=1),
    SubList([1]),
    SubTuple((1,)),
    SubStr("a"),
    SubInt(1),
    SubDate(2026, 1, 1),
    defaultdict(list),
    datetime(2026, 1, 1, tzinfo=OwnZone()),
    {math.nan: 1},
    {math.nan},
    {(1, (math.nan,)): 1},
    {Decimal("NaN"): 1},
    "\ud800",
    {"\udfff": 1},
    np.array([object()]),
    np.array([1, "x"], dtype=object),
    np.zeros(2, dtype=[("a", "i4"), ("b", "f4")]),
    np.ma.masked_array([1, 2], mask=[True, False]),
    np.float64,
    Loose.model_construct(id=object()),
    Position(1, {2}).__class__,
    msgspec.msgpack.Ext(1, b"x"),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_cannot_come_back_is_refused(value: object) -> None:
    """A value that would come back as something else is refused, alone and inside others, also of a subclass."""
    with pytest.raises(SerializationError, match="cannot be stored"):
        codec().encode(record(value))
    with pytest.raises(SerializationError, match=r"value\['a'\]\[1\]\[0\]"):
        codec().encode(record({"a": [0, (value,)]}))


def test_the_message_names_the_path_the_type_and_the_way_out() -> None:
    """Whoever meets a refused value learns where in it the trouble is, what it is, and what to do."""
    with pytest.raises(SerializationError) as caught:
        codec().encode(record({"user": [1, 2, Price(Decimal(1), set(), Point(x=Other()))]}))  # type: ignore[arg-type]  # wrong on purpose
    text = str(caught.value)
    assert text.startswith("value['user'][2].where.x cannot be stored: ")
    assert f"{__name__}:Other" in text
    assert "convert" in text
    with pytest.raises(SerializationError, match=r"a subclass of dict .* convert it to dict"):
        codec().encode(record([Sub()]))
    with pytest.raises(SerializationError, match=r"value\['a'\]\['k'\]"):
        codec().encode(record({"a": {(1,): 2, "k": Other()}}))
    with pytest.raises(SerializationError, match=r"value\[3\].*surrogate"):
        codec().encode(record([1, 2, 3, "\ud800"]))


class Locked(pydantic.BaseModel):
    _lock: object = pydantic.PrivateAttr(default_factory=object)


def test_the_message_names_a_private_attribute() -> None:
    """A private attribute of a model that cannot be stored is named."""
    with pytest.raises(SerializationError, match=r"value\.__pydantic_private__\['_lock'\]"):
        codec().encode(record(Locked()))


def cyclic_list() -> object:
    """A list that contains itself."""
    found: list[object] = []
    found.append({"self": found})
    return found


def cyclic_tuple() -> object:
    """A tuple in a list that contains it."""
    found: list[object] = []
    found.append((1, found))
    return found


def cyclic_dataclass() -> object:
    """An instance that is its own field."""
    found = Point(1)
    found.x = found  # type: ignore[assignment]  # a cycle through a field
    return found


def cyclic_wide() -> object:
    """A list that contains itself three times."""
    found: list[object] = []
    found += [found, found, found]
    return found


@pytest.mark.parametrize("make", [cyclic_list, cyclic_tuple, cyclic_dataclass, cyclic_wide])
def test_cycles_are_refused(make: Any) -> None:
    """A value that contains itself is refused with that reason, and soon."""
    with pytest.raises(SerializationError, match="contains itself"):
        codec().encode(record(make()))


def nest(depth: int, kind: Any) -> object:
    """A value so many levels deep."""
    value: object = 1
    for _ in range(depth):
        value = kind(value)
    return value


KINDS = {
    "list": lambda item: [item],
    "tuple": lambda item: (item,),
    "dict": lambda item: {"k": item},
    "keys": lambda item: {1.5: item},
    "dataclass": Point,
    "model": lambda item: Many.model_construct(root=item),
    "struct": lambda item: Position(item, 0),
    "frozenset": lambda item: frozenset({item}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_depth_has_a_limit(kind: str) -> None:
    """Up to the limit a nested value comes back; beyond it is refused, however deep and of whatever kind."""
    using = codec()
    limit = MAX_DEPTH if kind in {"list", "dict"} else MAX_DEPTH // 2
    envelope = using.encode(record(nest(limit, KINDS[kind])))
    assert using.decode(envelope, ADDRESS) is not None
    for depth in (limit + 1, 5_000):
        with pytest.raises(SerializationError, match="nested"):
            using.encode(record(nest(depth, KINDS[kind])))


def test_shared_parts_come_back_and_cannot_explode() -> None:
    """A part that stands in several places comes back in each; one that doubles at every level is refused in time."""
    part = {"a": (1, 2)}
    assert through([part, part, [part]]) == [part, part, [part]]
    for kind in (list, tuple):
        value: object = kind([1])
        for _ in range(MAX_DEPTH // 2 - 1):
            value = kind([value, value])
        with pytest.raises(SerializationError, match=r"more parts|more than"):
            codec(max_bytes=1_000_000).encode(record(value))


def test_too_large_a_value_is_refused() -> None:
    """A value above the limit in bytes is refused; one at the limit is stored."""
    using = codec(max_bytes=1000, compression="off")
    assert through(b"x" * 1000, using) == b"x" * 1000
    for value in (b"x" * 1001, ["x" * 1001], (b"x" * 1001,), np.zeros(126)):
        with pytest.raises(SerializationError, match="store less"):
            using.encode(record(value))


@pytest.mark.parametrize("row", [lambda number: {"id": number}, lambda number: (number, "x")], ids=["dicts", "tuples"])
def test_many_rows_come_back(row: Any) -> None:
    """A quarter of a million small rows, more than the quick look allows, are stored like any other value."""
    rows = [row(number) for number in range(250_000)]
    assert through(rows) == rows


def fresh(*classes: type) -> Codec:
    """A codec that knows nothing but these."""
    using = codec()
    using.register(*classes)
    return using


BoundToUser = TypeVar("BoundToUser", bound=list[User])
VALUE = [User(id=1, price=Price(Decimal(1), {"a"}, Point(1)))]


def test_a_class_is_rebuilt_only_where_it_is_known() -> None:
    """Without registration, annotation or having stored it a class is a miss; with one of them it comes back."""
    envelope = codec().encode(record(VALUE))
    assert fresh().decode(envelope, ADDRESS) is None
    assert fresh(Point, Price).decode(envelope, ADDRESS) is None
    registered = fresh(User).decode(envelope, ADDRESS)
    assert registered is not None
    assert registered.value == VALUE
    stored_before = codec()
    stored_before.encode(record(VALUE))
    found = stored_before.decode(envelope, ADDRESS)
    assert found is not None
    assert found.value == VALUE


@pytest.mark.parametrize(
    "annotation",
    [
        list[User],
        dict[str, list[User]],
        User | None,
        list[User] | int,
        Annotated[list[User], "note"],
        tuple[User, ...],
        Box[User],
        Callable[[User], int],
        BoundToUser,
    ],
    ids=str,
)
def test_an_annotation_makes_its_classes_known(annotation: object) -> None:
    """Any class that a return annotation names, at any depth and through the fields of others, can be rebuilt."""
    envelope = codec().encode(record(VALUE))
    found = fresh().decode(envelope, ADDRESS, annotation=annotation)
    assert found is not None
    assert found.value == VALUE


@pytest.mark.parametrize("annotation", [None, "User", int, list[int], Any, Other, Point, dict[str, "Unknown"]], ids=str)  # type: ignore[name-defined]  # a name that is nowhere  # noqa: F821
def test_other_annotations_make_nothing_known(annotation: object) -> None:
    """An annotation without the class, or one that cannot be resolved, harms nothing and allows nothing."""
    envelope = codec().encode(record(VALUE))
    assert fresh().decode(envelope, ADDRESS, annotation=annotation) is None


def test_annotation_at_encode_counts_too() -> None:
    """What a function that stores is annotated with is known afterwards, whatever its value was."""
    using = codec()
    using.encode(record([]), annotation=list[User])
    found = using.decode(codec().encode(record(VALUE)), ADDRESS)
    assert found is not None
    assert found.value == VALUE


def test_only_classes_that_can_be_stored_can_be_registered() -> None:
    """Registering what cannot be stored says so at once."""
    for wrong in (Other, dict, Failing, "User", User(id=1)):
        with pytest.raises(SerializationError, match="cannot be registered"):
            codec().register(wrong)  # type: ignore[arg-type]  # wrong on purpose


def variants(kind: str) -> list[type]:
    """Classes of one module and one qualified name with different fields."""
    found = []
    for fields in ({"a": int}, {"a": str}, {"a": int, "b": int}, {"b": int}, {}):
        namespace = {"__annotations__": fields, "__module__": __name__, "__qualname__": "Changing"}
        if kind == "dataclass":
            found.append(dataclass(type("Changing", (), namespace)))
        elif kind == "struct":
            found.append(type(msgspec.Struct)("Changing", (msgspec.Struct,), namespace))
        else:
            found.append(type(pydantic.BaseModel)("Changing", (pydantic.BaseModel,), namespace))
    return found


@pytest.mark.parametrize("kind", ["dataclass", "struct", "pydantic"])
def test_a_changed_class_is_a_miss(kind: str) -> None:
    """A field added, removed, renamed or of another type makes what was stored before a miss, never a wrong value."""
    classes = variants(kind)
    for cls in classes:
        values = dict.fromkeys(cls.__annotations__, 1)
        value = cls.model_construct(**values) if kind == "pydantic" else cls(**values)  # type: ignore[attr-defined]  # by kind
        envelope = codec().encode(record(value))
        for other in classes:
            found = fresh(other).decode(envelope, ADDRESS)
            assert (found is not None) == (other is cls)


def test_a_changed_enum_is_a_miss() -> None:
    """A member that means something else now is not handed out."""
    old = enum.Enum("Size", {"S": 1, "L": 2}, module=__name__)
    new = enum.Enum("Size", {"S": 2, "L": 1}, module=__name__)
    assert fresh(new).decode(codec().encode(record(old["S"])), ADDRESS) is None


def local_class(*, with_b: bool) -> type:
    """A class made in a function, so that each call makes another of the same name."""
    if with_b:

        @dataclass
        class Local:
            a: int
            b: int = 0

    else:

        @dataclass
        class Local:  # type: ignore[no-redef]  # two classes of one name are what is tested
            a: int

    return Local


def test_of_two_classes_with_one_name_the_newest_counts() -> None:
    """What a redefined class stored before is a miss if its fields changed, and the new class if they did not."""
    using = codec()
    first, same, other = local_class(with_b=False), local_class(with_b=False), local_class(with_b=True)
    envelope = using.encode(record(first(1)))
    using.register(same)
    found = using.decode(envelope, ADDRESS)
    assert found is not None
    assert type(found.value) is same
    using.register(other)
    assert using.decode(envelope, ADDRESS) is None


def test_classes_made_without_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that keeps making and storing new classes does not grow for ever; what it stored last comes back."""
    monkeypatch.setattr("genesis_cache.codecs.registry._MAX_CLASSES", 10)
    using = codec()
    made = [msgspec.defstruct(f"Made{number}", [("a", int)]) for number in range(15)]
    stored = [using.encode(record(cls(1))) for cls in made]
    found = [using.decode(envelope, ADDRESS) for envelope in stored]
    assert found[:5] == [None] * 5
    assert [type(one.value) for one in found[5:] if one is not None] == made[5:]


def test_threads_share_a_codec() -> None:
    """One codec serves many threads at once, compression included, without mixing anything up."""
    using = codec()
    values = [{"who": (number,), "text": f"{number} " * 3000} for number in range(8)]

    def work(value: dict[str, Any]) -> bool:
        return all(through(value, using) == value for _ in range(100))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, values))


FRESH_PROCESS = """
import sys
from genesis_cache.codecs.codec import Codec
from genesis_cache.model.keys import address_of, scope_of
address = address_of(scope_of("default", "products", "user:7"), "item:1")
print(Codec().decode(sys.stdin.buffer.read(), address))
names = {name.split(".")[0] for name in sys.modules}
print(sorted(names & {"pydantic", "numpy", "pickle", "test_serialize", "tests"}))
"""


@pytest.mark.parametrize("value", [Point(1), User(id=1), Position(1, set()), Colour.RED, Pair(1)], ids=repr)
def test_a_fresh_process_neither_rebuilds_nor_imports(value: object) -> None:
    """Another process that never heard of the class sees a miss and imports nothing on the say of stored bytes."""
    envelope = codec().encode(record(value))
    source = str(Path(__file__).parents[2] / "src")
    ran = subprocess.run(  # noqa: S603  # our own interpreter and code
        [sys.executable, "-c", FRESH_PROCESS],
        input=envelope,
        capture_output=True,
        check=True,
        env={"PYTHONPATH": source},
    )
    assert ran.stdout.decode().splitlines() == ["None", "[]"]


def test_no_pickle_hook_is_ever_called() -> None:
    """A class that would run code when pickled or unpickled is refused, and its hook does not run."""
    ran = []

    class Canary:
        def __reduce__(self) -> tuple[Any, ...]:
            ran.append(1)
            return (ran.append, (1,))

    with pytest.raises(SerializationError):
        codec().encode(record([Canary()]))
    assert ran == []

"""Argument keys: the key of a call, from a template or from its arguments."""

import datetime as dt
import subprocess
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from inspect import signature
from pathlib import Path, PurePosixPath
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from genesis_cache.model.argkeys import argument_key, template_key, template_tag, text_of
from genesis_cache.model.typed import typed


class Color(Enum):
    RED = 1
    BLUE = 2


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    A = "a"


@dataclass(frozen=True)
class Point:
    x: int
    y: int


class Shape(msgspec.Struct):
    x: int


class Model(BaseModel):
    x: int


Pair = namedtuple("Pair", "x y")  # noqa: PYI024  # an untyped one is under test
OtherPair = namedtuple("OtherPair", "x y")  # noqa: PYI024  # as above


class Name(str):
    __slots__ = ()


def product(shop: object, item: object, *, locale: object = "en") -> None:
    """A function whose calls get keys."""


PARAMETERS = signature(product)


def test_a_template_is_filled() -> None:
    """Places take the values of parameters, and attributes of them."""
    template = template_key("p:{shop}:{item.x}:{{}}", PARAMETERS)
    assert template.write({"shop": "a", "item": Point(4, 5), "locale": "en"}) == "p:a:4:{}"
    assert [slot.name for slot in template.slots] == ["shop", "item"]


def test_a_template_without_a_place_is_constant() -> None:
    """A constant key is the same for every call."""
    template = template_key("config", PARAMETERS)
    assert template.slots == ()
    assert template.write({}) == "config"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("p:{shopp}", "shopp.*shop, item, locale"),
        ("p:{}", "name"),
        ("p:{0}", "name"),
        ("p:{shop!r}", "name"),
        ("p:{shop:>5}", "name"),
        ("p:{shop[0]}", "name"),
        ("p:{shop", "cannot be read"),
        ("{shop}{item}", "run into each other"),
        ("{shop}12{item}", "run into each other"),
    ],
)
def test_a_wrong_template_fails_at_once(text: str, complaint: str) -> None:
    """A template that cannot be filled fails when it is written, not when it is used."""
    with pytest.raises(ValueError, match=complaint):
        template_key(text, PARAMETERS)


@pytest.mark.parametrize("text", ["p:{shop}:{item}", "{shop}-{item}", "{shop}/x/{item}:{locale}", "{shop}::{item}"])
@given(data=st.data())
def test_values_in_a_key_cannot_run_into_each_other(text: str, data: st.DataObject) -> None:
    """Two calls with different values never share a key, whatever the values hold."""
    values = st.fixed_dictionaries(dict.fromkeys(("shop", "item", "locale"), st.text("a:%-/x23AD", max_size=6)))
    template = template_key(text, PARAMETERS)
    one, other = data.draw(values), data.draw(values)
    used = {slot.name for slot in template.slots}
    same = all(one[name] == other[name] for name in used)
    assert (template.write(one) == template.write(other)) is same


def test_colons_are_escaped_in_keys_and_not_in_tags() -> None:
    """A key keeps values apart; a tag is what an f-string says."""
    arguments = {"shop": "a:b%", "item": 7}
    assert template_key("p:{shop}:{item}", PARAMETERS).write(arguments) == "p:a%3Ab%25:7"
    assert template_tag("p:{shop}:{item}", PARAMETERS).write(arguments) == "p:a:b%:7"
    assert template_tag("{shop}{item}", PARAMETERS).write(arguments) == "a:b%7"


@pytest.mark.parametrize(
    "value", [1, True, None, 2.5, "x", Color.RED, Level.LOW, Word.A, UUID(int=5), Decimal("1.50"), dt.date(2026, 1, 2)]
)
def test_a_value_is_written_as_an_f_string_writes_it(value: object) -> None:
    """``delete_by_tag(f"user:{x}")`` finds what the template ``user:{x}`` made."""
    assert text_of(value) == f"{value}"


@pytest.mark.parametrize("value", [object(), product, [object()], (n for n in ())])
def test_a_value_known_by_its_place_in_memory_is_refused(value: object) -> None:
    """An object's address never becomes part of a key: another object may have it later."""
    with pytest.raises(TypeError, match="place in memory"):
        template_key("p:{shop}", PARAMETERS).write({"shop": value})
    with pytest.raises(TypeError, match="use a template"):
        argument_key(None, "shop.product", {"shop": value})


class Measured(int):
    """A number with something else about it, which its text would not tell."""

    def __init__(self, _: int) -> None:
        self.unit = "m"


class Open(BaseModel, extra="allow"):
    """A model that takes what it does not know."""


def test_what_a_value_holds_besides_is_not_overlooked() -> None:
    """Two values that differ only in what their class adds never share a key."""
    assert typed(Open(a=1)) != typed(Open(a=2))  # type: ignore[call-arg]  # that is what extra="allow" is for
    with pytest.raises(TypeError, match="does not say"):
        typed(Measured(5))


class Plain:
    """A class of somebody's own that does not say what it consists of."""


def test_self_is_refused() -> None:
    """A method without a template says what to do."""
    with pytest.raises(TypeError, match=r"'self'.*template or key=callable"):
        argument_key("p", "Plain.method", {"self": Plain()})


DIFFERENT = [
    None,
    True,
    False,
    0,
    1,
    -1,
    1 << 70,
    1.0,
    0.0,
    -0.0,
    float("inf"),
    1 + 0j,
    "1",
    "",
    "None",
    b"1",
    bytearray(b"1"),
    (1,),
    [1],
    {1},
    frozenset({1}),
    {1: 1},
    {"1": 1},
    (),
    [],
    {},
    ((), ()),
    ((()),),
    [[1], [2]],
    [[1, 2]],
    ["ab", "c"],
    ["a", "bc"],
    Color.RED,
    Color.BLUE,
    Level.LOW,
    Word.A,
    "a",
    Name("a"),
    Point(1, 2),
    Pair(1, 2),
    OtherPair(1, 2),
    (1, 2),
    Shape(1),
    Model(x=1),
    {"x": 1},
    OrderedDict(x=1),
    UUID(int=1),
    Decimal(1),
    Decimal("1.0"),
    dt.date(2026, 1, 1),
    dt.datetime(2026, 1, 1),  # noqa: DTZ001  # a naive time is under test
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2026, 1, 1, fold=1),  # noqa: DTZ001  # as above
    dt.time(1),
    dt.timedelta(1),
    range(3),
    PurePosixPath("a"),
    int,
    bool,
    ...,
    np.float64(1),
    np.float32(1),
    np.int64(1),
    np.zeros(2),
    np.zeros((2, 1)),
    np.zeros(2, dtype="f4"),
]


def test_different_arguments_have_different_keys() -> None:
    """1, 1.0, True and "1" are four calls, and so are all other values that only look alike."""
    keys = [argument_key("p", "f", {"a": value}) for value in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.uuids(), st.dates()
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(0, 3)), inner, max_size=4),
        st.frozensets(st.one_of(st.integers(0, 3), st.text(max_size=2)), max_size=4),
    ),
    max_leaves=8,
)


def same(one: object, other: object) -> bool:
    """Equal, with equal types all the way down."""
    if type(one) is not type(other):
        return False
    match one:
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]  # of one type
        case dict():

            def spelled(mapping: object) -> set[tuple[type, object]]:
                return {(type(key), key) for key in mapping}  # type: ignore[attr-defined]  # a dict

            return spelled(one) == spelled(other) and all(same(one[key], other[key]) for key in one)  # type: ignore[index]  # as above
        case frozenset():
            return {(type(item), item) for item in one} == {(type(item), item) for item in other}  # type: ignore[attr-defined]  # as above
        case float():
            return repr(one) == repr(other)
        case _:
            return one == other


@given(VALUES, VALUES)
def test_keys_are_equal_exactly_for_equal_arguments(one: object, other: object) -> None:
    """Two calls share a key if and only if their arguments are equal and of equal types."""
    assert (typed(one) == typed(other)) is same(one, other)


@given(st.lists(st.text("a1:s(,=)", max_size=5), max_size=3), st.lists(st.text("a1:s(,=)", max_size=5), max_size=3))
def test_text_cannot_imitate_structure(one: list[str], other: list[str]) -> None:
    """Strings that hold the encoding's own signs are not mistaken for it."""
    assert (typed(one) == typed(other)) is (one == other)
    assert (typed(tuple(one)) == typed(tuple(other))) is (one == other)


def test_order_matters_where_it_means_something() -> None:
    """Dicts and sets do not mind their order, lists do."""
    assert typed({"a": 1, "b": 2}) == typed({"b": 2, "a": 1})
    assert typed({3, 1, 2}) == typed({2, 3, 1})
    assert typed([1, 2]) != typed([2, 1])


def test_a_key_is_short_and_readable_or_hashed() -> None:
    """Plain arguments can be read in the key; long ones, and text that cannot be shown, are hashed."""
    assert argument_key("agent", "shop.product", {"shop": 1, "item": "x"}) == "agent:shop.product(shop=i1;,item=s1:x)"
    for long in ("y" * 5000, "\n", "\ud800"):
        key = argument_key(None, "shop.product", {"shop": long})
        assert key.startswith("shop.product#")
        assert len(key.encode()) <= 1024


def test_a_key_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Two processes give one call one key, whatever their hash seeds."""
    program = tmp_path / "key.py"
    program.write_text(
        "from genesis_cache.model.argkeys import argument_key\n"
        "print(argument_key('p', 'f', {'a': {'x', 'y', 'z'}, 'b': {'k': (1, 2.5)}, 'c': 'l' * 900}))\n"
    )
    keys = set()
    for seed in ("1", "2"):
        environ = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        ran = subprocess.run([sys.executable, str(program)], env=environ, capture_output=True, check=True, text=True)  # noqa: S603  # our own program
        keys.add(ran.stdout)
    assert len(keys) == 1


def test_a_value_that_holds_itself_is_refused() -> None:
    """An endless value is an error, not an endless loop."""
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="nested"):
        argument_key(None, "f", {"a": endless})

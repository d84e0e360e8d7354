"""The size estimate of values is within a quarter, and bounded in work."""

import datetime
import decimal
import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from sys import getsizeof
from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import BaseModel

from genesis_cache.model.weigh import ENTRY_BYTES, WEIGHT_BYTES, weigh, weight_of

chance = random.Random(5)


def text(length: int) -> str:
    return "".join(chance.choices("abcdefgh", k=length))


class Struct(msgspec.Struct):
    number: int
    name: str
    words: list[str]


@dataclass
class Plain:
    number: int
    name: str
    words: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    number: int
    name: str
    words: list[str] = field(default_factory=list)


class Model(BaseModel):
    number: int
    name: str
    words: list[str]


class Colour(Enum):
    RED = "a long text that belongs to the class and not to the value"


def words() -> list[str]:
    return [text(10) for _ in range(6)]


def deep(value: object, seen: set[int]) -> int:
    """Every object once, however many there are: what the estimate is held against."""
    if id(value) in seen or value is None or isinstance(value, bool) or (isinstance(value, int) and -6 < value < 257):
        return 0
    seen.add(id(value))
    size = getsizeof(value)
    if isinstance(value, dict):
        return size + sum(deep(key, seen) + deep(item, seen) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return size + sum(deep(item, seen) for item in value)
    if isinstance(value, Struct | Plain | Slotted | Model):
        return size + sum(deep(getattr(value, name), seen) for name in ("number", "name", "words"))
    return size


VALUES: dict[str, Callable[[], object]] = {
    "integer": lambda: 10**30,
    "text": lambda: text(4000),
    "wide text": lambda: "ñ日" * 500,
    "bytes": lambda: bytes(3000),
    "profile": lambda: {
        "id": 10**6,
        "name": text(12),
        "tags": words(),
        "place": {"street": text(20), "at": [1.5, 2.5]},
    },
    "records": lambda: json.loads(
        json.dumps([{"id": at + 1000, "name": text(12), "score": at / 7} for at in range(500)])
    ),
    "embedding": lambda: [chance.random() for _ in range(1536)],
    "matrix": lambda: [[chance.random() for _ in range(50)] for _ in range(50)],
    "long dict": lambda: {text(10): chance.random() for _ in range(3000)},
    "set": lambda: {text(10) for _ in range(500)},
    "texts": lambda: [text(chance.randrange(5, 200)) for _ in range(300)],
    "nested": lambda: {"a": {"b": {"c": [{"d": text(30)} for _ in range(20)]}}},
    "tuple": lambda: (text(5), 1.5, 10**6),
    "struct": lambda: Struct(10**6, text(30), words()),
    "dataclass": lambda: Plain(10**6, text(30), words()),
    "slotted dataclass": lambda: Slotted(10**6, text(30), words()),
    "datetime": lambda: datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    "decimal": lambda: decimal.Decimal("1.25"),
}


@pytest.mark.parametrize("name", VALUES)
def test_the_estimate_is_within_a_quarter(name: str) -> None:
    """What the value takes, counted object by object, is within 25% of the estimate beyond the overhead."""
    value = VALUES[name]()
    true = deep(value, set())
    assert weigh("k", value) - weigh("k", None) == pytest.approx(true, rel=0.25)


def test_arrays_models_and_identifiers_are_known() -> None:
    """A numpy array counts its data, a pydantic model its fields, a UUID its number."""
    assert weigh("k", np.zeros(1536, dtype=np.float32)) - weigh("k", None) == pytest.approx(6144, rel=0.05)
    model = Model(number=10**6, name=text(30), words=words())
    assert weigh("k", model) - weigh("k", None) > deep(model, set())
    assert weigh("k", uuid.uuid4()) - weigh("k", None) == pytest.approx(100, rel=0.3)


def test_what_all_share_is_not_counted() -> None:
    """Enum members, classes and functions cost a value nothing, a repeated object costs once."""
    assert weigh("k", [Colour.RED, Colour, len, deep]) < weigh("k", None) + 150
    long = text(10_000)
    assert weigh("k", [long] * 50) < weigh("k", None) + 11_000


def test_a_value_that_holds_itself_has_a_size() -> None:
    """A cycle is walked once."""
    ring: list[object] = [1000]
    ring.append(ring)
    assert weigh("k", ring) < weigh("k", None) + 500


def test_the_overhead_and_the_key_count() -> None:
    """The least entry weighs its overhead and key; a longer key and an owner weigh more."""
    assert weigh("k", None) >= ENTRY_BYTES + getsizeof("k")
    assert weigh("k" * 101, None) == weigh("k", None) + 100
    assert weigh(("owner", "k"), None) > weigh("k", None) + getsizeof("owner")


def test_a_weight_is_in_units_of_sixteen_bytes() -> None:
    """Rounded up, so that no entry weighs nothing."""
    assert weight_of("k", bytes(1600)) == -(-weigh("k", bytes(1600)) // WEIGHT_BYTES)


class Counted(list[Any]):
    """A list that counts how often it is looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        Counted.looks += 1
        return super().__getitem__(at)


def test_the_work_is_bounded() -> None:
    """Of a list of five thousand lists no more than about a hundred parts are looked at."""
    value = Counted([Counted(range(1000, 1200)) for _ in range(5000)])
    Counted.looks = 0
    weigh("k", value)
    assert 0 < Counted.looks < 150

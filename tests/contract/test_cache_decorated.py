"""Decorated functions: called as before, cached by their arguments, with four things more."""

import asyncio
import inspect
from typing import Any, get_type_hints

import pytest

from genesis_cache import Cache, InvalidKey


async def test_first_contact(cache: Cache) -> None:
    """The example everybody starts from: loads once, and a tag forgets it."""
    calls: list[int] = []

    @cache.cached("user:{user_id}", ttl="5m", tags=["user:{user_id}"])
    async def user(user_id: int) -> dict[str, int]:
        calls.append(user_id)
        return {"id": user_id}

    assert await asyncio.gather(*(user(7) for _ in range(5))) == [{"id": 7}] * 5
    assert calls == [7]
    await cache.delete_by_tag("user:7")
    assert await user(7) == {"id": 7}
    assert calls == [7, 7]
    assert await cache.get("user:7") == {"id": 7}


async def test_key_invalidate_refresh_cache(cache: Cache) -> None:
    """.key names the entry, .invalidate forgets it, .refresh loads it now, .cache is the view."""
    calls: list[int] = []

    @cache.namespace("n").cached("f:{a}:{b}")
    async def f(a: int, b: str = "x") -> int:
        calls.append(a)
        return len(calls)

    assert f.key(1) == f.key(a=1, b="x") == "f:1:x"
    assert await f(1) == await f(a=1) == await f(1, "x") == 1
    assert await f.cache.get("f:1:x") == 1
    assert await cache.get("f:1:x") is None
    assert await f.refresh(1) == 2
    assert await f(1) == 2
    assert await f.invalidate(1)
    assert await f(1) == 3
    with pytest.raises(TypeError):
        await f()
    with pytest.raises(TypeError):
        f.key(1, 2, 3)


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_signature_and_hints_are_kept(cache: Cache) -> None:
    """inspect, type hints, names and docstrings are those of the function."""

    @cache.cached("f:{a}")
    async def f(a: int, /, b: str = "x", *args: int, c: float, **rest: str) -> dict[str, int]:
        """What it says."""
        return {"a": a}

    @cache.cached("g:{a}")
    def g(a: int) -> int:
        return a

    assert str(inspect.signature(f)) == "(a: int, /, b: str = 'x', *args: int, c: float, **rest: str) -> dict[str, int]"
    assert get_type_hints(f)["return"] == dict[str, int]
    assert (f.__name__, f.__doc__) == ("f", "What it says.")
    assert inspect.iscoroutinefunction(f)
    assert not inspect.iscoroutinefunction(g)
    assert await f(1, "y", 2, 3, c=1.5, d="z") == {"a": 1}
    assert f.key(1, "y", 2, 3, c=1.5, d="z") == "f:1"


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_values_cannot_run_into_each_other(cache: Cache) -> None:
    """: and % inside a value are escaped in keys, and not in tags."""

    @cache.cached("f:{a}:{b}", tags=["t:{a}"])
    async def f(a: str, b: str) -> str:
        return f"{a} {b}"

    pairs = [("x", "y:z"), ("x:y", "z"), ("x%3Ay", "z"), ("x%", "3Ay:z"), ("", "x:y:z")]
    assert len({f.key(*pair) for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert await f(*pair) == " ".join(pair)
    await cache.delete_by_tag("t:x:y")
    assert await cache.get(f.key("x:y", "z")) is None
    assert await cache.get(f.key("x", "y:z")) == "x y:z"


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_typed_arguments_without_a_template(cache: Cache) -> None:
    """Without a template 1, 1.0, True, "1" and nothing are different calls, and the key names prefix and function."""
    calls: list[object] = []

    @cache.cached(key_prefix="agent", ttl=60)
    async def f(a: object, b: object = None) -> object:
        calls.append(a)
        return len(calls)

    arguments = [1, 1.0, True, "1", b"1", None, (1,), [1], {"a": 1}, {"a": "1"}, ("1",), (1, None)]
    assert [await f(argument) for argument in arguments] == list(range(1, len(arguments) + 1))
    assert [await f(argument) for argument in arguments] == list(range(1, len(arguments) + 1))
    assert f.key(1).startswith("agent:")
    assert "f" in f.key(1)
    assert f.key({"a": 1, "b": 2}) == f.key({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="template"):
        await f(object())


@pytest.mark.parametrize("tiers", [("memory",)])
def test_bad_decorations(cache: Cache) -> None:
    """What cannot work fails when it is decorated, with a sentence."""

    async def f(a: int) -> int:
        return a

    with pytest.raises(ValueError, match="nobody"):
        cache.cached("f:{nobody}")(f)
    with pytest.raises(ValueError, match="nobody"):
        cache.cached("f:{a}", tags=["t:{nobody}"])(f)
    with pytest.raises(TypeError):
        cache.cached(5)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError):
        cache.cached("f:{a}", unknown=1)(f)

    def stream(a: int) -> Any:
        yield a

    with pytest.raises(TypeError, match="generator"):
        cache.cached("f:{a}")(stream)


@pytest.mark.parametrize("tiers", [("memory",)])
async def test_methods_constants_and_key_functions(cache: Cache) -> None:
    """Methods, constant keys, attributes in templates and functions that make the key."""

    class Shop:
        def __init__(self, number: int) -> None:
            self.number = number

        @cache.cached("shop:{self.number}:{item}")
        async def price(self, item: str) -> str:
            return f"{self.number} {item}"

        @cache.cached("shop:{self.number}:owner")
        def owner(self) -> str:
            return f"owner of {self.number}"

    assert await Shop(1).price("tea") == "1 tea"
    assert await Shop(2).price("tea") == "2 tea"
    assert await cache.get("shop:1:tea") == "1 tea"
    assert await asyncio.to_thread(Shop(3).owner) == "owner of 3"
    calls = []

    @cache.cached("constant")
    async def constant(a: int = 0) -> int:
        calls.append(a)
        return a

    assert [await constant(1), await constant(2)] == [1, 1]

    @cache.cached(lambda a, b=2: f"made:{a}")
    async def made(a: int, b: int = 2) -> int:
        return a * b

    assert await made(3) == 6
    assert await cache.get("made:3") == 6

    @cache.cached(lambda a: "")
    async def bad(a: int) -> int:
        return a

    with pytest.raises(InvalidKey):
        await bad(1)
    await asyncio.get_running_loop().shutdown_default_executor()
    cache._engine.portal.stop()


async def test_none_and_errors(cache: Cache) -> None:
    """A None is cached; an error is not, and comes as it was raised."""
    calls: list[int] = []

    @cache.cached("f:{n}")
    async def f(n: int) -> None:
        calls.append(n)
        if n < 0:
            raise ValueError("negative")

    for _ in range(2):
        assert await f(1) is None
        with pytest.raises(ValueError, match="negative"):
            await f(-1)
    assert calls == [1, -1, -1]


async def test_options_of_get_or_set_work(cache: Cache, house: Any) -> None:
    """A decorated function takes the options of get_or_set: stale times, cache_if, isolate."""
    calls: list[int] = []

    @cache.cached("f:{n}", ttl=10, stale_if_error=60, isolate=True, cache_if=lambda value: value != [0])
    async def f(n: int) -> list[int]:
        calls.append(n)
        if len(calls) > 2:
            raise OSError("down")
        return [n]

    (await f(1)).append(2)
    assert await f(1) == [1]
    house.pass_time(11)
    await f(0)
    assert await f(1) == [1]
    assert calls == [1, 0, 1]
    assert await cache.get("f:0") is None


async def test_a_parameter_of_any_name(cache: Cache) -> None:
    """Parameters may be called what they like."""

    @cache.cached("f:{_key}:{type}:{self}:{key}")
    async def f(
        _key: int,
        type: int,  # noqa: A002  # the point of the test
        self: int,
        key: int,
        _entry: int = 5,
        _now: int = 6,
        _lookup: int = 7,
    ) -> list[int]:
        return [_key, type, self, key, _entry, _now, _lookup]

    for _ in range(2):
        assert await f(1, 2, 3, 4) == [1, 2, 3, 4, 5, 6, 7]
    assert await f(1, 2, 3, 5, _entry=9) == [1, 2, 3, 5, 9, 6, 7]

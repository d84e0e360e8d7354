"""What a type checker sees of decorated functions and methods."""

from pathlib import Path

import pytest
from mypy import api

import genesis_cache

SOURCE = """
from collections.abc import AsyncIterator
from typing import assert_type
from genesis_cache import Cache

cache = Cache.from_url("memory://")

@cache.cached("user:{user_id}")
async def user(user_id: int, *, full: bool = False) -> dict[str, int]:
    return {}

class Shop:
    @cache.cached("price:{product}")
    async def price(self, product: int) -> int:
        return product

    @cache.cached("name:{product}")
    def name(self, product: int) -> str:
        return str(product)

@cache.cached("words:{text}")
async def words(text: str) -> AsyncIterator[str]:
    yield text

async def good() -> None:
    assert_type([word async for word in words("a b")], list[str])
    assert_type([word async for word in words.refresh(text="a b")], list[str])
    assert_type(await user(7, full=True), dict[str, int])
    assert_type(user.key(7), str)
    assert_type(await user.refresh(7), dict[str, int])
    assert_type(await Shop().price(1), int)
    assert_type(Shop().name(product=1), str)

async def wrong() -> None:
    await user("7")
    await Shop().price("1")
    words(7)
"""


def test_decorated_functions_and_methods_keep_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strict type checker accepts right calls, methods' too, and finds the three wrong ones, and nothing else."""
    monkeypatch.setenv("MYPYPATH", str(Path(genesis_cache.__file__).parents[1]))
    told, complaints, _ = api.run(["--strict", "--config-file=", "-c", SOURCE])
    errors = [line for line in told.splitlines() if " error: " in line]
    assert not complaints
    assert len(errors) == 3, told
    assert sum('incompatible type "str"; expected "int"' in error for error in errors) == 2
    assert sum('incompatible type "int"; expected "str"' in error for error in errors) == 1

"""Rooms: which part of the package may see which, and what is imported when."""

import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest
from tests.shape.source import PACKAGE, ROOT, Module, modules

LEVELS = {
    "model": 0,
    "policies": 1,
    "codecs": 1,
    "coherence": 2,
    "tiers": 3,
    "engine": 4,
    "insight": 5,
    "door": 6,
    "semantic": 7,
    "export": 7,
    "adapters": 7,
    "simulator": 7,
    "testing": 8,
    "web": 8,
    "demo": 9,  # it mounts the dashboard
    "cli": 10,  # it starts the demo and the service
}
"""Imports go to lower levels only; rooms of one level do not see each other."""

DOOR = {"", "cache", "decorate", "blocking", "advanced_cache_manager", "cache_strategies"}
THROUGH_THE_DOOR = {"semantic", "export", "adapters", "simulator", "web", "demo", "cli"}
BEHIND_THE_DOOR = {
    "simulator": {
        "tiers.memory",
        "policies.eviction",
    },  # a trace is replayed through the tier itself, not a model of it
    "demo": {"testing.servers"},  # it brings its own servers, as tests do
}
"""Companions and faces see the door and the model's words, and only these rooms behind it."""

EXTRAS = {
    "asyncpg",
    "compression",
    "cryptography",
    "django",
    "fastapi",
    "hiredis",
    "langchain_core",
    "lmdb",
    "numpy",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "redis",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
    "zstandard",
}
"""Packages that only an extra, or the user, brings."""

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "stuff", "base_utils"}


def room_of(name: str) -> str:
    """The room of a module."""
    first = name.partition(".")[2].partition(".")[0]
    return "door" if first in DOOR else first


def ours(name: str) -> bool:
    """Whether a module is part of the package."""
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


@cache
def brings_extra(name: str) -> bool:
    """Whether importing a module needs an extra, of its own or of what it imports."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = modules()[waiting.pop()]
        seen.add(module.name)
        for one in module.imports():
            if one.inside or one.typing_only:
                continue
            if one.target.partition(".")[0] in EXTRAS:
                return True
            if ours(one.target) and one.target not in seen:
                waiting.append(one.target)
    return False


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.where)
def test_imports_go_down_the_list_only(module: Module) -> None:
    """A module sees its own room and lower ones; rooms of one level do not see each other."""
    room = room_of(module.name)
    assert room in LEVELS, f"{module.where}: the room {room!r} is not on the list"
    wrong = [
        f"{module.where}:{one.line} imports {one.target}"
        for one in module.imports()
        if ours(one.target) and room_of(one.target) != room and LEVELS[room_of(one.target)] >= LEVELS[room]
    ]
    assert not wrong


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.where)
def test_companions_and_faces_come_through_the_door(module: Module) -> None:
    """What is built on the cache uses what a user could use, and the model's words."""
    room = room_of(module.name)
    if room not in THROUGH_THE_DOOR:
        return
    allowed = BEHIND_THE_DOOR.get(room, set())
    wrong = [
        f"{module.where}:{one.line} imports {one.target}"
        for one in module.imports()
        if ours(one.target)
        and room_of(one.target) not in {"door", "model", *THROUGH_THE_DOOR}
        and not any(one.target.startswith(f"{PACKAGE}.{place}") for place in allowed)
    ]
    assert not wrong


def test_no_import_cycles() -> None:
    """Every module can be understood after those it imports."""
    graph = {
        name: {one.target for one in module.imports() if ours(one.target) and not one.typing_only} - {name}
        for name, module in modules().items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.where)
def test_only_what_an_extra_brings_is_imported_late(module: Module) -> None:
    """An import inside a function is an extra's package, or a module of ours that needs one."""
    wrong = [
        f"{module.where}:{one.line} imports {one.target} inside a function"
        for one in module.imports()
        if one.inside
        and one.target.partition(".")[0] not in EXTRAS
        and not (ours(one.target) and brings_extra(one.target))
    ]
    assert not wrong


def test_every_module_has_a_name_that_says_something() -> None:
    """No module is called after nothing in particular."""
    assert not [module.where for module in modules().values() if module.path.stem in VAGUE]


def test_the_plates_of_rooms_are_empty() -> None:
    """A room's ``__init__`` holds nothing but, at most, what its face shows."""
    shown = {"door", "cli", "web", "testing", "semantic", "demo", "simulator", "export", "adapters"}
    full = [
        module.where
        for module in modules().values()
        if module.path.name == "__init__.py" and room_of(module.name) not in shown and module.code_lines
    ]
    assert not full


def test_the_package_imports_without_any_extra() -> None:
    """``import genesis_cache`` and every room up to the door need nothing but what is always installed."""
    blocked = sorted(EXTRAS - {"compression"})
    needed = [name for name in modules() if LEVELS[room_of(name)] <= LEVELS["door"]]
    plain = [name for name in needed if not brings_extra(name)]
    program = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
import {PACKAGE}
for name in {PACKAGE}.__all__:
    getattr({PACKAGE}, name)
for name in {plain!r}:
    importlib.import_module(name)
"""
    ran = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert ran.returncode == 0, ran.stderr


def test_the_command_without_its_extra_says_what_to_install() -> None:
    """``genesis-cache`` without typer and rich ends with one sentence, not a traceback."""
    program = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"typer", "rich", "click"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
from genesis_cache.cli import main
sys.argv = ["genesis-cache", "doctor"]
sys.exit(main())
"""
    ran = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert ran.returncode not in (0, -11)
    assert "Traceback" not in ran.stderr
    assert re.search(r"genesis-cache\[cli\]", ran.stderr)

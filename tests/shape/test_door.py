"""The door: what ``import genesis_cache`` shows is what it says it shows."""

import ast
import inspect
import tomllib
from types import ModuleType

from tests.shape.source import ROOT, modules

import genesis_cache

DOCUMENTED = {
    "Cache",
    "BlockingCache",
    "CacheSettings",
    "CachePriority",
    "EntryOptions",
    "LoadContext",
    "Outcome",
    "Explanation",
    "OptimizationReport",
    "CacheError",
    "InvalidKey",
    "SettingsError",
    "SerializationError",
    "LoaderTimeout",
    "SecurityError",
    "TTL_STATIC",
    "TTL_DYNAMIC",
    "TTL_PERSONAL",
    "cached",
    "get_cached_value",
    "set_cached_value",
    "get_cache_analytics",
    "standard_cache",
    "swr_cache",
    "tagged_cache",
    "personalized_cache",
}


def test_the_door_shows_what_it_says() -> None:
    """``__all__`` is every visible name, and every visible name is in ``__all__``."""
    visible = {name for name in dir(genesis_cache) if not name.startswith("_")}
    assert all(not isinstance(getattr(genesis_cache, name), ModuleType) for name in visible)
    assert visible == {name for name in genesis_cache.__all__ if not name.startswith("_")}
    assert len(set(genesis_cache.__all__)) == len(genesis_cache.__all__)


def test_everything_documented_can_be_imported_from_the_door() -> None:
    """All names of the guide are importable from ``genesis_cache``."""
    assert set(genesis_cache.__all__) >= DOCUMENTED


def test_the_plate_holds_no_logic() -> None:
    """The door plate has imports, names, the version and what loads a name when it is asked for, nothing else."""
    allowed = ast.ImportFrom | ast.Import | ast.Assign | ast.AnnAssign | ast.Expr
    body = modules()["genesis_cache"].tree.body
    rest = [statement for statement in body if not isinstance(statement, allowed)]
    imports, *loading = rest
    assert isinstance(imports, ast.If)
    assert ast.unparse(imports.test) == "TYPE_CHECKING"
    assert [one.name for one in loading if isinstance(one, ast.FunctionDef)] == ["__getattr__", "__dir__"]
    assert len(loading) == 2


def test_every_public_class_and_function_is_documented() -> None:
    """``help()`` of anything shown says something of its own."""
    silent = [
        name
        for name in genesis_cache.__all__
        if (inspect.isclass(value := getattr(genesis_cache, name)) or inspect.isfunction(value)) and not value.__doc__
    ]
    assert not silent


def test_the_version_is_the_packages() -> None:
    """``__version__`` and the package's metadata agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert genesis_cache.__version__ == project["version"]

"""The source as the shape tests see it: modules, their imports, and the sizes of what is in them."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "genesis_cache"
ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / PACKAGE

NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


@dataclass(frozen=True)
class Import:
    """One name imported somewhere."""

    target: str
    """The module, in full; for ``from a import b`` it is ``a.b`` where that is a module, else ``a``."""
    line: int
    inside: bool
    """In a function, so that it runs when the function does."""
    typing_only: bool
    """Under ``if TYPE_CHECKING``, so that it never runs."""


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def where(self) -> str:
        """Path from the root of the project."""
        return str(self.path.relative_to(ROOT))

    @property
    def code_lines(self) -> frozenset[int]:
        """Lines that hold code: no blanks, comments or docstrings."""
        return code_lines(self.path)

    def functions(self) -> Iterator[Function]:
        """Every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def imports(self) -> list[Import]:
        """Everything that is imported, at the top or inside functions."""
        return list(_imports(self.tree, inside=False, typing_only=False))


@cache
def code_lines(path: Path) -> frozenset[int]:
    """Lines of a file that hold code: no blanks, comments or docstrings."""
    text = path.read_text("utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Documented):
            lines -= docstring_lines(node)
    return frozenset(lines)


def docstring_lines(node: Documented) -> set[int]:
    """The lines of a docstring, and of the strings that document attributes."""
    lines: set[int] = set()
    for statement in node.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            value = statement.value.value
            if isinstance(value, str):
                lines.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines


def function_lines(module: Module, node: Function) -> int:
    """Lines of code in a function, from its ``def`` on, without its docstring."""
    return len(module.code_lines & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))


@cache
def modules() -> dict[str, Module]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = list(path.relative_to(SOURCE.parent).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text("utf-8")
        found[name] = Module(name, path, text, ast.parse(text))
    return found


def _imports(node: ast.AST, *, inside: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, inside, typing_only)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield Import(_resolved(child.module or "", alias.name), child.lineno, inside, typing_only)
        else:
            deeper = inside or isinstance(child, Function)
            checking = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
            yield from _imports(child, inside=deeper, typing_only=checking)


def _resolved(module: str, name: str) -> str:
    relative = Path(*module.split(".")[1:], name)
    below = module.startswith(PACKAGE) and any(
        (SOURCE / relative.with_suffix(suffix)).exists() for suffix in ("", ".py")
    )
    return f"{module}.{name}" if below else module

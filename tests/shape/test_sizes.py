"""Sizes: what fits on a screen and in a head."""

import ast
from statistics import median

import pytest
from tests.shape.source import Module, docstring_lines, function_lines, modules

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_MEDIAN_FUNCTION_LINES = 6
MAX_IGNORES_PER_1000_LINES = 5


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.where)
def test_a_file_can_be_read_in_one_sitting(module: Module) -> None:
    """A file has at most 400 lines of code, a function at most 50."""
    assert len(module.code_lines) <= MAX_FILE_LINES
    long = {
        node.name: lines for node in module.functions() if (lines := function_lines(module, node)) > MAX_FUNCTION_LINES
    }
    assert not long


def test_most_functions_are_a_few_lines() -> None:
    """The median function has at most 6 lines of code."""
    lines = [function_lines(module, node) for module in modules().values() for node in module.functions()]
    assert median(lines) <= MAX_MEDIAN_FUNCTION_LINES


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.where)
def test_everything_is_annotated(module: Module) -> None:
    """Every argument and every result has a type."""
    bare = []
    for node in module.functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [one for one in (node.args.vararg, node.args.kwarg) if one]
        named = [one.arg for one in arguments if one.annotation is None and one.arg not in ("self", "cls")]
        if named or node.returns is None:
            bare.append(f"{module.where}:{node.lineno} {node.name} {named}")
    assert not bare


def _undocumented(body: list[ast.stmt], owner: str) -> list[str]:
    found = []
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            overload = any("overload" in ast.dump(one) or "setter" in ast.dump(one) for one in node.decorator_list)
            if ast.get_docstring(node) is None and not overload:
                found.append(f"{owner}{node.name}")
            if isinstance(node, ast.ClassDef):
                found += _undocumented(node.body, f"{owner}{node.name}.")
    return found


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.where)
def test_every_public_name_is_documented(module: Module) -> None:
    """Modules, classes, functions and methods say what they are."""
    if not module.code_lines:
        return
    assert docstring_lines(module.tree), f"{module.where} does not say what it is"
    assert not _undocumented(module.tree.body, "")


def test_an_exception_to_a_rule_gives_its_reason() -> None:
    """``type: ignore`` and ``noqa`` name what they ignore and why, and are rare."""
    bare, ignores, lines = [], 0, 0
    for module in modules().values():
        lines += len(module.code_lines)
        for number, line in enumerate(module.text.splitlines(), start=1):
            for mark in ("# type: ignore", "# noqa"):
                if mark not in line:
                    continue
                ignores += mark == "# type: ignore"
                said = line.partition(mark)[2]
                if said[:1] not in ("[", ":") or "#" not in said:
                    bare.append(f"{module.where}:{number}")
    assert not bare
    assert ignores <= max(1, MAX_IGNORES_PER_1000_LINES * lines / 1000)

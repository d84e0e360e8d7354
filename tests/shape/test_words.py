"""Words: one word for one thing, in the code, the tests and the documentation; and none that tie us to a machine."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.shape.source import ROOT, SOURCE, modules

SKIPPED_SUFFIXES = {".xz", ".gz", ".png", ".ico", ".woff2", ".bin"}
MACHINE = re.compile(
    "|".join(
        [
            r"(?<![\w.~$}])/(?:home|Users|root|work|mnt|workspace)/[\w.-]+",
            r"file:///(?!\.)[\w]+",
            r"\b(?:files\.python" + "hosted|test\\.py" + "pi|py" + "pi\\.python)\\.org",
            r"https?://[\w.-]*(?:artifactory|nexus|index-url)[\w./-]*",
        ]
    )
)


def tracked_files() -> list[Path]:
    """The files that belong to the project."""
    git = shutil.which("git")
    if git and (ROOT / ".git").exists():
        listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)  # noqa: S603  # fixed words
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    hidden = {".venv", ".git", "__pycache__", "_build"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not hidden & set(path.relative_to(ROOT).parts)]


def glossary() -> set[str]:
    """The words that the glossary explains, in lower case, plurals and compounds split."""
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8").lower()
    terms = re.findall(r"^(\S[^\n]*)\n(?:[^\n]+\n)*: ", text, re.MULTILINE)
    return {word for term in terms for word in re.findall(r"[a-z0-9]+", term)}


def known(word: str) -> bool:
    """Whether the glossary has a word, or the word it is a form of."""
    words = glossary()
    return bool({word, word.removesuffix("s"), f"{word}s", word.removesuffix("ing"), word.removesuffix("es")} & words)


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """No tracked file has a path of somebody's machine or the host of a package index."""
    found = []
    for path in tracked_files():
        if path.suffix in SKIPPED_SUFFIXES:
            continue
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
            if match := MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "guide").glob("*.md")), ids=lambda page: page.stem)
def test_every_page_of_the_guide_is_a_word_of_the_glossary(page: Path) -> None:
    """What a page is called is explained in the glossary."""
    if page.stem == "index":
        return
    missing = [word for word in page.stem.split("-") if word != "and" and not known(word)]
    assert not missing


@pytest.mark.parametrize("test", sorted((ROOT / "tests" / "unit").glob("test_*.py")), ids=lambda test: test.stem)
def test_every_unit_test_is_called_after_a_module(test: Path) -> None:
    """Whoever looks for the tests of a module finds them by its name."""
    word = test.stem.removeprefix("test_")
    names = {path.stem for path in SOURCE.rglob("*.py")} | {path.name for path in SOURCE.rglob("*") if path.is_dir()}
    assert any(word == name or word.startswith(f"{name}_") for name in names)


@pytest.mark.parametrize("room", ["model", "policies", "codecs", "coherence", "tiers", "engine", "insight"])
def test_every_room_is_explained(room: str) -> None:
    """The rooms of the house are words of the glossary."""
    assert known(room)


def test_every_test_says_what_a_user_must_see() -> None:
    """Each test has a docstring whose first line is a sentence."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                said = (ast.get_docstring(node) or "").strip()
                if not said.partition("\n")[0].endswith((".", "!", "?")):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not silent


def test_nothing_is_left_for_later() -> None:
    """No module holds a mark of unfinished work, and none uses pickle."""
    left = re.compile(
        r"\b(?:TO" + "DO|FIX" + "ME|XXX|HACK)\\b|NotImplementedError|^\\s*(?:import|from) pickle", re.MULTILINE
    )
    assert not [f"{module.where}: {match[0]}" for module in modules().values() if (match := left.search(module.text))]

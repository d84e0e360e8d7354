"""Patterns: globs over keys."""

import time
from fnmatch import translate
from re import compile as regex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis_cache.model.errors import InvalidKey
from genesis_cache.model.patterns import compile_pattern

ALPHABET = "ab:[]!"


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("user:*", "user:7", True),
        ("user:*", "user:", True),
        ("user:*", "users:7", False),
        ("*:7", "user:7", True),
        ("user:?", "user:7", True),
        ("user:?", "user:77", False),
        ("*", "anything", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "a--b--c", True),
        ("a*b*c", "acb", False),
        ("a*b", "ab", True),
        ("ab*ba", "aba", False),
        ("exact", "exact", True),
        ("exact", "exactly", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a.c", "abc", False),
        ("A*", "abc", False),
        ("*é?", "caféx", True),
    ],
)
def test_stars_and_question_marks_and_nothing_else(pattern: str, key: str, *, matches: bool) -> None:
    """``*`` is any run, ``?`` one character, and everything else stands for itself."""
    assert compile_pattern(pattern)(key) is matches


@given(st.text(f"{ALPHABET}?*", min_size=1, max_size=12), st.text(ALPHABET, max_size=14))
def test_it_agrees_with_the_shell(pattern: str, key: str) -> None:
    """A pattern matches what the same glob matches in a shell, brackets taken literally."""
    if pattern.count("*") > 2:
        return
    shell = regex(translate(pattern.replace("[", "[[]")))
    assert compile_pattern(pattern)(key) is (shell.fullmatch(key) is not None)


@pytest.mark.parametrize("pattern", ["", "*" * 3, "a*b*c*d", "x" * 129, "a" * 1_000_000, "\ud800"])
def test_beyond_the_limits_is_an_invalid_key(pattern: str) -> None:
    """A pattern that is too long or has too many stars is refused before anything is matched."""
    with pytest.raises(InvalidKey):
        compile_pattern(pattern)


def test_another_type_is_an_invalid_key() -> None:
    """A pattern that is no text is refused with its type."""
    with pytest.raises(InvalidKey, match="bytes"):
        compile_pattern(b"user:*")  # type: ignore[arg-type]  # the mistake under test


def test_the_worst_pattern_takes_time_linear_in_the_key() -> None:
    """No pattern makes a long key expensive: a hundred times the key takes at most a few hundred times as long."""
    matches = compile_pattern("*" + "a?" * 60 + "b*")
    spent = []
    for length in (1_000, 100_000):
        key = "a" * length
        start = time.process_time_ns()
        assert not matches(key)
        spent.append(time.process_time_ns() - start)
    assert spent[1] < 1_000 * max(spent[0], 1)

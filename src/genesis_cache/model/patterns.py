"""Patterns: globs over keys with ``*`` and ``?`` only, matched in time linear in the key.

Literal runs between stars are found by `str.find`; a run with ``?`` in the middle is found by the bit-parallel
Shift-And of Baeza-Yates and Gonnet, "A New Approach to Text Searching" (CACM 1992). No regular expressions, so no
pattern can be made to backtrack.
"""

from collections.abc import Callable

from genesis_cache.model.errors import InvalidKey

MAX_PATTERN_CHARACTERS = 128
MAX_PATTERN_STARS = 2


def check_pattern(pattern: object) -> str:
    """The pattern, if it is text of 1 to 128 characters with at most 2 stars; else `InvalidKey`."""
    if not isinstance(pattern, str):
        msg = f"a pattern must be a string, got {type(pattern).__name__}"
        raise InvalidKey(msg)
    if not 1 <= len(pattern) <= MAX_PATTERN_CHARACTERS:
        msg = f"a pattern must be 1 to {MAX_PATTERN_CHARACTERS} characters, got {len(pattern)}: use tags for more"
        raise InvalidKey(msg)
    if pattern.count("*") > MAX_PATTERN_STARS:
        msg = f"a pattern may have {MAX_PATTERN_STARS} stars, got {pattern.count('*')}: use tags for more"
        raise InvalidKey(msg)
    try:
        pattern.encode()
    except UnicodeEncodeError as error:
        msg = f"a pattern must be valid Unicode text, got {pattern!r}: {error.reason}"
        raise InvalidKey(msg) from None
    return pattern


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """A function that tells whether a whole key matches: ``*`` is any run, ``?`` any one character.

    Everything else stands for itself, case matters, and nothing can be escaped. `InvalidKey` beyond the limits.
    """
    runs = check_pattern(pattern).split("*")
    head, *middle, tail = runs if len(runs) > 1 else [runs[0], ""]
    if len(runs) == 1:
        return head.__eq__ if "?" not in head else lambda key: len(key) == len(head) and _fits(head, key, 0)
    if not any(middle) and not tail and "?" not in head:
        return lambda key: key.startswith(head)
    find = _finder(middle[0]) if middle and middle[0] else None
    least = sum(map(len, runs))

    def matches(key: str) -> bool:
        if len(key) < least or not _fits(head, key, 0) or not _fits(tail, key, len(key) - len(tail)):
            return False
        return find is None or find(key, len(head), len(key) - len(tail))

    return matches


def _fits(run: str, key: str, start: int) -> bool:
    if "?" not in run:
        return key.startswith(run, start)
    return all(wanted in ("?", key[start + n]) for n, wanted in enumerate(run))


def _finder(run: str) -> Callable[[str, int, int], bool]:
    """A function that tells whether the run stands anywhere in ``key[start:end]``."""
    if "?" not in run:
        return lambda key, start, end: key.find(run, start, end) >= 0
    anywhere = sum(1 << n for n, wanted in enumerate(run) if wanted == "?")
    masks = {c: anywhere | sum(1 << n for n, wanted in enumerate(run) if wanted == c) for c in set(run) - {"?"}}
    found = 1 << (len(run) - 1)

    def find(key: str, start: int, end: int) -> bool:
        state = 0
        for n in range(start, end):
            state = (state << 1 | 1) & masks.get(key[n], anywhere)
            if state & found:
                return True
        return False

    return find

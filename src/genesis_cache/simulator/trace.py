"""A trace: the keys that somebody asked a cache for, in order, read from text.

One request a line, ``key`` or ``key size`` with the size in bytes; plain, or compressed as ``.gz`` or ``.xz``. Empty
lines and lines that begin with ``#`` are passed over.
"""

import gzip
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import msgspec

MIN_CAPACITY = 16


class TraceError(ValueError):
    """A trace that cannot be read; the message names the file and the line."""


class Trace(msgspec.Struct, frozen=True, gc=False):
    """Requests in order. ``sizes`` in bytes are as many as ``keys``, or none where the trace tells no sizes."""

    name: str
    keys: list[str]
    sizes: list[int]

    @property
    def distinct(self) -> int:
        """How many different keys there are."""
        return len(set(self.keys))

    def share(self, part: float) -> int:
        """That share of the different keys as a capacity in entries, at least 16."""
        return max(int(self.distinct * part), MIN_CAPACITY)


def read_trace(path: str | Path, limit: int | None = None) -> Trace:
    """Read a trace, or its first ``limit`` requests; `TraceError` if it is missing, empty or malformed."""
    path = Path(path)
    keys: list[str] = []
    sizes: list[int] = []
    same: dict[str, str] = {}
    try:
        with _opened(path) as lines:
            for number, key, size in _requests(lines, path):
                keys.append(same.setdefault(key, key))
                if size is not None:
                    sizes.append(size)
                if sizes and len(sizes) != len(keys):
                    what = "has no size, lines before have one" if size is None else "has a size, lines before none"
                    raise TraceError(f"{path}, line {number} {what}: write 'key size' on each line or on none")
                if len(keys) == limit:
                    break
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise TraceError(f"cannot read the trace {path} after {len(keys)} requests: {error}") from error
    if not keys:
        raise TraceError(f"the trace {path} has no requests: write one key a line")
    return Trace(path.name, keys, sizes)


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _requests(lines: TextIO, path: Path) -> Iterator[tuple[int, str, int | None]]:
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        match words:
            case [key]:
                yield number, key, None
            case [key, size] if size.isdecimal():
                yield number, key, int(size)
            case _:
                raise TraceError(f"{path}, line {number} is {line.strip()!r:.80}: write 'key' or 'key size in bytes'")

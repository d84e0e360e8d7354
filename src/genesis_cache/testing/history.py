"""History: what happened in each process of a cluster, line by line and on one clock, for `checker` to judge.

Each process writes one file of JSON lines with `Recorder`; `read_history` puts the files together. Times are
nanoseconds of CLOCK_MONOTONIC, which all processes of one Linux host share. What has an effect (a commit, a change of
the cache, a load) is written down before it begins and again when it has ended, so that what a process was doing when
it was killed stays in the history with an open end, as in Jepsen's histories.
"""

import asyncio
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

FLUSH_BYTES = 1 << 16  # of reads that a killed process may take with it: they change nothing


class Get(msgspec.Struct, tag="get", omit_defaults=True, gc=False):
    """One read of one key, by any verb that returns a value."""

    key: str
    begin: int
    end: int
    version: int | None = None
    """Of the value; None: nothing was found."""
    maker: str = ""
    """Which load or set made the value, as it says itself."""
    named: str = ""
    """Which key the value says that it belongs to; empty: its checksum is wrong."""
    fresh: bool = True
    """False where the reader had said that a stale value will do."""
    hears: bool = True
    """Whether the process said, after the read, that it hears the others."""
    error: str = ""
    """What was raised."""
    process: str = ""


class Commit(msgspec.Struct, tag="commit", omit_defaults=True, gc=False):
    """A new version written to the source of truth."""

    key: str
    version: int
    serial: int = 0
    begin: int = 0
    end: int | None = None
    process: str = ""


class Change(msgspec.Struct, tag="change", omit_defaults=True, gc=False):
    """A change of the cache: a set, or an invalidation of any kind."""

    kind: str
    """``set``, ``delete``, ``tag``, ``pattern``, ``clear`` or a word of the caller's."""
    keys: tuple[str, ...] | None = None
    """What it covers; None: every key of the history."""
    version: int | None = None
    """Of the value that a set stores."""
    newest_wins: bool = False
    """The set is refused where a higher version is stored."""
    ttl_s: float | None = None
    outcome: str = ""
    """``ok``, ``degraded`` (not everybody could be told yet), ``raised`` or ``hung``; empty where nobody knows."""
    error: str = ""
    serial: int = 0
    begin: int = 0
    end: int | None = None
    process: str = ""

    @property
    def name(self) -> str:
        """How a value that this set stores names its maker."""
        return f"{self.process}:{self.serial}"


class Load(msgspec.Struct, tag="load", omit_defaults=True, gc=False):
    """One call of a loader. It began before the source of truth was read."""

    key: str
    version: int | None = None
    ttl_s: float | None = None
    serial: int = 0
    begin: int = 0
    end: int | None = None
    process: str = ""

    @property
    def name(self) -> str:
        """How the value that it brings names its maker."""
        return f"{self.process}:{self.serial}"


class Fault(msgspec.Struct, tag="fault", omit_defaults=True, gc=False):
    """Something that was done to the cluster."""

    name: str
    processes: tuple[str, ...] | None = None
    """Who suffers from it; None: everybody."""
    serial: int = 0
    begin: int = 0
    end: int | None = None
    process: str = ""


class Mark(msgspec.Struct, tag="mark", omit_defaults=True, gc=False):
    """A moment: ``healed`` (no fault from here on, and nothing is owed), ``bye`` (the process ended as planned)."""

    name: str
    begin: int
    process: str = ""


Line = Get | Commit | Change | Load | Fault | Mark
Span = Commit | Change | Load | Fault


class Named(NamedTuple):
    """What a value says of itself."""

    key: str
    version: int
    maker: str


def named_value(key: str, version: int, maker: str, padding: int = 0) -> dict[str, Any]:
    """A value that names its key, its version and who made it, with a checksum over all of it."""
    text = "x" * padding
    return {"key": key, "version": version, "maker": maker, "text": text, "crc": _crc(key, version, maker, text)}


def read_named(value: object) -> Named | None:
    """What a value says of itself; None where that is not whole."""
    match value:
        case {"key": str(key), "version": int(version), "maker": str(maker), "text": str(text), "crc": int(crc)}:
            return Named(key, version, maker) if crc == _crc(key, version, maker, text) else None
    return None


def _crc(key: str, version: int, maker: str, text: str) -> int:
    return zlib.crc32(f"{key}\0{version}\0{maker}\0{text}".encode())


class Recorder:
    """Writes the history of one process. Not for several threads at once."""

    def __init__(self, path: Path, process: str) -> None:
        self.process = process
        self._serial = 0
        self._encode = msgspec.json.Encoder().encode
        self._waiting = bytearray()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    now = staticmethod(time.monotonic_ns)
    """The clock of all histories."""

    def got(self, get: Get) -> None:
        """A read has ended."""
        self._waiting += self._encode(get) + b"\n"
        if len(self._waiting) > FLUSH_BYTES:
            self.flush()

    def mark(self, name: str) -> None:
        """A moment to be remembered."""
        self._write(Mark(name, self.now()))

    def begin(self, span: Span) -> None:
        """Something that has an effect begins: it is written down first."""
        self._serial += 1
        span.serial, span.process, span.begin = self._serial, self.process, self.now()
        self._write(span)

    def end(self, span: Span) -> None:
        """It has ended, with what is said in it."""
        span.end = self.now()
        self._write(span)

    @contextmanager
    def commit(self, key: str, version: int) -> Iterator[Commit]:
        """A version is written to the source of truth within; what raises leaves its outcome open."""
        commit = Commit(key, version)
        self.begin(commit)
        yield commit
        self.end(commit)

    @contextmanager
    def load(self, key: str, ttl_s: float | None = None) -> Iterator[Load]:
        """A loader's work; put the version that it has read into the load."""
        load = Load(key, ttl_s=ttl_s)
        self.begin(load)
        try:
            yield load
        finally:
            self.end(load)

    @contextmanager
    def change(self, change: Change) -> Iterator[Change]:
        """A change of the cache: put its outcome into it. One that is cancelled stays open."""
        self.begin(change)
        try:
            yield change
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            change.outcome, change.error = "raised", f"{type(error).__name__}: {error}"
            self.end(change)
            raise
        self.end(change)

    @contextmanager
    def fault(self, name: str, processes: Sequence[str] | None = None) -> Iterator[Fault]:
        """Something is done to the cluster within."""
        fault = Fault(name, None if processes is None else tuple(processes))
        self.begin(fault)
        try:
            yield fault
        finally:
            self.end(fault)

    def flush(self) -> None:
        """Give all lines to the operating system, which keeps them whatever becomes of the process."""
        os.write(self._file, self._waiting)
        self._waiting.clear()

    def close(self) -> None:
        """Write what is left; the process ends as planned."""
        self.mark("bye")
        os.close(self._file)

    def _write(self, line: Line) -> None:
        self._waiting += self._encode(line) + b"\n"
        self.flush()


class History(msgspec.Struct):
    """What all processes did, in no order."""

    gets: list[Get] = []
    commits: list[Commit] = []
    changes: list[Change] = []
    loads: list[Load] = []
    faults: list[Fault] = []
    marks: list[Mark] = []

    def add(self, line: Line) -> None:
        """Take in one line."""
        homes: dict[type, list[Any]] = {
            Get: self.gets,
            Commit: self.commits,
            Change: self.changes,
            Load: self.loads,
            Fault: self.faults,
            Mark: self.marks,
        }
        homes[type(line)].append(line)

    @property
    def healed(self) -> int | None:
        """From when on there was no fault and nothing was owed, if it was said."""
        return max((mark.begin for mark in self.marks if mark.name == "healed"), default=None)

    @property
    def operations(self) -> int:
        """Reads and changes."""
        return len(self.gets) + len(self.changes)


_decode = msgspec.json.Decoder(Line).decode


def read_history(paths: Iterable[Path], part: int = 0, parts: int = 1) -> History:
    """The history in files, one a process, called after it; a last line that a kill has cut off is left out.

    Keys are independent, so that a history that is too large for memory can be judged in so many ``parts``, each with
    all that happened to some of the keys; what belongs to no key is in all of them, errors of changes too.
    """
    history = History()
    words: dict[str, str] = {}
    for path in paths:
        for line in _lines(path, part, parts):
            if isinstance(line, Get | Commit | Load):
                if parts > 1 and zlib.crc32(line.key.encode()) % parts != part:
                    continue
                line.key = words.setdefault(line.key, line.key)
            if isinstance(line, Get):
                line.named = words.setdefault(line.named, line.named)
                line.maker = words.setdefault(line.maker, line.maker)
            history.add(line)
    return history


_READ = b'{"type":"get","key":"'  # how the line of a read begins: these are the most by far


def _lines(path: Path, part: int, parts: int) -> Iterator[Line]:
    """All lines; reads of other parts may be left out already."""
    spans: dict[int, Line] = {}
    with path.open("rb") as file:
        for text in file:
            if not text.endswith(b"\n"):
                break
            if parts > 1 and text.startswith(_READ):
                key = text[len(_READ) : text.index(b'"', len(_READ))]
                if b"\\" not in key and zlib.crc32(key) % parts != part:
                    continue
            line: Line = _decode(text)
            line.process = path.stem
            if isinstance(line, Get | Mark):
                yield line
            else:
                spans[line.serial] = line  # its end follows its beginning
    yield from spans.values()

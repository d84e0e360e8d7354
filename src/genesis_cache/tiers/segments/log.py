"""The invalidation log: notices appended to one of two preallocated files; a compaction moves it to the other one.

A compaction keeps the newest TAG, PATTERN and CLEAR of each name and scope, and the latest quarter of all notices, so
that processes which follow it closely miss nothing. Where even the floors grow too many, the oldest of them become one
CLEAR of everything that is older: more is forgotten than need be, and never less.
"""

import os
import struct
import zlib
from collections.abc import Iterator

import msgspec

from genesis_cache.model.keys import Address
from genesis_cache.tiers.base import Kind, Notice
from genesis_cache.tiers.segments.breath import breathe
from genesis_cache.tiers.segments.folder import Folder, write_all
from genesis_cache.tiers.segments.layout import State

_HEAD = struct.Struct("<IBQ")  # of a line: bytes that follow, kind, sequence
_HEAD_SIZE = _HEAD.size
_KINDS = tuple(Kind)
_KEY = _KINDS.index(Kind.KEY)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str | None, str, int]).decode  # namespace, owner, name, origin


class Line(msgspec.Struct, frozen=True, gc=False):
    """Where a line lies in a stretch of the log, and its head."""

    start: int
    end: int
    kind: int
    seq: int


def pack_notice(notice: Notice, seq: int) -> bytes:
    """A notice as its line in the log."""
    body = _encode((notice.namespace, notice.owner, notice.name, notice.origin))
    return _HEAD.pack(len(body), _KINDS.index(notice.kind), seq) + body


def pack_key_notice(address: Address, seq: int, origin: int) -> bytes:
    """The line that tells a set or a remove."""
    scope = address.scope
    body = _encode((scope.namespace, scope.owner, address.key, origin))
    return _HEAD.pack(len(body), _KEY, seq) + body


def lines_of(raw: bytes) -> Iterator[Line]:
    """The lines of a stretch of the log; raises `ValueError` where it is not whole."""
    at, end = 0, len(raw)
    while at < end:
        if at + _HEAD_SIZE > end:
            raise ValueError(_TORN)
        length, kind, seq = _HEAD.unpack_from(raw, at)
        start, at = at, at + _HEAD_SIZE + length
        if at > end or kind >= len(_KINDS):
            raise ValueError(_TORN)
        yield Line(start, at, kind, seq)


_TORN = "the log ends within a line"


def notice_of(raw: bytes, line: Line) -> Notice:
    """The notice that a line tells."""
    namespace, owner, name, origin = _decode(raw[line.start + _HEAD_SIZE : line.end])
    return Notice(_KINDS[line.kind], namespace, owner, name, line.seq, origin)


def floors_of(raw: bytes) -> list[Notice]:
    """The newest TAG, PATTERN and CLEAR of each name and scope, oldest first; none that a later CLEAR of all covers."""
    newest: dict[tuple[Kind, str, str | None, str], Notice] = {}
    cleared = 0
    for step, line in enumerate(lines_of(raw), 1):
        breathe(step)
        if line.kind != _KEY:
            notice = notice_of(raw, line)
            newest[notice.kind, notice.namespace, notice.owner, notice.name] = notice
            if notice.kind is Kind.CLEAR and notice.namespace == "" and notice.owner is None:
                cleared = notice.seq
    return sorted((notice for notice in newest.values() if notice.seq >= cleared), key=lambda notice: notice.seq)


class Compaction(msgspec.Struct, frozen=True):
    """What a compaction keeps: floors, then the latest lines as they are."""

    floors: bytes
    cut: int
    """Where the latest lines begin in the old file."""
    reach: int
    """The last sequence before them: what was told up to it may be missing."""


def compacted(raw: bytes, budget: int) -> Compaction:
    """Decide what to keep, in so many bytes: half for the floors, half for the latest lines of any kind."""
    cut = reach = 0
    for step, line in enumerate(lines_of(raw), 1):
        breathe(step)
        if len(raw) - line.start <= budget // 2:
            break
        cut, reach = line.end, line.seq
    left = budget // 2
    kept: list[bytes] = []
    for notice in reversed(floors_of(raw)):
        if notice.seq > reach:
            continue  # it is among the latest lines
        packed = pack_notice(notice, notice.seq)
        left -= len(packed)
        if left < _CLEAR_BYTES:
            kept.append(pack_notice(Notice(Kind.CLEAR, "", None, ""), notice.seq))
            break
        kept.append(packed)
    return Compaction(b"".join(reversed(kept)), cut, reach)


_CLEAR_BYTES = 64


class Log:
    """The two files. Methods may raise `OSError`."""

    def __init__(self, folder: Folder, size: int) -> None:
        self._folder = folder
        self.size = size
        self._fds: list[int] = []
        self._seen = (0, 0, 0)

    def open(self) -> None:
        """Open both files."""
        self.close()
        for name in ("log-0", "log-1"):
            self._fds.append(self._folder.open_book(name))

    def close(self) -> None:
        """Close both."""
        while self._fds:
            os.close(self._fds.pop())

    def flush(self) -> None:
        """Bring the log to the disk."""
        for fd in self._fds:
            os.fsync(fd)

    def raw(self, state: State, start: int = 0) -> bytes:
        """The log's bytes from an offset to its end."""
        return os.pread(self._fds[state.log_number & 1], state.log_end - start, start)

    def append(self, state: State, lines: bytes) -> None:
        """Write lines behind the log's end and note them in the state, which makes them count."""
        write_all(self._fds[state.log_number & 1], lines, state.log_end)
        state.log_end += len(lines)
        state.log_crc = zlib.crc32(lines, state.log_crc)

    def intact(self, state: State) -> bool:
        """Whether the log is, byte by byte, what was written."""
        raw = self.raw(state)
        return len(raw) == state.log_end and zlib.crc32(raw) == state.log_crc

    def room(self, state: State) -> int:
        """Bytes until a compaction is due."""
        return self.size - state.log_end

    def compact(self, state: State) -> None:
        """Begin the other file with what must be kept; the state, once written, makes it the log."""
        raw = self.raw(state)
        kept = compacted(raw, self.size // 2)
        lines = kept.floors + raw[kept.cut :]
        write_all(self._fds[(state.log_number + 1) & 1], lines, 0)
        state.log_number += 1
        state.log_end = len(lines)
        state.log_crc = zlib.crc32(lines)
        state.log_cut, state.log_rest = kept.cut, len(kept.floors)
        state.reach = max(state.reach, kept.reach)

    def follow(self, state: State) -> None:
        """Read on from the log's end as it is now."""
        self._seen = (state.log_number, state.log_end, state.seq)

    def after(self, state: State, seq: int) -> list[Notice]:
        """Notices later than a sequence. Where the last call ended is remembered, so that only the new are read."""
        raw = self.raw(state, self._known_until(state, seq))
        found = [notice_of(raw, line) for line in lines_of(raw) if line.seq > seq]
        self.follow(state)
        return found

    def _known_until(self, state: State, seq: int) -> int:
        """An offset before which nothing is later than a sequence."""
        number, end, last = self._seen
        if last > seq:
            return 0
        if number == state.log_number:
            return end
        moved = number + 1 == state.log_number and end >= state.log_cut
        return end - state.log_cut + state.log_rest if moved else 0

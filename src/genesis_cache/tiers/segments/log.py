"""The invalidation log: notices appended to one of two preallocated files; a compaction moves it to the other one.

A compaction keeps the newest TAG, PATTERN and CLEAR of each name and scope, and the latest quarter of all notices, so
that processes which follow it closely miss nothing. Where even the floors grow too many, the oldest of them become one
CLEAR of everything that is older: more is forgotten than need be, and never less.
"""

import os
import struct
import zlib
from collections.abc import Iterable

import msgspec

from genesis_cache.model.keys import Address
from genesis_cache.tiers.base import Kind, Notice
from genesis_cache.tiers.segments.folder import Folder, write_all
from genesis_cache.tiers.segments.layout import State

_LENGTH = struct.Struct("<I")
_LINE = tuple[str, str, str | None, str, int, int]  # kind, namespace, owner, name, seq, origin
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_LINE).decode
_KINDS = {kind.value: kind for kind in Kind}


def pack_notice(notice: Notice, seq: int) -> bytes:
    """A notice as its line in the log."""
    line = _encode((notice.kind.value, notice.namespace, notice.owner, notice.name, seq, notice.origin))
    return _LENGTH.pack(len(line)) + line


def pack_key_notice(address: Address, seq: int, origin: int) -> bytes:
    """The line that tells a set or a remove."""
    scope = address.scope
    line = _encode(("key", scope.namespace, scope.owner, address.key, seq, origin))
    return _LENGTH.pack(len(line)) + line


def parse_notices(raw: bytes) -> list[Notice]:
    """The notices of a stretch of the log; raises `ValueError` where it is not whole."""
    found = []
    at, end = 0, len(raw)
    while at < end:
        if at + 4 > end:
            raise ValueError("the log ends within a line")
        start = at + 4
        at = start + _LENGTH.unpack_from(raw, at)[0]
        if at > end:
            raise ValueError("the log ends within a line")
        kind, namespace, owner, name, seq, origin = _decode(raw[start:at])
        found.append(Notice(_KINDS[kind], namespace, owner, name, seq, origin))
    return found


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
        kept, reach = compacted(parse_notices(self.raw(state)), self.size // 2)
        lines = b"".join(pack_notice(notice, notice.seq) for notice in kept)
        write_all(self._fds[(state.log_number + 1) & 1], lines, 0)
        state.log_number += 1
        state.log_end = len(lines)
        state.log_crc = zlib.crc32(lines)
        state.reach = max(state.reach, reach)

    def after(self, state: State, seq: int) -> list[Notice]:
        """Notices later than a sequence; where the last call ended is remembered, so that only the new are read."""
        number, end, last = self._seen
        known = number == state.log_number and last <= seq and end <= state.log_end
        notices = parse_notices(self.raw(state, end if known else 0))
        if notices or not known:
            self._seen = (state.log_number, state.log_end, state.seq)
        return [notice for notice in notices if notice.seq > seq]


def floors_of(notices: Iterable[Notice]) -> list[Notice]:
    """The newest TAG, PATTERN and CLEAR of each name and scope, oldest first."""
    newest: dict[tuple[Kind, str, str | None, str], Notice] = {}
    for notice in notices:
        if notice.kind is not Kind.KEY:
            newest[notice.kind, notice.namespace, notice.owner, notice.name] = notice
    return sorted(newest.values(), key=lambda notice: notice.seq)


def compacted(notices: list[Notice], budget: int) -> tuple[list[Notice], int]:
    """What a compaction keeps, in order and within so many bytes, and the sequence after which nothing is missing."""
    sizes = {notice.seq: len(pack_notice(notice, notice.seq)) for notice in notices}
    kept: dict[int, Notice] = {}
    left = budget // 2
    for notice in reversed(notices):  # the latest of all kinds, for those who follow
        left -= sizes[notice.seq]
        if left < 0:
            break
        kept[notice.seq] = notice
    reach = max((notice.seq for notice in notices if notice.seq not in kept), default=0)
    left = budget // 2 - 64
    folded = 0
    for notice in reversed(floors_of(notices)):
        if notice.seq in kept:
            continue
        left -= sizes[notice.seq]
        if left < 0:
            folded = notice.seq
            break
        kept[notice.seq] = notice
    if folded:
        kept[folded] = Notice(Kind.CLEAR, "", None, "", folded)
    return [kept[seq] for seq in sorted(kept)], reach

"""The segments: files of records that are appended and never changed, mapped for reading.

A mapping is made only after a look at the file's size, and files keep their size while the store is in use, so reading
one cannot end in a signal. A segment that was removed stays readable to whoever still has a view of it.
"""

import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import msgspec

from genesis_cache.tiers.base import Put
from genesis_cache.tiers.segments import layout
from genesis_cache.tiers.segments.folder import Folder, segment_name, write_all
from genesis_cache.tiers.segments.layout import BODY, CORE, FIRST_RECORD, GRAIN, GRAIN_BITS, RECORD, Geometry, Row

_SPARE = 2  # mappings of removed segments that a process may keep until its next write or sweep
_CHECKSUM_BYTES = 4
_FILLERS = [bytes(size) for size in range(GRAIN)]


class Mapped(NamedTuple):
    """A segment as this process sees it."""

    map: mmap.mmap
    view: memoryview
    checked: bytearray
    """One byte for each grain: whether the record that begins there was checked by this process."""

    def let_go(self) -> None:
        """Unmap it now, unless somebody holds a view of it: then that happens with the last view."""
        with suppress(BufferError):
            self.view.release()
            self.map.close()  # other threads run meanwhile; left to the collector they would not


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A record met while walking a segment."""

    digest: bytes
    row: Row
    priority: int


class Segments:
    """Maps, writes and removes segments. Methods may raise `OSError`."""

    def __init__(self, folder: Folder, geometry: Geometry) -> None:
        self._folder = folder
        self._geometry = geometry
        self.mapped: dict[int, Mapped] = {}
        self._writing = (0, -1)

    def close(self) -> None:
        """Let go of all of them; views that callers still hold stay valid."""
        self._forget(list(self.mapped))
        self.stop_writing()

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            mapped = self.mapped.pop(number, None)
            if mapped is not None:
                mapped.let_go()

    def stop_writing(self) -> None:
        """Close the segment that was written to; the next write opens it again."""
        fd, self._writing = self._writing[1], (0, -1)
        if fd >= 0:
            os.close(fd)

    # --- reading ------------------------------------------------------------------------------------------------

    def open(self, number: int) -> Mapped | None:
        """Map a segment; None if it is gone or isn't what it should be."""
        known = self.mapped.get(number)
        if known is not None:
            return known
        if len(self.mapped) > self._geometry.segments + _SPARE:
            self.drop_gone()
        try:
            fd = self._folder.open_file(segment_name(number), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            made = self._map(fd, number)
        finally:
            os.close(fd)
        if made is not None:
            self.mapped[number] = made
        return made

    def _map(self, fd: int, number: int) -> Mapped | None:
        size = self._geometry.segment_bytes
        if os.fstat(fd).st_size != size:
            return None
        expected = layout.pack_segment_header(self._geometry.epoch, number, size)
        mapping = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        if mapping[: len(expected)] != expected:
            return None
        return Mapped(mapping, memoryview(mapping), bytearray(size >> GRAIN_BITS))

    def drop_gone(self) -> None:
        """Forget mappings of segments that were removed, so that their space is really given back."""
        if self.mapped:
            there = set(self._folder.segments())
            self._forget([number for number in list(self.mapped) if number not in there])

    def envelope(self, digest: bytes, row: Row) -> memoryview | None:
        """The record's envelope if it is there, names this digest and is whole."""
        number, offset, length, checksum, _ = row
        mapped = self.open(number)
        start = offset + RECORD.size
        if mapped is None or offset < FIRST_RECORD or start + length > self._geometry.segment_bytes:
            return None
        with suppress(ValueError):  # unmapped at this moment, because it is gone
            if CORE.unpack_from(mapped.map, offset) != (checksum, length, digest):
                return None
            if not mapped.checked[offset >> GRAIN_BITS]:
                if zlib.crc32(mapped.view[offset + _CHECKSUM_BYTES : start + length]) != checksum:
                    return None
                mapped.checked[offset >> GRAIN_BITS] = 1
            return mapped.view[start : start + length]
        return None

    def raw(self, row: Row) -> bytes:
        """A record as it lies, header and filler included; of a segment that is mapped."""
        return bytes(self.mapped[row[0]].view[row[1] : row[1] + layout.record_bytes(row[2])])

    def digest_at(self, row: Row) -> bytes | None:
        """The digest that the record at a row names; None where there can be no record."""
        mapped = self.open(row[0])
        if mapped is None or not FIRST_RECORD <= row[1] <= self._geometry.segment_bytes - RECORD.size:
            return None
        start = row[1] + layout.DIGEST_AT
        with suppress(ValueError):  # unmapped at this moment, because it is gone
            return mapped.map[start : start + 32]
        return None

    def walk(self, number: int, start: int, end: int) -> Iterator[Stored]:
        """The records of a segment from one offset to another; stops early where the chain is broken."""
        mapped = self.open(number)
        size = 0 if mapped is None else min(end, self._geometry.segment_bytes)
        at = start
        while mapped is not None and at + RECORD.size <= size:
            checksum, length, digest, gone_at, _, priority = RECORD.unpack_from(mapped.map, at)
            after = at + layout.record_bytes(length)
            if length == 0 or after > size:
                return
            yield Stored(digest, (number, at, length, checksum, gone_at), priority)
            at = after

    # --- writing ------------------------------------------------------------------------------------------------

    def create(self, number: int) -> None:
        """Make a segment and write to it from now on."""
        size = self._geometry.segment_bytes
        header = layout.pack_segment_header(self._geometry.epoch, number, size)
        fd = self._folder.create(segment_name(number), size, header)
        self.stop_writing()
        self._writing = (number, fd)

    def remove(self, number: int) -> None:
        """Delete a segment."""
        if self._writing[0] == number:
            self.stop_writing()
        self._forget([number])
        self._folder.remove(segment_name(number))

    def write(self, number: int, data: bytes | bytearray, at: int) -> None:
        """Write records into the head at an offset that no slot points to yet."""
        if self._writing[0] != number:
            self.stop_writing()
            self._writing = (number, self._folder.open_file(segment_name(number), os.O_RDWR))
        write_all(self._writing[1], data, at)


def pack_record(put: Put, seq: int) -> tuple[int, tuple[bytes, ...]]:
    """A record's checksum, and its bytes in pieces that fill a whole number of grains."""
    envelope = put.envelope
    length = len(envelope)
    body = BODY.pack(length, put.address.digest, put.gone_at, seq, put.priority)
    checksum = zlib.crc32(envelope, zlib.crc32(body))
    return checksum, (checksum.to_bytes(_CHECKSUM_BYTES, "little"), body, envelope, _FILLERS[-length % GRAIN])

"""What happens when nobody else uses the store: are its books to be trusted, and if not, make it anew.

Slots and records need no trust, for every read checks them. The state and the log do: a notice that was lost could
bring a killed value back. So unless both are exactly as they were left, the whole store goes, under a new identity.
After a crash of the machine nobody knows what reached the disk; only a store that its last user closed outlives one.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from genesis_cache.tiers.base import StoreError
from genesis_cache.tiers.segments import layout
from genesis_cache.tiers.segments.folder import Folder, is_segment, segment_name
from genesis_cache.tiers.segments.index import Index
from genesis_cache.tiers.segments.layout import Geometry, State
from genesis_cache.tiers.segments.log import Log

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_BITS = 44
_BOOKS = ("index", "index.new", "log-0", "log-1")


def boot_identity() -> bytes:
    """Which run of the machine this is; random where the system does not say, so that no two are ever the same."""
    with suppress(OSError, ValueError):
        return UUID(_BOOT_ID.read_text().strip()).bytes
    return secrets.token_bytes(16)


def read_geometry(folder: Folder) -> Geometry | None:
    """What the header of the index says; None if there is none or it isn't whole, or the file isn't."""
    try:
        fd = folder.open_file("index", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        geometry = Geometry.parse(os.pread(fd, layout.HEADER.size, 0))
        if geometry is None or os.fstat(fd).st_size != geometry.index_bytes:
            return None
        return geometry
    finally:
        os.close(fd)


def map_index(folder: Folder, geometry: Geometry) -> Index:
    """The index file, mapped."""
    return Index(folder.open_book("index"), geometry, read_only=folder.read_only)


def prepare(folder: Folder, max_bytes: int) -> None:
    """Leave a store that can be trusted, within its limit. Only for its single user, under the writer lock."""
    geometry = read_geometry(folder)
    if geometry is not None and _keep(folder, geometry, max_bytes):
        return
    if folder.read_only:
        raise StoreError("disk store: it cannot be trusted or is not there, and the file system is read-only")
    make(folder, max_bytes, rebuilt=_clear(folder, geometry))


def _keep(folder: Folder, geometry: Geometry, max_bytes: int) -> bool:
    """Whether the store could be kept; if so it is fit for use."""
    resized = geometry.resized(max_bytes)
    if resized is None:
        return False
    sizes = folder.sizes()
    if sizes.get("log-0") != geometry.log_bytes or sizes.get("log-1") != geometry.log_bytes:
        return False
    index = map_index(folder, geometry)
    log = Log(folder, geometry.log_bytes)
    log.open()
    try:
        state = index.trusted()
        if state is None or index.words[layout.LIVE_EPOCH] != geometry.epoch or not log.intact(state):
            return False
        if not (state.clean or state.boot == boot_identity()):
            return False
        if not folder.read_only:
            _begin_use(folder, index, state, resized)
        return True
    finally:
        log.close()
        index.close()


def _begin_use(folder: Folder, index: Index, state: State, geometry: Geometry) -> None:
    if geometry.max_bytes != index.geometry.max_bytes:
        index.write_header(geometry)
        index.set_dirty(True)
    numbers = folder.segments()
    if index.hinted() != set(numbers):
        index.set_dirty(True)
    bad = [number for number in numbers if not _is_whole(folder, geometry, number)]
    too_many = [number for number in numbers if number not in bad][: -geometry.segments]
    for number in bad + too_many:
        folder.remove(segment_name(number))
        index.set_dirty(True)
    state.damaged += len(bad)
    if state.head not in folder.segments():
        state.head_end = state.pending_from = geometry.segment_bytes  # its number is never used again
    index.forget_kills()
    state.oldest_fill = state.seq
    state.clean = 0
    state.boot = boot_identity()
    index.write_state(state)
    index.flush()


def _is_whole(folder: Folder, geometry: Geometry, number: int) -> bool:
    """Whether a segment has its full size and its own header."""
    expected = layout.pack_segment_header(geometry.epoch, number, geometry.segment_bytes)
    fd = folder.open_file(segment_name(number), os.O_RDONLY)
    try:
        return os.fstat(fd).st_size == geometry.segment_bytes and os.pread(fd, len(expected), 0) == expected
    finally:
        os.close(fd)


def _clear(folder: Folder, geometry: Geometry | None) -> int:
    """Remove every file of the old store; how often it was thrown away, this time included."""
    names = [name for name in folder.sizes() if name in _BOOKS or is_segment(name)]
    before = 0
    if geometry is not None:
        with suppress(OSError, ValueError):
            index = map_index(folder, geometry)
            state = index.newest()
            before = state.rebuilt if state else 0
            index.close()
    for name in names:
        folder.remove(name)
    return before + bool(names)


def make(folder: Folder, max_bytes: int, rebuilt: int) -> None:
    """A new, empty store. The index gets its name last, so that a half-made store is none."""
    geometry = Geometry.for_limit(max_bytes, secrets.randbits(64) or 1)
    for name in ("log-0", "log-1"):
        os.close(folder.create(name, geometry.log_bytes))
    index = Index(folder.create("index.new", geometry.index_bytes, geometry.pack()), geometry, read_only=False)
    try:
        index.set_epoch()
        start = secrets.randbits(_START_BITS)  # so that no fill can take its sequence in another log for one in this
        index.write_state(State(seq=start, reach=start, oldest_fill=start, rebuilt=rebuilt, boot=boot_identity()))
        os.rename("index.new", "index", src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    finally:
        index.close()


def leave_clean(index: Index, log: Log, state: State) -> None:
    """As the last user: bring the books to the disk, then say so, so that the store outlives a crash of the machine."""
    log.flush()
    index.flush()
    state.clean = 1
    index.write_state(state)
    index.flush()

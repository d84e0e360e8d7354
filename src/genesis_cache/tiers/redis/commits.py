"""Changes on their way to a server of its own: cut into script calls, packed, and their receipts read."""

import math
import os
import secrets
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, NamedTuple

from genesis_cache.model.clock import Clock
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.tiers.base import Change, Drop, Kill, Put, Receipt, Remove
from genesis_cache.tiers.redis.log import Log
from genesis_cache.tiers.redis.names import Names
from genesis_cache.tiers.redis.outage import ReplyError
from genesis_cache.tiers.redis.scripts import COMMIT, Argument
from genesis_cache.tiers.redis.server import Server
from genesis_cache.tiers.remote_base import Committed, Outage
from genesis_cache.tiers.wire import message_head, notice_name

LONGEST_LIFE_MS = 30 * 24 * 3600 * 1000  # of any value: a floor older than this can kill nothing any more
KEPT_NOTICES = 131_072
EPOCH_BYTES = 8
HEAD_BYTES = 8

_CHANGES_A_CALL = 256
_BYTES_A_CALL = 4 * 2**20
_META = Struct(">BIQIIQ")
_VERSION_ZERO = 2**63  # versions are stored from 0 up, so that bytes compare as numbers do; 0 stands for none
_U64 = Struct(">Q")
_REFUSED = Receipt(0, refused=True)
_DONE = Receipt()
_SET, _FILL, _REMOVE, _DROP, _KILL, _KILL_ALL = range(1, 7)


class Line(NamedTuple):
    """One change as a script's arguments."""

    key: bytes
    meta: bytes
    """What it is, where its mark stands, the sequence before its load (or its own), its version, its life."""
    name: bytes
    """What it kills, empty for a fill and a drop."""
    value: bytes
    digest: bytes | None
    """Of its address; a kill has none."""

    @property
    def op(self) -> int:
        """What it is, as scripts number it."""
        return self.meta[0]

    @property
    def takes_sequence(self) -> bool:
        """Whether it is told to others."""
        return self.meta[0] not in {_FILL, _DROP}

    @property
    def version(self) -> tuple[str, str]:
        """The halves of its version, zeros for none."""
        _, _, _, high, low, _ = _META.unpack(self.meta)
        return str(high), str(low)

    def with_seq(self, seq: int) -> "Line":
        """The same with the sequence it was given, if it takes one."""
        return self._replace(meta=self.meta[:5] + _U64.pack(seq) + self.meta[13:]) if self.takes_sequence else self


class Packer:
    """Changes as the arguments of a script."""

    __slots__ = ("_clock", "_head", "_names", "_pid", "capacity_bytes")

    def __init__(self, names: Names, capacity_bytes: int, clock: Clock) -> None:
        self._names = names
        self._clock = clock
        self._pid = 0
        self._head = b""
        self.capacity_bytes = capacity_bytes

    @property
    def message_head(self) -> bytes:
        """What this process's messages begin with; a forked child has its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._head = message_head(secrets.randbits(62) + 1)
        return self._head

    def time_stamp(self) -> bytes:
        """The wall time in milliseconds, beside each floor."""
        return _U64.pack(int(self._clock.wall() * 1000))

    def packed(self, change: Change) -> Line:
        """A change as a script's arguments."""
        if isinstance(change, Kill):
            notice = change.notice
            is_all = notice.kind is Kind.CLEAR and not notice.namespace and notice.owner is None
            meta = _META.pack(_KILL_ALL if is_all else _KILL, 0, 0, 0, 0, 0)
            return Line(self._names.floors, meta, notice_name(notice), b"", None)
        digest = change.address.digest
        key, mark = self._names.value_of(digest), self._names.mark_at(digest)
        if isinstance(change, Put):
            return self._packed_put(change, key, mark)
        if isinstance(change, Remove):
            return Line(key, _META.pack(_REMOVE, mark, 0, 0, 0, 0), _key_name(change), b"", digest)
        return Line(key, _META.pack(_DROP, mark, 0, 0, 0, 0), b"", b"", digest)

    def _packed_put(self, put: Put, key: bytes, mark: int) -> Line:
        version = 0 if put.version is None else put.version + _VERSION_ZERO
        high, low = divmod(version, 2**32)
        left_ms = self._left_ms(put.gone_at)
        is_kept = left_ms > 0 and len(put.envelope) <= self.capacity_bytes
        value = _U64.pack(version) + put.envelope if is_kept else b""
        if put.since is not None:
            meta = _META.pack(_FILL if is_kept else _DROP, mark, put.since, high, low, left_ms)
            return Line(key, meta, b"", value, put.address.digest)
        meta = _META.pack(_SET if is_kept else _REMOVE, mark, 0, high, low, left_ms)
        return Line(key, meta, _key_name(put), value, put.address.digest)

    def _left_ms(self, gone_at: float) -> int:
        left_ms = (gone_at - self._clock.wall()) * 1000
        return LONGEST_LIFE_MS if left_ms > LONGEST_LIFE_MS else max(0, math.ceil(left_ms))


def cut(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Batches that keep a server busy for a millisecond or so each."""
    batch: list[Change] = []
    size = 0
    for change in changes:
        size += len(change.envelope) if isinstance(change, Put) else 0
        if batch and (len(batch) >= _CHANGES_A_CALL or size > _BYTES_A_CALL):
            yield batch
            batch, size = [], len(change.envelope) if isinstance(change, Put) else 0
        batch.append(change)
    if batch:
        yield batch


def receipts_of(numbers: Sequence[int]) -> list[Receipt]:
    """Receipts as scripts tell them: a sequence, 0 for none, -1 where it was refused."""
    return [Receipt(n) if n > 0 else _REFUSED if n else _DONE for n in numbers]


def without_values(changes: Sequence[Change]) -> list[Change]:
    """What can be done where there is no room for values: what would be replaced goes."""
    return [
        Remove(change.address) if isinstance(change, Put) else change
        for change in changes
        if not isinstance(change, Put) or change.since is None
    ]


class Commits:
    """Commits to a server that has everything of a cache: one script for each batch."""

    __slots__ = ("_log", "_names", "_packer", "_server")

    def __init__(self, server: Server, names: Names, packer: Packer, log: Log) -> None:
        self._server = server
        self._names = names
        self._packer = packer
        self._log = log

    async def commit(self, changes: Sequence[Change], epoch: int) -> Committed:
        """As `RemoteStore.commit`."""
        receipts: list[Receipt] = []
        of_log = epoch
        for batch in cut(changes):
            of_log, given = await self._commit(batch, epoch)
            receipts += given
        return Committed(of_log, receipts)

    async def _commit(self, batch: Sequence[Change], epoch: int) -> tuple[int, list[Receipt]]:
        reply = await self._run(batch, epoch)
        if reply is None:
            await self._log.make()  # there is none yet, or its books were lost
            reply = await self._run(batch, epoch)
        if reply is None:
            raise Outage(
                f"Redis at {self._server.shown} loses what it is given: is something emptying it all the time?"
            )
        if isinstance(reply, ReplyError) and reply.code == "OOM" and (left := without_values(batch)):
            await self._run(left, epoch)
        given, numbers = self._server.checked(reply)
        return int.from_bytes(given, "big"), receipts_of(numbers)

    async def _run(self, batch: Sequence[Change], epoch: int) -> Any:
        names, packer = self._names, self._packer
        keys = [names.control, names.log, names.floors, names.marks[0], names.nothing]
        stores_nothing = not any(isinstance(change, Put) for change in batch)
        arguments: list[Argument] = [
            epoch.to_bytes(EPOCH_BYTES, "big"),
            packer.message_head,
            packer.time_stamp(),
            str(KEPT_NOTICES),
            "1" if stores_nothing else "0",
        ]
        for change in batch:
            key, meta, name, value, _ = packer.packed(change)
            keys.append(key)
            arguments += (meta, name, value)
        return await COMMIT.run(self._server.call_once, keys, arguments)


def _key_name(change: Put | Remove | Drop) -> bytes:
    scope = change.address.scope
    return notice_name(Notice(Kind.KEY, scope.namespace, scope.owner, change.address.key))

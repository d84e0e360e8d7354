"""Changes on their way to a cluster, in rounds of three steps: prepare on the keys' nodes, tell the log, finish.

A round has at most one change of a key, so that the changes of one key keep their order.
"""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from genesis_cache.tiers.base import Change, Kill, Receipt
from genesis_cache.tiers.redis.cluster import Cluster, SlotServer
from genesis_cache.tiers.redis.cluster_log import ClusterLog
from genesis_cache.tiers.redis.cluster_scripts import FINISH, PREPARE, TELL
from genesis_cache.tiers.redis.commits import (
    EPOCH_BYTES,
    KEPT_NOTICES,
    Line,
    Packer,
    cut,
    receipts_of,
    without_values,
)
from genesis_cache.tiers.redis.names import Names, slot_of
from genesis_cache.tiers.redis.outage import ReplyError
from genesis_cache.tiers.redis.scripts import Argument, Script
from genesis_cache.tiers.remote_base import Committed, Outage

_ATTEMPTS = 3  # where the log is made anew in the middle of a round
_REFUSED = -1

Call = tuple[list[bytes], list[Argument]]
"""The keys and arguments of a script call."""


class ClusterCommits:
    """Commits to a cluster."""

    __slots__ = ("_bytes", "_cluster", "_entries", "_epoch", "_log", "_names", "_note_ms", "_packer", "_server")

    def __init__(
        self, cluster: Cluster, server: SlotServer, names: Names, packer: Packer, log: ClusterLog, note_s: float
    ) -> None:
        self._cluster = cluster
        self._server = server
        self._names = names
        self._packer = packer
        self._log = log
        self._note_ms = str(int(note_s * 1000))
        self._epoch: bytes | None = None
        self._entries = self._bytes = 0  # what has become more or fewer, and is not in the books yet

    async def commit(self, changes: Sequence[Change], epoch: int) -> Committed:
        """As `RemoteStore.commit`."""
        receipts: list[Receipt] = []
        for batch in rounds(changes):
            receipts += receipts_of(await self._round(batch, epoch))
        of_log = epoch if self._epoch is None else int.from_bytes(self._epoch, "big")
        return Committed(of_log, receipts)

    def moves(self) -> tuple[int, int]:
        """What has become more or fewer of entries and bytes since it was asked last."""
        moved = self._entries, self._bytes
        self._entries = self._bytes = 0
        return moved

    async def _round(self, batch: Sequence[Change], epoch: int) -> list[int]:
        for _ in range(_ATTEMPTS):
            if self._epoch is None:
                self._epoch = (await self._log.make()).epoch.to_bytes(EPOCH_BYTES, "big")
            try:
                numbers = await self._try(batch, epoch, self._epoch)
            except ReplyError as error:
                if error.code == "OOM" and (left := without_values(batch)):
                    await self._try(left, epoch, self._epoch)
                self._server.checked(error)
            if numbers is not None:
                return numbers
            self._epoch = None  # the log is another one: what was prepared is missing, and is done again
        raise Outage(f"The Redis cluster at {self._server.shown} loses what it is given: do its nodes restart?")

    async def _try(self, batch: Sequence[Change], known: int, epoch: bytes) -> list[int] | None:
        """The receipts of a round, None where the log is another one; `ReplyError` where a node refuses."""
        token = secrets.token_bytes(16)
        lines = [self._packer.packed(change) for change in batch]
        refused = await self._prepare(lines, token, epoch)
        if refused is None:
            return None
        told = [n for n, line in enumerate(lines) if line.takes_sequence and n not in refused]
        seqs = dict.fromkeys(range(len(lines)), 0) | dict.fromkeys(refused, _REFUSED)
        if told:
            last = await self._tell([lines[n] for n in told], epoch)
            if last is None:
                return None
            seqs |= {n: last - len(told) + place for place, n in enumerate(told, start=1)}
        left = [n for n, line in enumerate(lines) if line.digest is not None and n not in refused]
        is_known = known == int.from_bytes(epoch, "big")
        unfilled = await self._finish([(n, lines[n].with_seq(seqs[n])) for n in left], token, epoch, is_known=is_known)
        if unfilled is None:
            return None
        return [_REFUSED if n in unfilled else seqs[n] for n in range(len(lines))]

    # -- the steps ----------------------------------------------------------------------------------------------

    async def _prepare(self, lines: Sequence[Line], token: bytes, epoch: bytes) -> set[int] | None:
        """Which changes are refused because of their version; None where the log is another one."""
        calls: dict[int, Call] = {}
        places: dict[int, list[int]] = {}
        for number, line in enumerate(lines):
            if line.digest is None or not line.takes_sequence:
                continue
            shard = self._names.shard_of(line.digest)
            keys, arguments = calls.setdefault(shard, ([self._names.marks[shard]], [epoch, token, self._note_ms]))
            keys += (line.key, self._names.note_of(line.digest))
            arguments += (*line.version, "1" if line.value else "0")
            places.setdefault(shard, []).append(number)
        replies = await self._each(PREPARE, calls)
        if None in replies.values():
            return None
        freed = {n: size for shard in places for n, size in zip(places[shard], replies[shard], strict=True)}
        for size in freed.values():
            self._count(max(size, 0), 0)
        return {n for n, size in freed.items() if size == _REFUSED}

    async def _tell(self, lines: Sequence[Line], epoch: bytes) -> int | None:
        """The sequence of the last notice; None where the log is another one."""
        names, packer = self._names, self._packer
        entries, size = self.moves()
        arguments: list[Argument] = [
            epoch, packer.message_head, packer.time_stamp(), str(KEPT_NOTICES), str(entries), str(size),
        ]  # fmt: skip
        for line in lines:
            arguments += (str(line.op), line.name)
        keys = [names.control, names.log, names.floors, names.nothing]
        last: int | None = await self._server.run(TELL, keys, arguments)
        return last

    async def _finish(
        self, lines: Sequence[tuple[int, Line]], token: bytes, epoch: bytes, *, is_known: bool
    ) -> set[int] | None:
        """Which fills are refused; None where the log is another one."""
        calls: dict[int, Call] = {}
        places: dict[int, list[int]] = {}
        for number, line in lines:
            assert line.digest is not None  # noqa: S101  # kills were left out
            shard = self._names.shard_of(line.digest)
            first: Call = ([self._names.marks[shard]], [epoch, "1" if is_known else "0", token])
            keys, arguments = calls.setdefault(shard, first)
            keys += (line.key, self._names.note_of(line.digest))
            arguments += (line.meta, line.value)
            places.setdefault(shard, []).append(number)
        replies = await self._each(FINISH, calls)
        if None in replies.values():
            return None
        refused = set()
        for shard, numbers in places.items():
            sizes = replies[shard]
            for number, old, new in zip(numbers, sizes[::2], sizes[1::2], strict=True):
                if new == _REFUSED:
                    refused.add(number)
                else:
                    self._count(old, new)
        return refused

    async def _each(self, script: Script, calls: dict[int, Call]) -> dict[int, Any]:
        """A script's replies by shard, from all of them at the same time."""
        slots = {shard: slot_of(keys[0]) for shard, (keys, _) in calls.items()}
        packed = [(slots[shard], script.packed(*call)) for shard, call in calls.items()]
        replies = dict(zip(calls, await self._cluster.batch(packed), strict=True)) if packed else {}
        for shard, reply in replies.items():
            if isinstance(reply, ReplyError) and reply.code == "NOSCRIPT":
                request = script.packed(*calls[shard], whole=True)
                replies[shard] = await self._cluster.call_once(request, slots[shard])
        for reply in replies.values():
            if isinstance(reply, ReplyError):
                raise reply
        return replies

    def _count(self, old: int, new: int) -> None:
        self._entries += (new > 0) - (old > 0)
        self._bytes += new - old


def rounds(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Batches in which no key comes twice."""
    for batch in cut(changes):
        part: list[Change] = []
        seen: set[bytes] = set()
        for change in batch:
            if not isinstance(change, Kill):
                if change.address.digest in seen:
                    yield part
                    part, seen = [], set()
                seen.add(change.address.digest)
            part.append(change)
        yield part

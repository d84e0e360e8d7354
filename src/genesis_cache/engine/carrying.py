"""Carrying: a value that outlived the log it was made under is believed by the books of the tier that kept it.

Where Redis lost its memory, its log begins anew, and nobody can say what became of the tags and namespaces of older
values. A database beside it is told of every kill before Redis is, so that its own books say so: read in one step with
the value, they judge it as of that moment, and from then on it counts as made under the new log.
"""

from collections.abc import Callable, Sequence

import msgspec

from genesis_cache.coherence.floors import Floors
from genesis_cache.engine.core import Core, Lane, View
from genesis_cache.model.entry import Record
from genesis_cache.model.errors import SerializationError
from genesis_cache.model.keys import Address
from genesis_cache.model.notice import Notice
from genesis_cache.tiers.base import Buffer, Keeper

Accept = Callable[..., Record | None]
"""As `Reading.accept`."""


class Carrying:
    """Takes values of an older log over into the present one."""

    def __init__(self, core: Core, accept: Accept) -> None:
        self._core = core
        self._accept = accept

    async def accepted(
        self, view: View, lane: Lane, answer: Buffer | None, address: Address, *, sensitive: bool = False
    ) -> tuple[Record | None, Buffer | None]:
        """The record in an answer, as `Reading.accept` judges it, of an older log too; and the envelope it is from."""
        record = self._accept(view, lane, answer, address, sensitive=sensitive)
        if record is None and answer is not None and lane in self._core.keepers:
            answer = await self._carried(view, lane, address, answer)
            record = self._accept(view, lane, answer, address, sensitive=sensitive)
        return record, answer

    async def _carried(self, view: View, lane: Lane, address: Address, envelope: Buffer) -> Buffer | None:
        """The value that a tier keeps as one of the present log; None where it is not of another one, or is dead.

        The log's sequence is read first: whatever the log has given by then, the tier had been told before.
        """
        core, tier = self._core, lane.tier
        known = core.codec.decode(envelope, address)
        if known is None or known.epoch == core.log_epoch or core.is_cut_off or not isinstance(tier, Keeper):
            return None
        epoch, seq, generation = core.log_epoch, core.floors.given, core.floors.generation
        kept = await tier.kept(address)
        if kept is None or lane.owed or (core.log_epoch, core.floors.generation) != (epoch, generation):
            return None
        record = core.codec.decode(kept.envelope, address)
        if record is None or record.epoch == epoch:  # somebody has written it anew meanwhile
            return kept.envelope
        return None if _is_dead(view, record, kept.kills) else self._renewed(record, epoch, seq)

    def _renewed(self, record: Record, epoch: int, seq: int) -> bytes | None:
        try:
            return self._core.envelope(msgspec.structs.replace(record, epoch=epoch, seq=seq))
        except SerializationError:
            return None


def _is_dead(view: View, record: Record, kills: Sequence[Notice]) -> bool:
    """Whether one of the kills, which are all younger, names the record."""
    books = Floors()
    for notice in kills:
        books.apply(msgspec.structs.replace(notice, seq=1))
    return bool(books.killer(view.reach, record.address.key, record.tags, 0))

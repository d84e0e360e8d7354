"""A batch of changes as one statement's arguments, and its receipts out of the answer: no database, no clock."""

from collections.abc import Iterator, Sequence

from genesis_cache.model.keys import Address
from genesis_cache.model.notice import Kind, Notice
from genesis_cache.tiers.base import Change, Drop, Kill, Put, Receipt, Remove
from genesis_cache.tiers.wire import notice_name, pack_notices

MAX_CHANGES = 1000
MAX_BYTES = 8 * 2**20
MAX_ENVELOPE = 2**28  # bytes; a row of PostgreSQL can hold 1 GiB, and a message to it too

SET, FILL, REMOVE, DROP, VOID_FILL = range(5)

_WHOLE = notice_name(Notice(Kind.CLEAR, "", None, ""))
_DONE = Receipt()
_OUTDATED = Receipt(refused=True)

CLEAR_ALL = _WHOLE
"""What a notice that kills everything is called."""


class Batch:
    """Changes of one transaction, in columns. No address has two of them that touch its row."""

    __slots__ = (
        "_guarded", "_last", "_lines", "_origin", "_run", "cleared", "copies", "counts", "digests", "envelopes",
        "evicted", "floors", "gone", "guards", "lasts", "messages", "offsets", "ops", "priorities", "since", "sizes",
        "takes_away", "told", "versions",
    )  # fmt: skip

    def __init__(self, origin: int) -> None:
        self._origin = origin
        self.ops: list[int] = []
        self.digests: list[bytes] = []
        self.envelopes: list[bytes | None] = []
        self.sizes: list[int] = []
        self.gone: list[float | None] = []
        self.since: list[int | None] = []
        self.versions: list[int | None] = []
        self.priorities: list[int] = []
        self.copies: list[bool] = []
        self.offsets: list[int] = []
        self.messages: list[bytes] = []
        self.lasts: list[int] = []
        self.guards: list[int] = []
        self.floors: dict[bytes, int] = {}
        self.told = 0
        """How many notices there are, if nothing is refused."""
        self.cleared = 0
        """Which of them, from 1, is the last that kills everything."""
        self.evicted = 0
        """Sets whose envelope is too large to be kept."""
        self.takes_away = False
        self._run: list[Notice] = []
        """Notices of the message under way."""
        self._lines: list[tuple[int, int]] = []
        """For each change: its place among the notices and among the rows, from 1; 0 for none."""

    def add(self, change: Change, now: float, widest: int, *, superseded: bool) -> None:
        """One more change; ``superseded`` if a later one of this batch leaves nothing of it but the notice."""
        if isinstance(change, Kill):
            self._kill(change.notice)
        elif superseded:
            self._tell(_key_notice(change.address))
            self._lines.append((self.told, 0))
        elif isinstance(change, Put):
            self._put(change, is_kept=change.gone_at > now and len(change.envelope) <= widest, now=now)
        else:
            is_told = isinstance(change, Remove)
            if is_told:
                self._tell(_key_notice(change.address))
            self._row(REMOVE if is_told else DROP, change.address, None)
            self._lines.append((self.told if is_told else 0, len(self.ops)))

    def _put(self, put: Put, *, is_kept: bool, now: float) -> None:
        self.evicted += not is_kept and put.gone_at > now
        if put.since is not None:
            self._row(FILL if is_kept else VOID_FILL, put.address, put)
            self._lines.append((0, len(self.ops)))
            return
        self._tell(_key_notice(put.address), guard=0 if put.version is None else len(self.ops) + 1)
        self._row(SET if is_kept else REMOVE, put.address, put)
        self._lines.append((self.told, len(self.ops)))

    def _row(self, op: int, address: Address, put: Put | None) -> None:
        is_kept = put is not None and op in (SET, FILL)
        self.ops.append(op)
        self.digests.append(address.digest)
        self.envelopes.append(put.envelope if put is not None and is_kept else None)
        self.sizes.append(len(put.envelope) if put is not None and is_kept else 0)
        self.gone.append(put.gone_at if put is not None and is_kept else None)
        self.since.append(None if put is None else put.since)
        self.versions.append(None if put is None else put.version)
        self.priorities.append(1 if put is None else int(put.priority))
        self.copies.append(put is not None and put.is_copy)
        self.offsets.append(self.told if op in (SET, REMOVE) else 0)
        self.takes_away = self.takes_away or op >= DROP

    def _kill(self, notice: Notice) -> None:
        self._tell(notice)
        if notice.kind is Kind.KEY:
            self._lines.append((self.told, 0))
            return
        name = notice_name(notice)
        self.floors[name] = self.told
        if name == CLEAR_ALL:
            self.cleared = self.told
        self._lines.append((self.told, 0))

    def _tell(self, notice: Notice, guard: int = 0) -> None:
        """Put a notice behind the others; one that may be refused, or is of another origin, is a message of its own."""
        if guard or (self._run and (self._run[0].origin or self._origin) != (notice.origin or self._origin)):
            self._end_message()
        self._run.append(notice)
        self.told += 1
        if guard:
            self._end_message(guard)

    def _end_message(self, guard: int = 0) -> None:
        if self._run:
            self.messages.append(pack_notices(self._run, self._run[0].origin or self._origin))
            self.lasts.append(self.told)
            self.guards.append(guard)
            self._run = []

    def arguments(self) -> tuple[object, ...]:
        """What the function ``apply`` takes, from ``p_ops`` on."""
        self._end_message()
        return (
            self.ops, self.digests, self.envelopes, self.sizes, self.gone, self.since, self.versions, self.priorities,
            self.copies, self.offsets, self.takes_away, self.evicted, self.messages, self.lasts, self.guards,
            list(self.floors), list(self.floors.values()), self.told, self.cleared,
        )  # fmt: skip

    def receipts(self, seq: int, refused: Sequence[int]) -> list[Receipt]:
        """The receipts, from the sequence before the batch and the rows, from 1, that were refused."""
        if not refused:
            return [Receipt(seq + told) if told else _DONE for told, _ in self._lines]
        receipts = []
        without = set(refused)
        for told, row in self._lines:
            if row in without:
                seq -= told > 0
                receipts.append(_OUTDATED)
            else:
                receipts.append(Receipt(seq + told) if told else _DONE)
        return receipts


def batches(changes: Sequence[Change], now: float, origin: int, widest: int = MAX_ENVELOPE) -> Iterator[Batch]:
    """Changes in order, cut so that each batch is one transaction of bounded size in which no two rows are one."""
    for part in _parts(changes):
        superseded = _superseded(part)
        batch = Batch(origin)
        for index, change in enumerate(part):
            batch.add(change, now, widest, superseded=index in superseded)
        yield batch


def _parts(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """Cut where a batch is full, and where a change depends on what an earlier one of the same key has left."""
    start = size = 0
    last: dict[bytes, bool] = {}
    for index, change in enumerate(changes):
        added = len(change.envelope) if isinstance(change, Put) else 0
        digest = None if isinstance(change, Kill) else change.address.digest
        is_plain = _is_plain(change)
        meets = digest is not None and digest in last and not (is_plain and last[digest])
        if meets or index - start >= MAX_CHANGES or (size + added > MAX_BYTES and index > start):
            yield changes[start:index]
            start, size = index, 0
            last.clear()
        size += added
        if digest is not None:
            last[digest] = is_plain
    if start < len(changes):
        yield changes[start:]


def _is_plain(change: Change) -> bool:
    """Whether it takes effect whatever is stored, and is told."""
    return isinstance(change, Remove) or (isinstance(change, Put) and change.since is None and change.version is None)


def _superseded(changes: Sequence[Change]) -> set[int]:
    """Changes that a later one of the same key leaves nothing of: all but the last of a key, after the cut above."""
    last: dict[bytes, int] = {}
    superseded = set()
    for index, change in enumerate(changes):
        if not isinstance(change, Kill | Drop):
            digest = change.address.digest
            if digest in last:
                superseded.add(last[digest])
            last[digest] = index
    return superseded


def _key_notice(address: Address) -> Notice:
    return Notice(Kind.KEY, address.scope.namespace, address.scope.owner, address.key)

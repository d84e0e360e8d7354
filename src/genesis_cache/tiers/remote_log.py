"""This process's copy of a server's invalidation log: where it stands, what was heard of late, and since when.

One thread hears (`joined`, `heard`, `lost`), all others look; the looks that every hit may take are plain attributes.
"""

import threading
from collections import deque
from collections.abc import Sequence
from itertools import takewhile

from genesis_cache.model.notice import Kind, Notice, Position
from genesis_cache.tiers.base import Receipt
from genesis_cache.tiers.remote_base import Committed, Joined

MAX_NOTICES = 65_536
"""Notices kept; who has not looked for longer has to forget all."""


class RemoteLog:
    """The log as this process knows it."""

    def __init__(self) -> None:
        self.known: Position | None = None
        """The log's end as last heard; None before the first join."""
        self.is_heard = False
        """Whether it is being followed at the moment."""
        self.heard_at: float | None = None
        """When the last request was sent whose answer proved that nothing is missing here; monotonic seconds."""
        self.believed = 0
        """The epoch that those who use the log have last been told; 0 while they have been told none."""
        self._base = 0  # the notices kept are all those after this sequence
        self._notices: deque[Notice] = deque()
        self._floors: list[Notice] = []
        self._given = 0  # the highest sequence that a receipt of this epoch had
        self._guard = threading.Lock()

    # -- looking ------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Which log changes are for: the one that its users know, so that a fill begun in an older one is refused."""
        return self.believed or (0 if self.known is None else self.known.epoch)

    @property
    def is_told(self) -> bool:
        """Whether those who use the log know which one it is; until then its server's values cannot be judged."""
        believed, known = self.believed, self.known
        return not believed or known is None or known.epoch == believed

    def seq(self) -> int:
        """The highest sequence of this epoch that was heard or receipted; 0 while none is known."""
        known = self.known
        return 0 if known is None else max(known.seq, self._given)

    def notices(self, after: Position) -> list[Notice] | None:
        """Notices after a position in order; None where that is another log, or is too long ago."""
        with self._guard:
            position = self.known
            if position is None or position.epoch != after.epoch or not self._base <= after.seq <= position.seq:
                return None
            late = list(takewhile(lambda notice: notice.seq > after.seq, reversed(self._notices)))
        late.reverse()
        return late

    def floors(self) -> list[Notice]:
        """The TAG, PATTERN and CLEAR notices that may still matter."""
        with self._guard:
            floors = list(self._floors)
            floors += [notice for notice in self._notices if notice.kind is not Kind.KEY]
        return floors

    # -- hearing ------------------------------------------------------------------------------------------------

    def joined(self, joined: Joined, sent_at: float, *, is_gapless: bool) -> bool:
        """The log as it stands. True if it is another one, so that nothing heard before counts.

        ``is_gapless``: what was missed since the known position can still be followed; else it is given up.
        """
        with self._guard:
            known = self.known
            is_same = known is not None and known.epoch == joined.position.epoch
            if is_same and is_gapless and known is not None and known.seq <= joined.position.seq:
                self.is_heard = True
                return False
            if not is_same:
                self._given = 0
            self.known = joined.position
            self.is_heard = True
            self._base = joined.position.seq
            self._notices.clear()
            self._floors = joined.floors
            self.heard_at = sent_at
            return True

    def heard(self, news: Sequence[Notice], sent_at: float) -> None:
        """All that there was after the known position at the moment of sending, and perhaps more."""
        with self._guard:
            if news and self.known is not None:
                self._notices.extend(news)
                while len(self._notices) > MAX_NOTICES:
                    self._forget_oldest()
                self.known = Position(self.known.epoch, news[-1].seq)
            self.heard_at = sent_at  # last, so that nobody finds a proof of what is not here yet

    def _forget_oldest(self) -> None:
        notice = self._notices.popleft()
        self._base = notice.seq
        if notice.kind is not Kind.KEY:
            self._floors.append(notice)

    def lost(self) -> None:
        """Nothing is heard any longer."""
        self.is_heard = False

    def receipted(self, committed: Committed) -> bool:
        """Sequences that a commit of this process took; False if they are of another log than is known here."""
        with self._guard:
            if self.known is None or committed.epoch != self.known.epoch:
                return False
            self._given = max(self._given, highest(committed.receipts))
            return True

    def check(self) -> list[str]:
        """A sentence for each fault in these books."""
        with self._guard:
            seqs = [notice.seq for notice in self._notices]
            known = self.known
        faults = []
        if seqs != sorted(set(seqs)):
            faults.append("the notices heard are not in the order of their sequences")
        if seqs and known is not None and seqs[-1] != known.seq:
            faults.append(f"the last notice heard has the sequence {seqs[-1]}, the log is said to stand at {known.seq}")
        return faults


def highest(receipts: Sequence[Receipt]) -> int:
    """The highest sequence among receipts; 0 where there is none."""
    return max((receipt.seq for receipt in receipts), default=0)

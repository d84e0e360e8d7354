"""Which servers a log was joined on, as all stores of one process know it, and whether others have taken their place.

A server that was set back shows records and books as they once were, and nothing in them tells it. Who it is does: its
run id changes with each start, its replication id with each change of the primary. So each connection shows who is at
its other end, and is used only if that is whom the log was joined on.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from genesis_cache.tiers.redis.outage import Replaced, ReplyError

Who = tuple[str, str]
"""The run id and the replication id of a server."""


class Known:
    """What the stores of one factory share, on whatever event loop or thread; each attribute is replaced as a whole."""

    __slots__ = ("_servers", "is_doubted", "turn")

    def __init__(self) -> None:
        self._servers: frozenset[Who] | None = None
        self.is_doubted = False
        """Whether somebody met another server: until the log has been joined again, nothing is read or changed."""
        self.turn = object()
        """Another object whenever connections that were made before are not to be used without a look."""

    def note(self, servers: frozenset[Who]) -> None:
        """These are the servers that the log has been joined on."""
        if servers != self._servers:
            self._servers = servers
            self.turn = object()
        self.is_doubted = False

    def admit(self, who: Who) -> object:
        """The present turn, for a connection to such a server; `Replaced` where the log was joined on others."""
        turn, servers = self.turn, self._servers
        if servers is not None and who not in servers:
            self.is_doubted = True
            self.turn = object()
            raise Replaced
        return turn


def who_of(replies: Sequence[Any]) -> Who:
    """Who a server is by its answers to INFO server and INFO replication; an error reply is raised."""
    info = info_of(replies[0]) | info_of(replies[1])
    return info.get("run_id", ""), info.get("master_replid", "")


def identity_of(servers: Iterable[Who]) -> tuple[bytes, bytes]:
    """The run ids and the replication ids of servers, as the books have them."""
    runs, replications = zip(*servers, strict=True)
    return " ".join(sorted(runs)).encode(), " ".join(sorted(replications)).encode()


def info_of(reply: Any) -> dict[str, str]:
    """The fields of an INFO reply; an error reply is raised."""
    if isinstance(reply, ReplyError):
        raise reply
    lines = bytes(reply).decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)

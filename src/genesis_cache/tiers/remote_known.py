"""Which servers a log was joined on, as all stores of one process know it, and whether others have taken their place.

A server that was set back shows records and books as they once were, and nothing in them tells it. Who it is does: each
start makes it another. So each connection shows who is at its other end, and is used only if that is whom the log was
joined on.
"""

from collections.abc import Hashable


class Replaced(ConnectionError):
    """The server is not the one that the log was joined on."""

    def __init__(self) -> None:
        super().__init__("was restarted or replaced: its log has to be joined first")


class Known:
    """What the stores of one factory share, on whatever event loop or thread; each attribute is replaced as a whole."""

    __slots__ = ("_servers", "is_doubted", "turn")

    def __init__(self) -> None:
        self._servers: frozenset[Hashable] | None = None
        self.is_doubted = False
        """Whether somebody met another server: until the log has been joined again, nothing is read or changed."""
        self.turn = object()
        """Another object whenever connections that were made before are not to be used without a look."""

    def note(self, servers: frozenset[Hashable]) -> None:
        """These are the servers that the log has been joined on."""
        if servers != self._servers:
            self._servers = servers
            self.turn = object()
        self.is_doubted = False

    def admit(self, who: Hashable) -> object:
        """The present turn, for a connection to such a server; `Replaced` where the log was joined on others."""
        turn, servers = self.turn, self._servers
        if servers is not None and who not in servers:
            self.is_doubted = True
            self.turn = object()
            raise Replaced
        return turn

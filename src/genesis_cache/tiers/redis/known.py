"""Who a Redis server is: its run id changes with each start, its replication id with each change of the primary."""

from collections.abc import Iterable, Sequence
from typing import Any

from genesis_cache.tiers.redis.outage import ReplyError

Who = tuple[str, str]
"""The run id and the replication id of a server."""


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

"""The books on a server against what is stored there: every key of a cache looked at, and every envelope."""

from collections.abc import Sequence

from genesis_cache.codecs.envelope import MAGIC, intact, matches
from genesis_cache.tiers.base import Found
from genesis_cache.tiers.redis.connection import pack
from genesis_cache.tiers.redis.names import DIGEST_BYTES, Names
from genesis_cache.tiers.redis.outage import ReplyError
from genesis_cache.tiers.redis.server import Endpoint, Server
from genesis_cache.tiers.redis.sweeping import Nodes, Walk

HEAD_BYTES = 8
_FIELDS = ("epoch", "seq", "start", "run", "replication", "floors", "entries", "bytes")
_FOREVER = -1
_READ_AT_ONCE = 50  # whole envelopes
_USED_AFTER_S = 2  # seconds: idle times are whole ones


async def check(server: Endpoint, nodes: Nodes, names: Names) -> list[str]:
    """As `RemoteStore.check`."""
    faults = await _check_books(server, names)
    walk = Walk(await nodes(), names)
    while not walk.is_over:
        keys = await walk.step(_READ_AT_ONCE)
        replies = await walk.node.batch([pack((verb, key)) for key in keys for verb in ("GET", "PTTL")]) if keys else []
        for key, value, left_ms in zip(keys, replies[::2], replies[1::2], strict=True):
            fault = _fault_of(key, value, left_ms)
            if fault:
                faults.append(f"the value {key.hex()} {fault}")
    return faults


async def scan(nodes: Sequence[Server], names: Names, limit: int) -> list[Found]:
    """As `RemoteStore.scan`."""
    found: list[Found] = []
    walk = Walk(nodes, names)
    while not walk.is_over and len(found) < limit:
        keys = await walk.step(min(limit, _READ_AT_ONCE))
        if not keys:
            continue
        idle = await walk.node.batch([pack(("OBJECT", "IDLETIME", key)) for key in keys])
        values = await walk.node.batch([pack(("GET", key)) for key in keys])
        found += [
            Found(bytes(value[HEAD_BYTES:]), isinstance(seconds, int) and seconds < _USED_AFTER_S)
            for value, seconds in zip(values, idle, strict=True)
            if isinstance(value, bytes)
        ]
    return found[:limit]


async def _check_books(server: Endpoint, names: Names) -> list[str]:
    asked = [("HMGET", names.control, *_FIELDS), ("HLEN", names.floors), ("XINFO", "STREAM", names.log)]
    fields, floors, log = await server.batch([pack(words) for words in asked])
    books = dict(zip(_FIELDS, server.checked(fields), strict=True))
    if all(value is None for value in books.values()):
        return []  # nobody has begun yet
    if missing := [name for name, value in books.items() if value is None]:
        return [f"the books have no {', '.join(missing)}"]
    faults = []
    seq = int(books["seq"])
    last = int(books["start"]) if isinstance(log, ReplyError) else int(log[b"last-generated-id"].partition(b"-")[0])
    if last != seq:
        faults.append(f"the log ends at {last}, but the last sequence given is {seq}")
    if int(books["floors"]) != server.checked(floors):
        faults.append(f"{floors} floors are there, but the books say {int(books['floors'])}")
    for marks_key in names.marks if names.shards == 1 else ():
        size = server.checked(await server.read(pack(("STRLEN", marks_key))))
        if size != names.marks_bytes:
            faults.append(f"the marks have {size} bytes instead of {names.marks_bytes}")
    return faults


def _fault_of(key: bytes, value: object, left_ms: object) -> str | None:
    if isinstance(value, ReplyError) or value is None:
        return None if value is None else f"cannot be read: {value}"
    if not isinstance(value, bytes) or len(value) < HEAD_BYTES:
        return "is too short to be one"
    if left_ms == _FOREVER:
        return "has no time to live"
    envelope = memoryview(value)[HEAD_BYTES:]
    if envelope[: len(MAGIC)] == MAGIC and not intact(envelope):
        return "is damaged"
    if envelope[: len(MAGIC)] == MAGIC and not matches(envelope, key[-DIGEST_BYTES:]):
        return "belongs to another key"
    return None

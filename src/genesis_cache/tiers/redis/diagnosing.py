"""What an operator should know of a Redis server: each thing examined, judged, and told with its remedy."""

import time
from collections.abc import Mapping, Sequence
from statistics import median

from genesis_cache.model.clock import Clock
from genesis_cache.model.finding import Finding, Severity
from genesis_cache.tiers.redis.connection import pack
from genesis_cache.tiers.redis.known import info_of
from genesis_cache.tiers.redis.names import Names
from genesis_cache.tiers.redis.outage import LEAST_VERSION, ReplyError
from genesis_cache.tiers.redis.server import Server
from genesis_cache.tiers.redis.sweeping import Nodes

_PINGS = 21
_SLOW_S = 0.005  # a round trip on which a cache is hardly worth its name
_FULL_SHARE = 0.9
_CROWDED_SHARE = 0.8
_SKEW_S = 2.0
_SHORT_IDLE_S = 60

_ASK = [pack(("INFO",)), pack(("TIME",)), pack(("CONFIG", "GET", "timeout")), pack(("CLUSTER", "INFO"))]


async def diagnose(nodes: Nodes, names: Names, clock: Clock) -> list[Finding]:
    """As `RemoteStore.diagnose`: of a cluster, every node that has slots."""
    found: list[Finding] = []
    for server in await nodes():
        told, timed, idle, cluster = await server.batch(_ASK)
        info = info_of(server.checked(told))
        where = f"Redis at {server.shown}"
        found += [_version(info, where), _role(info, where), _memory(info, where), *_evictions(info, where)]
        found += [_persistence(info, where), _clients(info, where, server.pool_size)]
        if not isinstance(timed, ReplyError):
            found.append(_clock(int(timed[0]) + int(timed[1]) / 1e6 - clock.wall(), where))
        if not isinstance(idle, ReplyError):
            found += _idle(int(idle.get(b"timeout", b"0")), where)
        if info.get("cluster_enabled") == "1" and not isinstance(cluster, ReplyError):
            found.append(_cluster(info_of(cluster), where))
        found += [await _latency(server, where), await _permissions(server, names, where)]
    return found


def _finding(what: str, severity: Severity, sentence: str, fix: str = "") -> Finding:
    return Finding(f"redis: {what}", severity, sentence, fix)


def _version(info: Mapping[str, str], where: str) -> Finding:
    version = info.get("valkey_version") or info.get("redis_version", "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    name = "Valkey" if "valkey_version" in info else "Redis"
    if numbers < LEAST_VERSION:
        return _finding(
            "version", Severity.FAULT, f"{where} is {name} {version}.", "Use Redis 6.2 or newer, or Valkey."
        )
    return _finding("version", Severity.OK, f"{where} is {name} {version}.")


def _role(info: Mapping[str, str], where: str) -> Finding:
    role = info.get("role", "unknown")
    if role != "master":
        return _finding("role", Severity.FAULT, f"{where} is a {role}.", "Name the primary in REDIS_URL, or Sentinels.")
    return _finding("role", Severity.OK, f"{where} is a primary with {info.get('connected_slaves', '0')} replicas.")


def _memory(info: Mapping[str, str], where: str) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = info.get("maxmemory_policy", "noeviction")
    if limit == 0:
        sentence = f"{where} uses {_mb(used)} and has no maxmemory: the cache keeps within its own bound."
        return _finding("memory", Severity.OK, sentence)
    sentence = f"{where} uses {_mb(used)} of {_mb(limit)} (maxmemory), and at the limit follows {policy}."
    if policy == "noeviction" and used > _FULL_SHARE * limit:
        fix = "Raise maxmemory, or set maxmemory-policy volatile-ttl: a full server takes no values."
        return _finding("memory", Severity.FAULT, sentence, fix)
    if policy.startswith("allkeys"):
        fix = (
            "Set maxmemory-policy volatile-ttl: this one may take the cache's own books, "
            "after which every process has to forget all that it holds."
        )
        return _finding("memory", Severity.ADVICE, sentence, fix)
    return _finding("memory", Severity.OK, sentence)


def _evictions(info: Mapping[str, str], where: str) -> list[Finding]:
    evicted = int(info.get("evicted_keys", 0))
    if evicted == 0:
        return []
    sentence = f"{where} has evicted {evicted} keys for want of memory since its start."
    return [_finding("evictions", Severity.ADVICE, sentence, "Raise maxmemory, or lower the tier's size in MB.")]


def _persistence(info: Mapping[str, str], where: str) -> Finding:
    kinds = [name for name, is_on in (("AOF", info.get("aof_enabled") == "1"),) if is_on]
    failed = [
        name
        for name, field in (("saving", "rdb_last_bgsave_status"), ("the AOF", "aof_last_write_status"))
        if info.get(field, "ok") != "ok"
    ]
    if failed:
        sentence = f"{where} cannot keep its data: {' and '.join(failed)} failed."
        return _finding(
            "persistence", Severity.FAULT, sentence, "See the server's log: it may refuse changes (MISCONF)."
        )
    kept = f"keeps its data by {' and '.join(kinds)}" if kinds else "keeps no AOF, which a cache can do without"
    return _finding("persistence", Severity.OK, f"{where} {kept}; after a restart every process begins anew.")


def _clients(info: Mapping[str, str], where: str, pool_size: int) -> Finding:
    connected, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 10_000))
    sentence = f"{where} has {connected} connections of at most {most}; each process takes up to {pool_size}."
    if connected > _CROWDED_SHARE * most or connected + pool_size > most:
        fix = "Raise maxclients, or lower REDIS_MAX_CONNECTIONS: it counts for each process."
        return _finding("connections", Severity.ADVICE, sentence, fix)
    return _finding("connections", Severity.OK, sentence)


def _clock(skew_s: float, where: str) -> Finding:
    sentence = f"The clock of {where} is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's."
    if abs(skew_s) > _SKEW_S:
        return _finding("clock", Severity.ADVICE, sentence, "Have both keep time by NTP: processes compare ages.")
    return _finding("clock", Severity.OK, sentence)


def _idle(timeout_s: int, where: str) -> list[Finding]:
    if not 0 < timeout_s < _SHORT_IDLE_S:
        return []
    sentence = f"{where} hangs up on connections that are idle for {timeout_s} s."
    return [_finding("idle timeout", Severity.ADVICE, sentence, "Set timeout to 0: connecting again costs time.")]


def _cluster(info: Mapping[str, str], where: str) -> Finding:
    state, slots = info.get("cluster_state", "unknown"), info.get("cluster_slots_ok", "0")
    sentence = f"{where} says that its cluster is {state}, with {slots} of 16384 slots served."
    if state != "ok":
        return _finding("cluster", Severity.FAULT, sentence, "Bring back the missing nodes, or give their slots away.")
    return _finding("cluster", Severity.OK, sentence)


async def _latency(server: Server, where: str) -> Finding:
    taken = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        server.checked(await server.read(pack(("PING",))))
        taken.append(time.perf_counter() - began)
    typical_s = median(taken)
    sentence = f"A round trip to {where} takes {typical_s * 1000:.2f} ms (median of {_PINGS})."
    if typical_s > _SLOW_S:
        return _finding("latency", Severity.ADVICE, sentence, "Run it nearer to the processes that use it.")
    return _finding("latency", Severity.OK, sentence)


async def _permissions(server: Server, names: Names, where: str) -> Finding:
    """Whether this user may run what the cache needs, tried on a key that is never there."""
    key = names.nothing
    tries: Sequence[tuple[str | bytes, ...]] = (
        ("GET", key), ("MGET", key), ("HMGET", key, "field"), ("HLEN", key), ("HINCRBY", key, "field", "none"),
        ("XREAD", "COUNT", "1", "STREAMS", key, "0-0"), ("SCAN", "0", "MATCH", key, "COUNT", "1"), ("PTTL", key),
        ("OBJECT", "IDLETIME", key), ("MEMORY", "USAGE", key), ("UNLINK", key), ("EVAL", "return 1", "1", key),
    )  # fmt: skip
    replies = await server.batch([pack(words) for words in tries])
    denied = [str(words[0]) for words, reply in zip(tries, replies, strict=True) if _is_denied(reply)]
    if denied:
        sentence = f"{where} does not let this user run {', '.join(denied)}."
        fix = f"Allow it: ACL SETUSER <user> ~genesis:* {' '.join(f'+{verb.lower()}' for verb in denied)}."
        return _finding("permissions", Severity.FAULT, sentence, fix)
    return _finding("permissions", Severity.OK, f"{where} lets this user run all that the cache needs.")


def _is_denied(reply: object) -> bool:
    return isinstance(reply, ReplyError) and (reply.code == "NOPERM" or "unknown command" in str(reply))


def _mb(size: int) -> str:
    return f"{size / 2**20:.1f} MB"

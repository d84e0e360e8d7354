"""What a server's failures mean to the owner of a cache: each becomes one plain sentence, without secrets."""

import re
import ssl

from genesis_cache.tiers.redis.place import Place
from genesis_cache.tiers.remote_base import Outage
from genesis_cache.tiers.remote_known import Replaced

LEAST_VERSION = (6, 2)


class ReplyError(Exception):
    """An error that the server answered with; its first word is the code."""

    @property
    def code(self) -> str:
        """``NOSCRIPT``, ``MOVED``, ``OOM``, ... or ``ERR``; Redis 6 wraps what a script met in an ``ERR``."""
        code = str(self).partition(" ")[0]
        inner = _WRAPPED.search(str(self)) if code == "ERR" else None
        return inner[1] if inner else code


class ConnectionLost(Exception):
    """The connection ended, or was given up, before the reply was there."""


_LONGEST_REASON = 200
_WRAPPED = re.compile(r": -([A-Z]+) ")
_SENTENCES = {
    "LOADING": "is still loading its data: it answers when that is done",
    "READONLY": "is a read-only replica: name the primary in REDIS_URL, or use redis+sentinel://",
    "MASTERDOWN": "is a replica that has lost its primary: name the primary in REDIS_URL, or use redis+sentinel://",
    "NOAUTH": "wants a password: put it into REDIS_URL (redis://user:password@host)",
    "WRONGPASS": "refuses the user or password of REDIS_URL: correct them",
    "NOPERM": "does not let this user run a command or reach its keys: allow it with ACL SETUSER",
    "OOM": "has reached its maxmemory and takes no values: raise maxmemory, or set maxmemory-policy volatile-ttl",
    "BUSY": "is busy with somebody's script: it answers when that has ended (SCRIPT KILL ends it)",
    "CLUSTERDOWN": "belongs to a cluster that is down: bring back the missing nodes",
    "MISCONF": "takes no changes because it cannot save its data: see its log",
    "NOREPLICAS": "takes no changes because too few replicas follow it (min-replicas-to-write)",
    "MOVED": "belongs to a cluster: use redis+cluster:// in REDIS_URL",
    "CROSSSLOT": "belongs to a cluster: use redis+cluster:// in REDIS_URL",
    "NOPROTO": "does not speak RESP3: Redis 6.2 or newer is needed",
    "WRONGTYPE": "holds something else under a key of this cache: delete that key, or choose another CACHE_NAME",
    "TRYAGAIN": "is moving a slot of the cluster to another node: it answers when that is done",
}


def reply_sentence(error: ReplyError, place: Place) -> str:
    """What an error reply means."""
    text = str(error)
    if "max number of clients" in text:
        meaning = "has no free connections: raise its maxclients, or lower REDIS_MAX_CONNECTIONS"
    elif "unknown command" in text and "HELLO" in text.upper():
        meaning = _SENTENCES["NOPROTO"]
    elif "invalid password" in text or "invalid username" in text:
        meaning = _SENTENCES["WRONGPASS"]
    else:
        meaning = _SENTENCES.get(error.code) or f"answered with an error: {text[:_LONGEST_REASON]}"
    return f"Redis at {place.shown} {meaning}"


def failure_sentence(error: BaseException, place: Place) -> str:
    """What a failed connection means."""
    if isinstance(error, ReplyError):
        return reply_sentence(error, place)
    return f"Redis at {place.shown} {_meaning(error)}"


def _meaning(error: BaseException) -> str:
    match error:
        case ConnectionLost() | Replaced():
            said = str(error)
        case TimeoutError():
            said = "does not answer in time: is it overloaded, or is a firewall between?"
        case ssl.SSLCertVerificationError():
            said = f"shows a certificate that is not trusted ({error.verify_message}): name its CA in ssl_ca_certs"
        case ssl.SSLError():
            said = f"cannot be talked to over TLS ({error.reason or error}): does it use TLS on this port?"
        case ConnectionRefusedError():
            said = "refuses connections: is it running, and is REDIS_URL right?"
        case OSError():
            said = f"cannot be reached: {error.strerror or error}"
        case _:
            said = f"answers in a way that is not Redis: {str(error)[:_LONGEST_REASON]}"
    return said


def outage(error: BaseException, place: Place) -> Outage:
    """A failure as what a remote store raises."""
    return error if isinstance(error, Outage) else Outage(failure_sentence(error, place))

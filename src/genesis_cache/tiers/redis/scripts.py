"""The Lua scripts that change what is stored: each does in one step what must not be seen half done.

They are fixed texts, given nothing but KEYS and ARGV. Sequences and times stay below 2**53, where Lua's numbers are
exact; versions do not, and are compared as two halves. A script that begins by deleting may go on to write on a server
that has reached its maxmemory, which is why removals, invalidations, leases and sweeps work there.
"""

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from typing import Any

from genesis_cache.tiers.redis.connection import pack
from genesis_cache.tiers.redis.outage import ReplyError

Argument = bytes | str


class Script:
    """A script's text and its name on the server."""

    __slots__ = ("_name", "_text")

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._name = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def packed(self, keys: Sequence[bytes], arguments: Sequence[Argument], *, whole: bool = False) -> bytes:
        """The command that runs it by its name, or brings the whole text."""
        head = ("EVAL", self._text) if whole else ("EVALSHA", self._name)
        return pack((*head, str(len(keys)), *keys, *arguments))

    async def run(
        self, call: Callable[[bytes], Awaitable[Any]], keys: Sequence[bytes], arguments: Sequence[Argument]
    ) -> Any:
        """Its reply; a server that does not know it, or no longer, is given the text."""
        reply = await call(self.packed(keys, arguments))
        if isinstance(reply, ReplyError) and reply.code == "NOSCRIPT":
            reply = await call(self.packed(keys, arguments, whole=True))
        return reply


JOIN = Script("""
-- KEYS control, log, floors and, where they are on this server, the marks. ARGV run id, replication id, known epoch,
-- known sequence, a new epoch, where a new log may begin, bytes of the marks, and what to do about a log that is not
-- sound: make a new one (''), say so ('look'), or make one whatever is there ('renew').
local control, log, floors, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local books = redis.call('HMGET', control, 'epoch', 'seq', 'start', 'run', 'replication', 'floors', 'cleared')
local epoch, seq, start = books[1], tonumber(books[2]), tonumber(books[3])
local size = tonumber(ARGV[7])
local sound = ARGV[8] ~= 'renew' and epoch and seq and start and books[4] == ARGV[1] and books[5] == ARGV[2]
    and tonumber(books[6]) == redis.call('HLEN', floors)
    and (not marks or (redis.call('STRLEN', marks) == size and redis.call('GETRANGE', marks, 0, 7) == epoch))
    and not (epoch == ARGV[3] and seq < tonumber(ARGV[4]))
if sound and seq > start then
    sound = false
    local told = redis.call('EXISTS', log) == 1 and redis.call('XINFO', 'STREAM', log) or {}
    for i = 1, #told, 2 do
        sound = sound or (told[i] == 'last-generated-id' and told[i + 1] == string.format('%.0f-0', seq))
    end
end
if not sound and ARGV[8] == 'look' then
    return false
elseif not sound then
    epoch, seq = ARGV[5], math.max(seq or 0, tonumber(ARGV[4]), tonumber(ARGV[6]))
    local text = string.format('%.0f', seq)
    redis.call('UNLINK', log, floors)
    if marks then
        redis.call('UNLINK', marks)
        redis.call('SETRANGE', marks, size - 8, string.rep('\\0', 8))
        redis.call('SETRANGE', marks, 0, epoch)
    end
    redis.call('HSET', control, 'epoch', epoch, 'seq', text, 'start', text, 'run', ARGV[1], 'replication', ARGV[2],
        'floors', '0', 'cleared', '0')
    redis.call('HSETNX', control, 'entries', '0')
    redis.call('HSETNX', control, 'bytes', '0')
    books[7] = '0'
end
return {epoch, seq, tonumber(books[7]) or 0, redis.call('HGETALL', floors)}
""")

COMMIT = Script("""
-- KEYS control, log, floors, marks, a key that is never there, then one for each change. ARGV the caller's epoch, how a
-- message begins, the time, how many notices to keep, whether nothing is stored, then for each change what it is, the
-- name it kills, the value.
local control, log, floors, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local books = redis.call('HMGET', control, 'epoch', 'seq', 'floors')
local epoch, seq = books[1], tonumber(books[2])
if not epoch or not seq or redis.call('GETRANGE', marks, 0, 7) ~= epoch
    or redis.call('HLEN', floors) ~= tonumber(books[3]) then
    return false
end
local known, first = ARGV[1] == epoch, seq
local entries, bytes, lines, receipts = 0, 0, {}, {}
if ARGV[5] == '1' then
    redis.call('UNLINK', KEYS[5])
end
for i = 6, #KEYS do
    local key, at = KEYS[i], i * 3 - 12
    local op, mark, since, high, low, px = struct.unpack('>BI4I8I4I4I8', ARGV[at])
    local old, refused = 0, false
    if op < 5 then
        old = redis.call('STRLEN', key)
    end
    if op < 3 and old > 0 and (high > 0 or low > 0) then
        local h, l = struct.unpack('>I4I4', redis.call('GETRANGE', key, 0, 7))
        refused = h > high or (h == high and l > low)
    end
    if op == 2 and not refused then
        refused = not known or struct.unpack('>I8', redis.call('GETRANGE', marks, mark, mark + 7)) > since
    end
    if refused then
        receipts[i - 5] = -1
    else
        if op < 3 then
            redis.call('SET', key, ARGV[at + 2], 'PX', px)
            bytes = bytes + #ARGV[at + 2] - old
            if old == 0 then
                entries = entries + 1
            end
        elseif op < 5 then
            redis.call('UNLINK', key)
            if old > 0 then
                entries, bytes = entries - 1, bytes - old
            end
        elseif op == 6 then
            redis.call('UNLINK', floors)
        end
        if op == 2 or op == 4 then
            receipts[i - 5] = 0
        else
            seq = seq + 1
            lines[#lines + 1] = ARGV[at + 1]
            receipts[i - 5] = seq
            if op < 5 then
                redis.call('SETRANGE', marks, mark, struct.pack('>I8', seq))
            else
                redis.call('HSET', floors, ARGV[at + 1], struct.pack('>I8', seq) .. ARGV[3])
            end
        end
    end
end
if seq > first then
    redis.call('XADD', log, 'MINID', '~', string.format('%.0f', math.max(0, seq - tonumber(ARGV[4]))),
        string.format('%.0f-0', seq), 'n', ARGV[2] .. struct.pack('>BI4', 221, #lines) .. table.concat(lines))
    redis.call('HSET', control, 'seq', string.format('%.0f', seq), 'floors', redis.call('HLEN', floors))
end
if entries ~= 0 or bytes ~= 0 then
    redis.call('HINCRBY', control, 'entries', entries)
    redis.call('HINCRBY', control, 'bytes', bytes)
end
return {epoch, receipts}
""")

LEASE = Script("""
-- KEYS the lease. ARGV token, milliseconds.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return 0
end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")

RELEASE = Script("""
-- KEYS the lease. ARGV token.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('UNLINK', KEYS[1])
end
return 0
""")

EVICT = Script("""
-- KEYS values. ARGV for each the time to live that it was chosen by, in milliseconds. What was written anew stays.
local gone = {}
for i = 1, #KEYS do
    local left = redis.call('PTTL', KEYS[i])
    if left ~= -2 and left <= tonumber(ARGV[i]) then
        redis.call('UNLINK', KEYS[i])
        gone[#gone + 1] = i - 1
    end
end
return gone
""")

PRUNE = Script("""
-- KEYS control, floors. ARGV epoch, the highest sequence that goes while it may still matter (or 0), then names and
-- stamps. A floor that was set anew stays.
local books = redis.call('HMGET', KEYS[1], 'epoch', 'floors')
if books[1] ~= ARGV[1] or redis.call('HLEN', KEYS[2]) ~= tonumber(books[2]) then
    return 0
end
local gone = 0
for i = 3, #ARGV, 2 do
    if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
        gone = gone + redis.call('HDEL', KEYS[2], ARGV[i])
    end
end
if gone == 0 then
    return 0
end
local cleared = tonumber(redis.call('HGET', KEYS[1], 'cleared') or '0')
redis.call('HSET', KEYS[1], 'floors', redis.call('HLEN', KEYS[2]),
    'cleared', string.format('%.0f', math.max(cleared, tonumber(ARGV[2]))))
return gone
""")

NOTE = Script("""
-- KEYS control, a key that is never there. ARGV 'HSET' or 'HINCRBY', then fields and numbers.
redis.call('UNLINK', KEYS[2])
for i = 2, #ARGV, 2 do
    redis.call(ARGV[1], KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
""")

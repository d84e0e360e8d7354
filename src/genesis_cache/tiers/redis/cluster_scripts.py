"""The Lua scripts of a cluster, where what one change moves lies on several nodes and is moved in three steps.

1. PREPARE, on the key's node: the old value goes, and a note that lapses by itself refuses every fill of the key.
2. TELL, on the log's node: the sequence is taken and the notice written.
3. FINISH, on the key's node: the value is stored, unless a newer change of the key got in between; the mark is set.

Whoever dies between two of these leaves an entry that is missing, never one that is old.
"""

from genesis_cache.tiers.redis.scripts import Script

PREPARE = Script("""
-- KEYS the shard's marks, then for each change its value and its note. ARGV epoch, token, milliseconds that a note
-- lasts, then for each change its version in two halves, and whether it stores something.
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then
    return false
end
local freed = {}
for i = 2, #KEYS, 2 do
    local value, note, at = KEYS[i], KEYS[i + 1], (i / 2) * 3 + 1
    local high, low = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local old, refused = redis.call('STRLEN', value), false
    if old > 0 and (high > 0 or low > 0) then
        local h, l = struct.unpack('>I4I4', redis.call('GETRANGE', value, 0, 7))
        refused = h > high or (h == high and l > low)
    end
    if refused then
        freed[i / 2] = -1
    else
        if ARGV[at + 2] == '0' then
            redis.call('UNLINK', value)
        end
        redis.call('SET', note, ARGV[2], 'PX', ARGV[3])
        redis.call('UNLINK', value)
        freed[i / 2] = old
    end
end
return freed
""")

TELL = Script("""
-- KEYS control, log, floors, a key that is never there. ARGV epoch, how a message begins, the time, how many notices to
-- keep, what has become more or fewer of entries and of bytes, then for each notice what it is and the name it kills.
local control, log, floors = KEYS[1], KEYS[2], KEYS[3]
local books = redis.call('HMGET', control, 'epoch', 'seq', 'floors')
local seq = tonumber(books[2])
if books[1] ~= ARGV[1] or not seq or redis.call('HLEN', floors) ~= tonumber(books[3]) then
    return false
end
redis.call('UNLINK', KEYS[4])
local lines = {}
for i = 7, #ARGV, 2 do
    seq = seq + 1
    lines[#lines + 1] = ARGV[i + 1]
    if ARGV[i] == '6' then
        redis.call('UNLINK', floors)
    end
    if ARGV[i] >= '5' then
        redis.call('HSET', floors, ARGV[i + 1], struct.pack('>I8', seq) .. ARGV[3])
    end
end
redis.call('XADD', log, 'MINID', '~', string.format('%.0f', math.max(0, seq - tonumber(ARGV[4]))),
    string.format('%.0f-0', seq), 'n', ARGV[2] .. struct.pack('>BI4', 221, #lines) .. table.concat(lines))
redis.call('HSET', control, 'seq', string.format('%.0f', seq), 'floors', redis.call('HLEN', floors))
redis.call('HINCRBY', control, 'entries', ARGV[5])
redis.call('HINCRBY', control, 'bytes', ARGV[6])
return seq
""")

FINISH = Script("""
-- KEYS the shard's marks, then for each change its value and its note. ARGV epoch, whether the caller knows that epoch,
-- token, then for each change what it is, and the value.
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then
    return false
end
local sizes = {}
for i = 2, #KEYS, 2 do
    local value, note, at = KEYS[i], KEYS[i + 1], i + 2
    local op, mark, seq, high, low, px = struct.unpack('>BI4I8I4I4I8', ARGV[at])
    local old, changed, new = redis.call('STRLEN', value), 0, false
    if op < 4 then
        changed = struct.unpack('>I8', redis.call('GETRANGE', KEYS[1], mark, mark + 7))
    end
    local holder = op < 4 and redis.call('GET', note)
    if op == 2 then
        local refused = ARGV[2] ~= '1' or holder or changed > seq
        if not refused and old > 0 and (high > 0 or low > 0) then
            local h, l = struct.unpack('>I4I4', redis.call('GETRANGE', value, 0, 7))
            refused = h > high or (h == high and l > low)
        end
        new = not refused
    else
        if holder == ARGV[3] then
            redis.call('UNLINK', note)
        end
        if op == 4 or changed <= seq then
            redis.call('UNLINK', value)
            new = op == 1 and holder == ARGV[3]
        end
        if op < 4 and changed < seq then
            redis.call('SETRANGE', KEYS[1], mark, struct.pack('>I8', seq))
        end
    end
    if new then
        redis.call('SET', value, ARGV[at + 1], 'PX', px)
    end
    sizes[i - 1] = old
    sizes[i] = (op == 2 and not new) and -1 or redis.call('STRLEN', value)
end
return sizes
""")

STAMP = Script("""
-- KEYS a shard's marks. ARGV epoch, their bytes.
redis.call('UNLINK', KEYS[1])
redis.call('SETRANGE', KEYS[1], ARGV[2] - 8, string.rep('\\0', 8))
redis.call('SETRANGE', KEYS[1], 0, ARGV[1])
return 1
""")

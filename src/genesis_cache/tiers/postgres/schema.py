"""Our tables in a PostgreSQL database: made and migrated by whoever comes first, one set logged and one not.

Rows of all cache names stand in the same tables, under a number made from the name. The books of a cache (``control``)
are of the same persistence as its entries, so that a crash which empties the one empties the other. Whoever changes
anything of a cache holds the lock of its row in ``control``: the order of its transactions is the order of its log.
"""

from hashlib import blake2b
from typing import Any

from genesis_cache.tiers.remote_base import Outage

VERSION = 1
MIN_SERVER = 13

_MAKING = 0x67636D616B65  # of the advisory lock that one process holds while it makes the tables

_COMMON = """
CREATE TABLE {s}.caches (id int8 PRIMARY KEY, name text NOT NULL, logged bool NOT NULL);

CREATE UNLOGGED TABLE {s}.leases (
    cache int8, digest bytea, token bytea NOT NULL, until timestamptz NOT NULL, PRIMARY KEY (cache, digest));

-- Which server, history and database this is: another one has another log.
CREATE FUNCTION {s}.identity() RETURNS text LANGUAGE plpgsql AS $$
DECLARE system text := ''; history text := '';
BEGIN
    BEGIN
        SELECT system_identifier::text INTO system FROM pg_control_system();
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
        history := substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    RETURN system || '/' || history || '/' || (SELECT oid FROM pg_database WHERE datname = current_database());
END $$;
"""

# An entry whose gone_at is null is a trace: its value is gone, and fills that began before `changed` are refused.
# `made` is the sequence read before its value was made; 0 where that is not known here, as of a copy from another tier.
_SET = """
CREATE {persistence} TABLE {s}.{u}control (
    cache int8 PRIMARY KEY, epoch int8 NOT NULL, seq int8 NOT NULL, start int8 NOT NULL, log_start int8 NOT NULL,
    fills_from int8 NOT NULL, cleared int8 NOT NULL DEFAULT 0, swept int8 NOT NULL DEFAULT 0,
    entries int8 NOT NULL DEFAULT 0, bytes int8 NOT NULL DEFAULT 0, floors int8 NOT NULL DEFAULT 0,
    evicted_size int8 NOT NULL DEFAULT 0, evicted_ttl int8 NOT NULL DEFAULT 0,
    identity text NOT NULL, started timestamptz NOT NULL, loose bool NOT NULL DEFAULT false) WITH (fillfactor = 10);

CREATE {persistence} TABLE {s}.{u}entries (
    cache int8, gone_at float8, changed int8 NOT NULL, changed_at float8 NOT NULL, made int8 NOT NULL, version int8,
    used float8 NOT NULL, size int4 NOT NULL, priority int2 NOT NULL, read bool NOT NULL DEFAULT false,
    digest bytea, envelope bytea, PRIMARY KEY (cache, digest))
    WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 1);
ALTER TABLE {s}.{u}entries ALTER envelope SET STORAGE EXTERNAL;
CREATE INDEX {u}entries_gone ON {s}.{u}entries (cache, gone_at) WHERE gone_at < 'Infinity';
CREATE INDEX {u}entries_traces ON {s}.{u}entries (cache, changed_at) WHERE gone_at IS NULL;

CREATE {persistence} TABLE {s}.{u}log (
    cache int8, seq int8, at float8 NOT NULL, message bytea NOT NULL, PRIMARY KEY (cache, seq));

CREATE {persistence} TABLE {s}.{u}floors (cache int8, name bytea, seq int8 NOT NULL, PRIMARY KEY (cache, name));
"""

# Plans are made once and never by scanning or sorting a table that statistics do not know yet to be large.
_PLANS = """
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_material = off SET jit = off
"""

# p_ops: 0 set, 1 fill, 2 remove, 3 drop, 4 fill that is not kept; 0 to 2 write a row, 3 and 4 take one away.
# p_offsets: which of the batch's notices a change tells, from 1, were none refused. Digests are unique.
_APPLY = """
CREATE FUNCTION {s}.{u}apply(
    p_cache int8, p_now float8, p_epoch int8, p_known_epoch int8, p_known_seq int8, p_channel text,
    p_ops int2[], p_digests bytea[], p_envelopes bytea[], p_sizes int4[], p_gone float8[], p_since int8[],
    p_versions int8[], p_priorities int2[], p_copies bool[], p_offsets int4[], p_takes_away bool, p_evicted int4,
    p_messages bytea[], p_lasts int4[], p_guards int4[], p_floors bytea[], p_floor_offsets int4[],
    p_told int4, p_cleared int4,
    OUT o_epoch int8, OUT o_seq int8, OUT o_refused int4[])
LANGUAGE plpgsql {plans} AS $$
DECLARE
    c {s}.{u}control;
    gaps int4[] := '{{}}';
    total int4; old_rows int8 := 0; old_bytes int8 := 0; new_rows int8 := 0; new_bytes int8 := 0; new_floors int8 := 0;
    at float8 := extract(epoch FROM clock_timestamp());
BEGIN
    SELECT * INTO c FROM {s}.{u}control WHERE cache = p_cache FOR UPDATE;
    IF NOT FOUND OR c.started <> pg_postmaster_start_time() OR (p_known_epoch = c.epoch AND p_known_seq > c.seq) THEN
        RETURN;
    END IF;
    o_epoch := c.epoch;
    o_seq := c.seq;
    o_refused := '{{}}';

    IF cardinality(p_ops) > 0 THEN
        SELECT coalesce(array_agg(i) FILTER (WHERE no), '{{}}'),
            coalesce(array_agg(o) FILTER (WHERE no AND o > 0), '{{}}'),
            count(*) FILTER (WHERE was IS NOT NULL AND NOT no), coalesce(sum(was) FILTER (WHERE NOT no), 0),
            count(*) FILTER (WHERE op < 2 AND NOT no),
            coalesce(sum(size + {row}) FILTER (WHERE op < 2 AND NOT no), 0)
        INTO o_refused, gaps, old_rows, old_bytes, new_rows, new_bytes
        FROM (
            SELECT w.i::int4 AS i, w.op, w.size, w.o, CASE WHEN e.gone_at IS NOT NULL THEN e.size + {row} END AS was,
                coalesce(w.version < e.version AND e.gone_at > p_now, false) OR (w.op IN (1, 4) AND (
                    p_epoch <> c.epoch OR w.since < greatest(c.fills_from, c.cleared) OR w.since > c.seq
                    OR coalesce(e.changed, 0) > w.since)) AS no
            FROM unnest(p_ops, p_digests, p_sizes, p_since, p_versions, p_offsets)
                WITH ORDINALITY AS w (op, digest, size, since, version, o, i)
            LEFT JOIN {s}.{u}entries e ON e.cache = p_cache AND e.digest = w.digest) judged;

        INSERT INTO {s}.{u}entries AS e
            (cache, gone_at, changed, changed_at, made, version, used, size, priority, digest, envelope)
        SELECT p_cache, CASE WHEN w.op < 2 THEN w.gone END,
            CASE WHEN w.op = 1 THEN 0 ELSE n.seq END, CASE WHEN w.op = 1 THEN 0 ELSE at END,
            CASE WHEN w.copy THEN 0 ELSE coalesce(w.since, n.seq) END,
            CASE WHEN w.op < 2 THEN w.version END, p_now, w.size, w.priority, w.digest, w.envelope
        FROM unnest(p_ops, p_digests, p_envelopes, p_sizes, p_gone, p_since, p_versions, p_priorities, p_copies,
                p_offsets)
                WITH ORDINALITY AS w (op, digest, envelope, size, gone, since, version, priority, copy, o, i)
            CROSS JOIN LATERAL (SELECT c.seq + w.o - CASE WHEN gaps = '{{}}' THEN 0
                ELSE (SELECT count(*) FROM unnest(gaps) g WHERE g < w.o) END AS seq) n
        WHERE w.op < 3 AND (o_refused = '{{}}' OR w.i::int4 <> ALL (o_refused))
        ON CONFLICT (cache, digest) DO UPDATE SET
            gone_at = excluded.gone_at, changed = greatest(e.changed, excluded.changed),
            changed_at = greatest(e.changed_at, excluded.changed_at), made = excluded.made,
            version = excluded.version, used = excluded.used, size = excluded.size, priority = excluded.priority,
            read = false, envelope = excluded.envelope;

        IF p_takes_away THEN
            DELETE FROM {s}.{u}entries e USING unnest(p_ops, p_digests) WITH ORDINALITY AS w (op, digest, i)
            WHERE e.cache = p_cache AND e.digest = w.digest AND w.op > 2 AND e.changed = 0
                AND w.i::int4 <> ALL (o_refused);
            UPDATE {s}.{u}entries e SET gone_at = NULL, envelope = NULL, size = 0, version = NULL
            FROM unnest(p_ops, p_digests) WITH ORDINALITY AS w (op, digest, i)
            WHERE e.cache = p_cache AND e.digest = w.digest AND w.op > 2 AND e.gone_at IS NOT NULL
                AND w.i::int4 <> ALL (o_refused);
        END IF;
    END IF;

    total := p_told - cardinality(gaps);
    IF total > 0 THEN
        INSERT INTO {s}.{u}log (cache, seq, at, message)
        SELECT p_cache, c.seq + m.last - (SELECT count(*) FROM unnest(gaps) g WHERE g < m.last), at, m.message
        FROM unnest(p_messages, p_lasts, p_guards) AS m (message, last, guard)
        WHERE m.guard <> ALL (o_refused);
        PERFORM pg_notify(p_channel, '');
    END IF;
    IF cardinality(p_floors) > 0 THEN
        SELECT cardinality(p_floors) - count(*) INTO new_floors
        FROM {s}.{u}floors f WHERE f.cache = p_cache AND f.name = ANY (p_floors);
        INSERT INTO {s}.{u}floors (cache, name, seq)
        SELECT p_cache, f.name, c.seq + f.o - (SELECT count(*) FROM unnest(gaps) g WHERE g < f.o)
        FROM unnest(p_floors, p_floor_offsets) AS f (name, o)
        ON CONFLICT (cache, name) DO UPDATE SET seq = excluded.seq;
    END IF;

    IF current_setting('synchronous_commit') = 'off' AND NOT c.loose THEN
        c.loose := true;
        PERFORM set_config('synchronous_commit', 'on', true);  -- that commits may be lost must not be lost itself
    END IF;
    UPDATE {s}.{u}control SET
        seq = c.seq + total, entries = c.entries - old_rows + new_rows, bytes = c.bytes - old_bytes + new_bytes,
        floors = c.floors + new_floors, evicted_size = c.evicted_size + p_evicted,
        cleared = CASE WHEN p_cleared > 0
            THEN c.seq + p_cleared - (SELECT count(*) FROM unnest(gaps) g WHERE g < p_cleared) ELSE c.cleared END,
        loose = c.loose
    WHERE cache = p_cache;
END $$;
"""

# Finds or makes the books, and begins another log where this is not the server, or not the state, that was known.
_JOIN = """
CREATE FUNCTION {s}.{u}join(p_cache int8, p_epoch int8, p_seq int8, p_new int8) RETURNS void
LANGUAGE plpgsql {plans} AS $$
DECLARE
    c {s}.{u}control;
    here text := {s}.identity();
    since_start timestamptz := pg_postmaster_start_time();
    beyond int8 := greatest(p_seq, (extract(epoch FROM clock_timestamp()) * 1000000)::int8);
BEGIN
    LOOP
        SELECT * INTO c FROM {s}.{u}control WHERE cache = p_cache FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO {s}.{u}control (cache, epoch, seq, start, log_start, fills_from, identity, started)
        VALUES (p_cache, p_new, beyond, beyond, beyond, beyond, here, since_start) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            DELETE FROM {s}.{u}entries WHERE cache = p_cache;
            DELETE FROM {s}.{u}log WHERE cache = p_cache;
            DELETE FROM {s}.{u}floors WHERE cache = p_cache;
            RETURN;
        END IF;
    END LOOP;
    IF c.identity <> here OR (c.loose AND c.started <> since_start) OR (p_epoch = c.epoch AND p_seq > c.seq)
        OR (c.seq > c.log_start AND NOT EXISTS (SELECT FROM {s}.{u}log WHERE cache = p_cache AND seq = c.seq))
        OR c.floors <> (SELECT count(*) FROM {s}.{u}floors WHERE cache = p_cache) THEN
        beyond := greatest(beyond, c.seq) + 1;
        DELETE FROM {s}.{u}log WHERE cache = p_cache;
        DELETE FROM {s}.{u}floors WHERE cache = p_cache;
        UPDATE {s}.{u}control SET epoch = p_new, seq = beyond, start = beyond, log_start = beyond, fills_from = beyond,
            cleared = beyond, floors = 0, identity = here, started = since_start, loose = false
        WHERE cache = p_cache;
    ELSIF c.started <> since_start THEN
        UPDATE {s}.{u}control SET started = since_start, loose = false WHERE cache = p_cache;
    END IF;
END $$;
"""

# Takes values away: p_digests of those that p_why still says ('ttl', 'size', 'cleared'). What refuses fills stays as
# a trace while a load may live (p_keep_s); after that the log refuses all fills from before it.
_EVICT = """
CREATE FUNCTION {s}.{u}evict(p_cache int8, p_now float8, p_digests bytea[], p_why text, p_keep_s float8) RETURNS int4
LANGUAGE plpgsql {plans} AS $$
DECLARE
    c {s}.{u}control;
    old float8 := extract(epoch FROM clock_timestamp()) - p_keep_s;
    gone bytea[]; last int8; n int4; freed int8;
BEGIN
    IF NOT pg_try_advisory_xact_lock(p_cache) THEN
        RETURN -1;
    END IF;
    SELECT * INTO c FROM {s}.{u}control WHERE cache = p_cache FOR UPDATE;
    SELECT array_agg(digest), max(changed) FILTER (WHERE changed_at <= old), count(*), sum(size + {row})
    INTO gone, last, n, freed
    FROM {s}.{u}entries e
    WHERE e.cache = p_cache AND e.digest = ANY (p_digests) AND e.gone_at IS NOT NULL AND (
        p_why = 'size' OR (p_why = 'ttl' AND e.gone_at <= p_now)
        OR (p_why = 'cleared' AND e.made > 0 AND e.made < c.cleared));
    IF coalesce(n, 0) = 0 OR c.cache IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM {s}.{u}entries WHERE cache = p_cache AND digest = ANY (gone) AND changed_at <= old;
    UPDATE {s}.{u}entries SET gone_at = NULL, envelope = NULL, size = 0, version = NULL
    WHERE cache = p_cache AND digest = ANY (gone);
    UPDATE {s}.{u}control SET entries = entries - n, bytes = bytes - freed,
        fills_from = greatest(fills_from, coalesce(last, 0)),
        evicted_size = evicted_size + CASE p_why WHEN 'size' THEN n ELSE 0 END,
        evicted_ttl = evicted_ttl + CASE p_why WHEN 'ttl' THEN n ELSE 0 END
    WHERE cache = p_cache;
    RETURN n;
END $$;
"""

# Old traces, old messages, leases that ended; floors beyond p_floors are replaced by one that kills everything.
_TRIM = """
CREATE FUNCTION {s}.{u}trim(
    p_cache int8, p_limit int4, p_keep_s float8, p_messages int8, p_message_s float8, p_floors int8, p_clear bytea)
RETURNS bool LANGUAGE plpgsql {plans} AS $$
DECLARE
    c {s}.{u}control;
    now_s float8 := extract(epoch FROM clock_timestamp());
    last int8; n int8; reach int8; more bool; kept int8; added int8 := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(p_cache) THEN
        RETURN false;
    END IF;
    SELECT * INTO c FROM {s}.{u}control WHERE cache = p_cache FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    WITH old AS (
        DELETE FROM {s}.{u}entries e WHERE e.cache = p_cache AND e.digest IN (
            SELECT t.digest FROM {s}.{u}entries t
            WHERE t.cache = p_cache AND t.gone_at IS NULL AND t.changed_at < now_s - p_keep_s
            ORDER BY t.changed_at LIMIT p_limit)
        RETURNING e.changed)
    SELECT count(*), max(changed) INTO n, last FROM old;
    more := n >= p_limit;

    SELECT seq INTO reach FROM {s}.{u}log WHERE cache = p_cache ORDER BY seq DESC OFFSET p_messages LIMIT 1;
    IF FOUND THEN
        WITH old AS (
            DELETE FROM {s}.{u}log l WHERE l.cache = p_cache AND l.seq IN (
                SELECT t.seq FROM {s}.{u}log t
                WHERE t.cache = p_cache AND t.seq <= reach AND t.at < now_s - p_message_s ORDER BY t.seq LIMIT p_limit)
            RETURNING l.seq)
        SELECT count(*), max(seq) INTO n, reach FROM old;
        more := more OR n >= p_limit;
    END IF;

    IF c.floors > p_floors THEN
        SELECT seq INTO kept FROM {s}.{u}floors WHERE cache = p_cache
        ORDER BY seq OFFSET c.floors - p_floors / 2 LIMIT 1;
    END IF;
    IF c.cleared > coalesce(kept, 0) THEN
        kept := c.cleared;
    END IF;
    IF kept > c.swept THEN
        DELETE FROM {s}.{u}floors WHERE cache = p_cache AND seq <= kept;
        GET DIAGNOSTICS n = ROW_COUNT;
        INSERT INTO {s}.{u}floors (cache, name, seq) VALUES (p_cache, p_clear, kept) ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS added = ROW_COUNT;
    ELSE
        n := 0;
    END IF;
    UPDATE {s}.{u}control SET fills_from = greatest(fills_from, coalesce(last, 0)),
        log_start = greatest(log_start, coalesce(reach, 0)), floors = floors - n + added,
        cleared = greatest(cleared, coalesce(kept, 0))
    WHERE cache = p_cache;
    DELETE FROM {s}.leases WHERE cache = p_cache AND until < clock_timestamp();
    RETURN more;
END $$;
"""

# Notes that entries were read.
_MARK = """
CREATE FUNCTION {s}.{u}mark(p_cache int8, p_now float8, p_digests bytea[]) RETURNS void
LANGUAGE plpgsql {plans} AS $$
BEGIN
    PERFORM FROM {s}.{u}control WHERE cache = p_cache FOR UPDATE;
    UPDATE {s}.{u}entries SET used = p_now, read = true
    WHERE cache = p_cache AND digest = ANY (p_digests) AND gone_at IS NOT NULL AND (NOT read OR used < p_now - 60);
END $$;
"""

_MAKE = """
DO $make$
BEGIN
    PERFORM pg_advisory_xact_lock({lock});
    IF EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = '{s}' AND c.relname = 'meta') THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{s}') THEN
        CREATE SCHEMA {s};
    END IF;
    CREATE TABLE {s}.meta (version int4 NOT NULL);
    INSERT INTO {s}.meta VALUES ({version});
    {all}
END $make$
"""

# Asked of the tables themselves: to_regclass answers out of what the session remembers, in spite of our lock.
_HAS_META = """
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'meta')
"""

ROW_BYTES = 200
"""What a row and its index lines take beside the envelope."""


def cache_id(name: str) -> int:
    """The number under which a cache's rows stand: the first 64 bits of its name's BLAKE2b, as PostgreSQL's int8."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def making(schema: str) -> str:
    """The one statement that makes the tables and functions of the present version, unless somebody has done so.

    One statement, so that a call that is given up leaves no transaction behind. Who waited finds them made.
    """
    text = _COMMON.format(s=schema)
    for prefix, persistence in (("", ""), ("unlogged_", "UNLOGGED")):
        for part in (_SET, _APPLY, _JOIN, _EVICT, _TRIM, _MARK):
            text += part.format(s=schema, u=prefix, persistence=persistence, plans=_PLANS, row=ROW_BYTES)
    return _MAKE.format(s=schema, lock=_MAKING, version=VERSION, all=text)


async def prepare(connection: Any, schema: str, name: str, *, is_logged: bool) -> bool:
    """Make or check our tables; whether this cache's are logged, as whoever made it first has said.

    `Outage` where the server is too old or read-only, or its tables were made by a newer version of this package.
    """
    version = connection.get_server_version()
    if version.major < MIN_SERVER:
        raise Outage(f"PostgreSQL {version.major} is too old: {MIN_SERVER} or newer is needed")
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise Outage("the PostgreSQL server is a standby and takes no changes: name the primary in DATABASE_URL")
    if await _version(connection, schema) != VERSION:
        await connection.execute(making(schema))
    number = cache_id(name)
    known = f"SELECT logged FROM {schema}.caches WHERE id = $1"  # noqa: S608  # the schema's name was checked
    found = await connection.fetchval(known, number)
    if found is None:
        adding = f"INSERT INTO {schema}.caches VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"  # noqa: S608  # as above
        await connection.execute(adding, number, name, is_logged)
        found = await connection.fetchval(known, number)
    return bool(found)


async def _version(connection: Any, schema: str) -> int:
    """Of the tables that are there; 0 for none."""
    if not await connection.fetchval(_HAS_META, schema):
        return 0
    text = f"SELECT version FROM {schema}.meta"  # noqa: S608  # the schema's name was checked
    version = await connection.fetchval(text) or 0
    if version > VERSION:
        raise Outage(
            f"the tables in schema {schema!r} are of version {version}, made by a newer genesis-cache than this, which"
            f" knows {VERSION}: upgrade this program, or give it a schema of its own by schema=..."
        )
    return int(version)

"""The statements of a store over one cache's rows."""

from genesis_cache.tiers.postgres.schema import cache_id

ONE_READ = 1000  # messages of the log that one query may bring


class Statements:
    """Texts with the schema, the set of tables and the cache's number written in: all of them were checked."""

    def __init__(self, schema: str, name: str, *, is_logged: bool) -> None:
        self.cache = cache = cache_id(name)
        t = f"{schema}.{'' if is_logged else 'unlogged_'}"
        own = f"cache = {cache}::int8"
        self.tables = t
        self.channel = f"{schema}_{cache & 0xFFFF_FFFF_FFFF_FFFF:x}"
        self.get = f"SELECT envelope FROM {t}entries WHERE {own} AND digest = $1 AND gone_at > $2"
        self.get_many = (
            f"SELECT digest, envelope FROM {t}entries WHERE {own} AND digest = ANY ($1::bytea[]) AND gone_at > $2"
        )
        holes = ", ".join(f"${n}" for n in range(1, 24))
        self.apply = f"SELECT o_epoch, o_seq, o_refused FROM {t}apply({cache}::int8, {holes})"
        self.join = f"SELECT {t}join({cache}::int8, $1, $2, $3)"
        self.floors = (
            f"SELECT c.epoch, c.seq, f.name, f.seq FROM {t}control c LEFT JOIN {t}floors f ON f.cache = c.cache"
            f" WHERE c.{own} ORDER BY f.seq"
        )
        self.follow = (
            "SELECT c.epoch, c.seq, c.log_start, c.started = pg_postmaster_start_time(), l.seq, l.message"
            f" FROM {t}control c LEFT JOIN {t}log l ON l.{own} AND l.seq > $1"
            f" WHERE c.{own} ORDER BY l.seq LIMIT {ONE_READ}"
        )
        self.lease = (
            f"INSERT INTO {schema}.leases AS l VALUES ({cache}::int8, $1, $2, clock_timestamp() + $3 * interval '1 s')"
            " ON CONFLICT (cache, digest) DO UPDATE SET token = excluded.token, until = excluded.until"
            " WHERE l.token = excluded.token OR l.until <= clock_timestamp() RETURNING true"
        )
        self.release = f"DELETE FROM {schema}.leases WHERE {own} AND digest = $1 AND token = $2"
        self.books = (
            "SELECT epoch, seq, log_start, cleared, swept, entries, bytes, floors, evicted_size, evicted_ttl"
            f" FROM {t}control WHERE {own}"
        )
        self.mark = f"SELECT {t}mark({cache}::int8, $1, $2)"
        self.expired = (
            f"SELECT digest FROM {t}entries WHERE {own} AND gone_at <= $1 AND gone_at < 'Infinity'"
            " ORDER BY gone_at LIMIT $2"
        )
        self.page = f"SELECT digest, made FROM {t}entries WHERE {own} AND digest > $1 ORDER BY digest LIMIT $2"
        self.swept = f"UPDATE {t}control SET swept = greatest(swept, $1) WHERE {own}"
        self.sample = (
            "SELECT digest, size FROM (SELECT digest, size, gone_at, priority, read, used FROM"
            f" {t}entries WHERE {own} AND digest >= $1 AND gone_at IS NOT NULL ORDER BY digest LIMIT $2) sample"
            " ORDER BY gone_at > $3, priority = 3, -floor(log(2, greatest(size, 1))), read, priority, used, digest"
        )
        self.evict = f"SELECT {t}evict({cache}::int8, $1, $2, $3, $4)"
        self.trim = f"SELECT {t}trim({cache}::int8, $1, $2, $3, $4, $5, $6)"
        self.scan = (
            f"SELECT digest, envelope, read FROM {t}entries"
            f" WHERE {own} AND digest > $1 AND gone_at > $2 ORDER BY digest LIMIT $3"
        )
        self.counted = (
            f"SELECT (SELECT count(*) FROM {t}entries WHERE {own} AND gone_at IS NOT NULL),"
            f" (SELECT coalesce(sum(size), 0)::int8 FROM {t}entries WHERE {own} AND gone_at IS NOT NULL),"
            f" (SELECT count(*) FROM {t}entries WHERE {own} AND (size <> coalesce(octet_length(envelope), 0)"
            "  OR (envelope IS NULL) <> (gone_at IS NULL))),"
            f" (SELECT count(*) FROM {t}floors WHERE {own}),"
            f" (SELECT max(seq) FROM {t}log WHERE {own}), (SELECT min(seq) FROM {t}log WHERE {own})"
        )

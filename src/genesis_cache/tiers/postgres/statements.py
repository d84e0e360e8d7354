"""The statements of a store over one cache's rows."""

from genesis_cache.tiers.postgres.schema import cache_id

ONE_READ = 1000  # messages of the log that one query may bring
MOST_FLOORS = 1000  # that are asked for with one value

_APPLIED = ", ".join(f"${n}" for n in range(1, 25))  # what the function takes beside the cache's number


_TEXTS = {
    "get": "SELECT envelope FROM {t}entries WHERE {own} AND digest = $1 AND gone_at > $2",
    "get_many": "SELECT digest, envelope FROM {t}entries WHERE {own} AND digest = ANY ($1::bytea[]) AND gone_at > $2",
    "kept": (  # what kills it is told by name alone: all of these are younger than its value
        "SELECT e.envelope, ARRAY(SELECT f.name FROM {t}floors f WHERE f.{own} AND f.seq > e.made LIMIT {most_floors})"
        " FROM {t}control c, {t}entries e WHERE c.{own} AND c.started = pg_postmaster_start_time()"
        " AND e.{own} AND e.digest = $1 AND e.gone_at > $2 AND e.made > 0 AND e.made >= c.cleared"
        " AND c.floors = (SELECT count(*) FROM {t}floors f WHERE f.{own})"
    ),
    "apply": "SELECT o_epoch, o_seq, o_refused FROM {t}apply({cache}, {values})",
    "join": "SELECT {t}join({cache}, $1, $2, $3)",
    "floors": (
        "SELECT c.epoch, c.seq, f.name, f.seq FROM {t}control c LEFT JOIN {t}floors f ON f.cache = c.cache"
        " WHERE c.{own} ORDER BY f.seq"
    ),
    "follow": (
        "SELECT c.epoch, c.seq, c.log_start, c.started = pg_postmaster_start_time(), l.seq, l.message"
        " FROM {t}control c LEFT JOIN {t}log l ON l.{own} AND l.seq > $1"
        " WHERE c.{own} ORDER BY l.seq LIMIT {one_read}"
    ),
    "lease": (
        "INSERT INTO {s}.leases AS l VALUES ({cache}, $1, $2, clock_timestamp() + $3 * interval '1 s')"
        " ON CONFLICT (cache, digest) DO UPDATE SET token = excluded.token, until = excluded.until"
        " WHERE l.token = excluded.token OR l.until <= clock_timestamp() RETURNING true"
    ),
    "release": "DELETE FROM {s}.leases WHERE {own} AND digest = $1 AND token = $2",
    "books": (
        "SELECT epoch, seq, log_start, cleared, swept, entries, bytes, floors, evicted_size, evicted_ttl"
        " FROM {t}control WHERE {own}"
    ),
    "mark": "SELECT {t}mark({cache}, $1, $2)",
    "expired": (
        "SELECT digest FROM {t}entries WHERE {own} AND gone_at <= $1 AND gone_at < 'Infinity' ORDER BY gone_at LIMIT $2"
    ),
    "page": "SELECT digest, made FROM {t}entries WHERE {own} AND digest > $1 ORDER BY digest LIMIT $2",
    "swept": "UPDATE {t}control SET swept = greatest(swept, $1) WHERE {own}",
    "sample": (
        "SELECT digest, size FROM (SELECT digest, size, gone_at, priority, read, used FROM"
        " {t}entries WHERE {own} AND digest >= $1 AND gone_at IS NOT NULL ORDER BY digest LIMIT $2) sample"
        " ORDER BY gone_at > $3, priority = 3, -floor(log(2, greatest(size, 1))), read, priority, used, digest"
    ),
    "evict": "SELECT {t}evict({cache}, $1, $2, $3, $4)",
    "trim": "SELECT {t}trim({cache}, $1, $2, $3, $4, $5, $6)",
    "scan": (
        "SELECT digest, envelope, read FROM {t}entries"
        " WHERE {own} AND digest > $1 AND gone_at > $2 ORDER BY digest LIMIT $3"
    ),
    "counted": (
        "SELECT (SELECT count(*) FROM {t}entries WHERE {own} AND gone_at IS NOT NULL),"
        " (SELECT coalesce(sum(size), 0)::int8 FROM {t}entries WHERE {own} AND gone_at IS NOT NULL),"
        " (SELECT count(*) FROM {t}entries WHERE {own} AND (size <> coalesce(octet_length(envelope), 0)"
        "  OR (envelope IS NULL) <> (gone_at IS NULL))),"
        " (SELECT count(*) FROM {t}floors WHERE {own}),"
        " (SELECT max(seq) FROM {t}log WHERE {own}), (SELECT min(seq) FROM {t}log WHERE {own})"
    ),
}


class Statements:
    """Texts with the schema, the set of tables and the cache's number written in: all of them were checked."""

    get: str
    get_many: str
    kept: str
    apply: str
    join: str
    floors: str
    follow: str
    lease: str
    release: str
    books: str
    mark: str
    expired: str
    page: str
    swept: str
    sample: str
    evict: str
    trim: str
    scan: str
    counted: str

    def __init__(self, schema: str, name: str, *, is_logged: bool) -> None:
        cache = cache_id(name)
        self.tables = f"{schema}.{'' if is_logged else 'unlogged_'}"
        """What our tables' names begin with."""
        self.channel = f"{schema}_{cache & 0xFFFF_FFFF_FFFF_FFFF:x}"
        """Of the notifications."""
        number = f"({cache}::int8)"
        own = f"cache = {number}"
        for word, text in _TEXTS.items():
            setattr(
                self,
                word,
                text.format(
                    t=self.tables,
                    s=schema,
                    cache=number,
                    own=own,
                    one_read=ONE_READ,
                    most_floors=MOST_FLOORS,
                    values=_APPLIED,
                ),
            )

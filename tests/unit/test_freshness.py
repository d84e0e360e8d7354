"""Freshness: what an entry is good for at a moment, to the edge of each of its times."""

from genesis_cache.model.entry import Entry, Extra, Record
from genesis_cache.model.keys import address_of, scope_of
from genesis_cache.model.options import Plan
from genesis_cache.policies.freshness import FOREVER, Verdict, gone, gone_at, judge, quick_until, remaining


def entry(until: float, extra: Extra | None = None) -> Entry:
    """An entry that is fresh until then."""
    return Entry("k", 1, until, until, 10.0, None, 0, 0, extra=extra)


def test_each_verdict_begins_where_the_one_before_ends() -> None:
    """Fresh, refresh, stale while revalidating, stale if error, gone: each to its very moment."""
    plain = entry(100.0)
    assert [judge(plain, now) for now in (99.9, 100.0)] == [Verdict.FRESH, Verdict.GONE]
    rich = entry(100.0, Extra(refresh_at=90.0, swr_until=110.0, sie_until=120.0))
    moments = (89.9, 90.0, 99.9, 100.0, 109.9, 110.0, 119.9, 120.0)
    fresh, refresh, swr, sie = Verdict.FRESH, Verdict.REFRESH, Verdict.WHILE_REVALIDATE, Verdict.IF_ERROR
    assert [judge(rich, now) for now in moments] == [fresh, refresh, refresh, swr, swr, sie, sie, Verdict.GONE]
    assert [gone(rich, now) for now in (119.9, 120.0)] == [False, True]
    assert [gone(plain, now) for now in (99.9, 100.0)] == [False, True]


def test_times_of_what_is_stored() -> None:
    """A stored value has the ttl it was given at most, whatever the clock did, and is gone after its stale times."""
    record = Record(address=address_of(scope_of("c"), "k"), value=1, created=1000.0, ttl=60.0, swr=5.0, sie=7.0)
    assert remaining(record, 1010.0) == 50.0
    assert remaining(record, 900.0) == 60.0
    assert remaining(record, 1061.0) == -1.0
    assert record.gone_at == 1067.0
    plan = Plan(ttl=60.0, swr=5.0, sie=7.0)
    assert gone_at(60.0, plan, 1000.0) == 1067.0
    assert gone_at(None, plan, 1000.0) == FOREVER


def test_what_needs_no_judgement() -> None:
    """A hit is quick until the first moment at which something would have to be decided."""
    assert quick_until(100.0, None, always_judge=False) == 100.0
    assert quick_until(100.0, Extra(refresh_at=90.0), always_judge=False) == 90.0
    assert quick_until(100.0, Extra(isolate=True), always_judge=False) == 0.0
    assert quick_until(100.0, None, always_judge=True) == 0.0

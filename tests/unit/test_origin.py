"""Origin: when a source counts as slow or failing, and as well again."""

from genesis_cache.policies.origin import RAMP_S, Origin, ramp


def test_a_source_that_fails_is_in_trouble_until_it_works() -> None:
    """A few errors among many loads are nothing; a row of them is trouble, and a few good loads end it."""
    origin = Origin()
    for n in range(200):
        origin.add(0.05, failed=n % 20 == 0)
        assert origin.trouble is None
    for _ in range(5):
        origin.add(0.0, failed=True)
    assert origin.trouble == "failing"
    for _ in range(3):
        origin.add(0.05, failed=False)
    assert origin.trouble is None


def test_a_source_that_has_become_slow_is_in_trouble() -> None:
    """Three times the usual length is slow; what always took long is not, nor what takes no time to speak of."""
    origin, quick, steady = Origin(), Origin(), Origin()
    for _ in range(100):
        origin.add(0.1, failed=False)
        quick.add(0.0001, failed=False)
        steady.add(5.0, failed=False)
    for _ in range(20):
        origin.add(1.0, failed=False)
        quick.add(0.001, failed=False)
    assert (origin.trouble, quick.trouble, steady.trouble) == ("slow", None, None)
    for _ in range(10):
        origin.add(0.1, failed=False)
    assert origin.trouble is None


def test_places_open_evenly() -> None:
    """A quarter, then evenly more, never more than there are and never fewer than sixteen of them."""
    assert [ramp(64, RAMP_S * part / 4) for part in range(5)] == [16, 28, 40, 52, 64]
    assert (ramp(4, 0.0), ramp(32, 0.0), ramp(256, 0.0), ramp(64, -1.0)) == (4, 16, 64, 16)

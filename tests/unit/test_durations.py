"""Durations: lengths of time as a user writes them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis_cache.model.durations import seconds


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (30, 30.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
        ("90s", 90.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1w", 604800.0),
        ("1.5h", 5400.0),
        ("500ms", 0.5),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("5M", 300.0),
        (" 45 ", 45.0),
        (None, None),
    ],
)
def test_every_way_of_saying_it_gives_seconds(said: object, meant: float | None) -> None:
    """A number, a timedelta and a text of the same length are the same ttl."""
    assert seconds(said) == meant


@pytest.mark.parametrize(
    "said",
    [
        True,
        False,
        0,
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        10**400,
        timedelta(0),
        timedelta(seconds=-1),
        "",
        "abc",
        "-5s",
        "5x",
        "1h30",
        "h",
        "5m!",
        "\N{ARABIC-INDIC DIGIT ONE}s",
        "9" * 400,
        "0s",
    ],
)
def test_what_is_no_length_of_time_is_refused(said: object) -> None:
    """A wrong ttl is an error that names it, never a value that lives by accident."""
    with pytest.raises(ValueError, match="ttl"):
        seconds(said)


@pytest.mark.parametrize("said", [[], object(), b"5m", {}])
def test_another_type_is_a_type_error(said: object) -> None:
    """A ttl of a wrong type is a TypeError that says what is taken."""
    with pytest.raises(TypeError, match="5m"):
        seconds(said)


def test_a_ttl_of_zero_says_what_to_do_instead() -> None:
    """Whoever writes ttl=0 learns of delete() and expire()."""
    with pytest.raises(ValueError, match=r"delete\(\).*expire\(\)"):
        seconds(0)


def test_zero_is_taken_where_it_means_off() -> None:
    """A stale time of 0 is allowed and means none."""
    assert seconds(0, "stale_if_error", zero=True) == 0.0
    with pytest.raises(ValueError, match="stale_if_error"):
        seconds(-1, "stale_if_error", zero=True)


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_parts_add_up(days: int, hours: int, minutes: int, rest: int) -> None:
    """A length written in parts is the sum of its parts."""
    whole = timedelta(days=days, hours=hours, minutes=minutes, seconds=rest)
    assert seconds(f"{days}d{hours}h{minutes}m{rest}s") == whole.total_seconds()


@given(st.text(max_size=80))
def test_no_text_does_anything_but_parse_or_raise(text: str) -> None:
    """Any text is either a length of time above 0 or a ValueError."""
    try:
        length = seconds(text)
    except ValueError:
        return
    assert length is not None
    assert length > 0

"""Durations: lengths of time as a user writes them, turned into seconds."""

import re
from datetime import timedelta

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = r"\d+(?:\.\d+)?\s*(?:ms|[smhdw])"
_TEXT = re.compile(rf"\s*(?:{_PART}\s*)+", re.ASCII | re.IGNORECASE)
_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"\s*\d+(?:\.\d+)?\s*", re.ASCII)
_LONGEST_S = 1e12  # 30,000 years; far from where adding a second to it gets lost
_MAX_TEXT = 64  # characters; no length of time needs more
_ALLOWED = 'a number of seconds, a timedelta, or text such as "90s", "5m", "1h30m", "1d"'


def seconds(value: object, what: str = "ttl", *, zero: bool = False) -> float | None:
    """Seconds of a duration; None stays None (for a ttl: never expires).

    Takes an int or float (seconds), a timedelta, or text: a plain number of seconds, or numbers with the units
    ``ms s m h d w``, several of which add up (``"1h30m"``). ``zero`` allows 0. ``what`` names it in errors.
    Raises TypeError for another type and ValueError for a value that is no usable length of time.
    """
    match value:
        case None:
            return None
        case bool():
            msg = f"{what} must be {_ALLOWED}, got {value}"
            raise ValueError(msg)
        case int() | float():
            return _checked(value, value, what, zero=zero)
        case timedelta():
            return _checked(value.total_seconds(), value, what, zero=zero)
        case str():
            return _checked(_parsed(value, what), value, what, zero=zero)
        case _:
            msg = f"{what} must be {_ALLOWED}, got {type(value).__name__}"
            raise TypeError(msg)


def _parsed(text: str, what: str) -> float:
    if len(text) <= _MAX_TEXT:
        if _NUMBER.fullmatch(text):
            return float(text)
        if _TEXT.fullmatch(text):
            return sum(float(number) * _UNITS_S[unit.lower()] for number, unit in _PARTS.findall(text))
    msg = f"{what} must be {_ALLOWED}, got {text!r:.80}"
    raise ValueError(msg)


def _checked(number: float, said: object, what: str, *, zero: bool) -> float:
    if not -_LONGEST_S < number < _LONGEST_S:
        msg = f"{what} must be a finite length of time, got {said!r:.80}"
        raise ValueError(msg + ("; say None for no expiry" if what == "ttl" else ""))
    if number < 0 or (number == 0 and not zero):
        least = "at least 0" if zero else "above 0"
        hint = "; use delete() to forget a value or expire() to make it stale" if what == "ttl" else ""
        msg = f"{what} must be {least} seconds, got {said!r}{hint}"
        raise ValueError(msg)
    return float(number)

"""A finding of an examination: what was looked at, whether it is well, and what to do if not."""

from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    ADVICE = "advice"
    """It works, and could be better."""
    FAULT = "fault"
    """It does not work, or will lose what it should keep."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was examined."""

    subject: str
    """What was looked at: ``redis: eviction policy``."""
    severity: Severity
    sentence: str
    """What was found, with the figure."""
    fix: str = ""
    """What to do; empty where nothing has to be done."""

"""Sentinels: `MISSING` (nothing is there) and `UNSET` (nothing was said). Neither is None, which is a value."""

from enum import Enum
from typing import Final, Literal


class _Sentinel(Enum):
    MISSING = "MISSING"
    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.value

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Sentinel.MISSING
UNSET: Final = _Sentinel.UNSET
Missing = Literal[_Sentinel.MISSING]
Unset = Literal[_Sentinel.UNSET]

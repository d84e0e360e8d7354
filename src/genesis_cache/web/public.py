"""What anybody may read: figures and states without the addresses of servers, which the log and `doctor` name."""

import re

TOLD = frozenset({"reason", "evidence", "message"})
"""The fields in which a tier's own words stand."""

_PLACE = re.compile(r"\b(Redis|cluster|PostgreSQL) at \S+")
_NUMBERS = re.compile(
    r"\(?'?(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])'?(?:(?::|, )\d+)?\)?"  # an IPv4 address, as Python shows it too
    r"|\(?'?\[?(?<!\w)[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}:[0-9a-fA-F:]*\]?'?(?:(?::|, )\d+)*\)?"  # an IPv6 address
)


def public(document: object) -> object:
    """The document with every address in the words of its tiers left out."""
    if isinstance(document, dict):
        return {
            name: without_addresses(value) if name in TOLD and isinstance(value, str) else public(value)
            for name, value in document.items()
        }
    return [public(one) for one in document] if isinstance(document, list | tuple) else document


def without_addresses(text: str) -> str:
    """A sentence about a server, without where that is."""
    return _NUMBERS.sub("(address)", _PLACE.sub(r"\1", text))
